"""Labels from a CSV or Parquet file: read, checked and sent row by row.

The column `label` holds an image's class; or the column `labels` all of its classes, where an image may have any
number, also none: names with `|` between them, in Parquet a list as well. `annotator` and `confidence` may be there,
and `said_at`: when the annotator said so, a time with its zone such as 2026-11-23T14:05:00Z, in Parquet also a
timestamp.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autovision.cli import table_file
from autovision.cli.table_file import text
from autovision.errors import AutoVisionError, InvalidInput, near
from autovision.records.base import now

if TYPE_CHECKING:
    from autovision.api import AutoVision

_REQUEST, _LABEL, _LABELS = "request_id", "label", "labels"
_OPTIONAL = ("annotator", "confidence")
_SAID_AT = "said_at"
_SEPARATOR = "|"
_AT_ONCE = 1000
"""rows that are sent together"""
_SHOWN, _LINES = 10, 5
"""faults that are shown, and lines of each"""


@dataclass(frozen=True)
class LabelRow:
    """One row of the file; `fault` says why it cannot be sent."""

    line: int
    """of a CSV file; of a Parquet file the number of the row, from 1"""
    request_id: str = ""
    label: str | tuple[str, ...] = ""
    annotator: str = ""
    confidence: float = 1.0
    said_at: datetime | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Sent:
    """What became of the rows."""

    stored: int
    known: int
    outdated: tuple[tuple[int, str], ...]
    """line in the file and request id of words after which the same annotator said otherwise, which stands"""
    bad: tuple[tuple[int, str], ...]
    """line in the file, and what is wrong with it"""
    waiting: tuple[tuple[int, str], ...]
    """line in the file and request id of labels, stored or known, whose request is not among the captures (yet)"""

    def to_json(self) -> dict[str, Any]:
        bad = [{"line": line, "error": error} for line, error in self.bad]
        waiting = [{"line": line, "request_id": request} for line, request in self.waiting]
        outdated = [{"line": line, "request_id": request} for line, request in self.outdated]
        return {
            "stored": self.stored,
            "known": self.known,
            "outdated": outdated,
            "bad": bad,
            "waiting": waiting,
        }

    def to_text(self) -> str:
        lines = [f"{self.stored} labels stored, {self.known} known already, {len(self.bad)} rows not usable"]
        lines += listed(together(self.bad))
        if self.outdated:
            lines.append(
                f"{len(self.outdated)} rows are older than what the same annotator said since, which stands; if they "
                f"are newer, give them the column {_SAID_AT}"
            )
            lines += listed([f"line {line}: {request}" for line, request in self.outdated])
        if not (self.stored or self.known or self.bad or self.outdated):
            lines.append("the file has no rows below its header")
        if self.waiting:
            lines.append(
                f"{len(self.waiting)} of them are of requests that were not captured, or not yet: they are kept, and "
                "count once their request is there"
            )
            lines += listed([f"line {line}: {request}" for line, request in self.waiting])
        return "\n".join(lines)


def together(bad: Sequence[tuple[int, str]]) -> list[str]:
    """What is wrong, each fault once with the lines that it is on."""
    found: dict[str, list[int]] = {}
    for line, error in bad:
        found.setdefault(error, []).append(line)
    return [f"{_lines(on)}: {error}" for error, on in found.items()]


def _lines(on: Sequence[int]) -> str:
    if len(on) == 1:
        return f"line {on[0]}"
    more = f" and {len(on) - _LINES} more" if len(on) > _LINES else ""
    return f"lines {', '.join(map(str, on[:_LINES]))}{more}"


def listed(lines: Sequence[str]) -> list[str]:
    """The first of many lines, indented."""
    more = [f"    and {len(lines) - _SHOWN} more; --json lists all"] if len(lines) > _SHOWN else []
    return [*(f"    {line}" for line in lines[:_SHOWN]), *more]


def check_confidence(confidence: float) -> float:
    """Raises `InvalidInput` unless it lies from 0 to 1."""
    if not 0 <= confidence <= 1:  # also refuses NaN
        raise InvalidInput(f"confidence {confidence:g}: give a number from 0 to 1")
    return confidence


def read(file: Path, annotator: str, confidence: float) -> list[LabelRow]:
    """The rows of a file; `annotator` and `confidence` stand in where it has none.

    Raises `InvalidInput` for a file that cannot be read, or that lacks a column.
    """
    check_confidence(confidence)
    columns, rows = table_file.read(file)
    for name in (_REQUEST, _LABELS if _LABELS in columns else _LABEL):
        if name not in columns:
            raise InvalidInput(
                f"--file {str(file)!r} has no column {name!r}{near(name, columns)}; it has "
                f"{', '.join(map(repr, columns)) or 'no header'}"
            )
    if _LABEL in columns and _LABELS in columns:
        raise InvalidInput(
            f"--file {str(file)!r} has the columns {_LABEL!r} and {_LABELS!r}; keep one of them"
        )
    return [_row(line, values, annotator, confidence) for line, values in rows]


def send(
    av: AutoVision, deployment: str, rows: Sequence[LabelRow], *, new_classes: Sequence[str] = ()
) -> Sent:
    """Send the rows: one that is refused does not keep back the others."""
    # A deployment that does not exist is one fault here, not one in each row.
    captured = av.captured_requests(deployment)
    from autovision.api.labelled import Word
    from autovision.store.labels import News

    found: Counter[News] = Counter()
    outdated: list[tuple[int, str]] = []
    bad: list[tuple[int, str]] = []
    waiting: list[tuple[int, str]] = []
    began = now()
    for begin in range(0, len(rows), _AT_ONCE):
        some = rows[begin : begin + _AT_ONCE]
        bad += [(row.line, row.fault) for row in some if row.fault is not None]
        good = [row for row in some if row.fault is None]
        words = [Word(row.request_id, row.label, row.annotator, row.confidence, row.said_at) for row in good]
        told = av.feedback_many(deployment, words, new_classes=new_classes, began=began)
        for row, news in zip(good, told, strict=True):
            if isinstance(news, InvalidInput):
                bad.append((row.line, str(news)))
                continue
            found[news] += 1
            if news is News.OUTDATED:
                outdated.append((row.line, row.request_id))
            if row.request_id not in captured:
                waiting.append((row.line, row.request_id))
    return Sent(found[News.STORED], found[News.KNOWN], tuple(outdated), tuple(sorted(bad)), tuple(waiting))


def _row(line: int, values: dict[str, Any], annotator: str, confidence: float) -> LabelRow:
    given = {name: text(values.get(name)) for name in (_REQUEST, _LABEL, *_OPTIONAL)}
    try:
        table_file.check_cells(values)
    except InvalidInput as error:
        return LabelRow(line, fault=str(error))
    for name in (_REQUEST, _LABEL):
        if name in values and not given[name]:
            return LabelRow(line, fault=f"{name} is empty")
    # An empty cell says that the image has none of the classes; a row that ends before it says nothing.
    if _LABELS in values and values[_LABELS] is None:
        return LabelRow(line, fault=f"{_LABELS} is missing; end the row with a comma for none of the classes")
    try:
        sure = confidence_of(given["confidence"], confidence)
        said_at = time_of(values.get(_SAID_AT))
    except AutoVisionError as error:
        return LabelRow(line, fault=str(error))
    label = given[_LABEL] if _LABEL in values else names_of(values[_LABELS])
    return LabelRow(line, given[_REQUEST], label, given["annotator"] or annotator, sure, said_at)


def confidence_of(cell: str, otherwise: float) -> float:
    """What a cell says; `otherwise` if it is empty. Raises `InvalidInput`."""
    try:
        # Where cells are separated by semicolons, fractions have a comma.
        return check_confidence(float(cell.replace(",", "."))) if cell else otherwise
    except ValueError:
        raise InvalidInput(f"confidence {cell!r} is no number; give one from 0 to 1") from None


def time_of(cell: Any) -> datetime | None:
    """When something was said; None if the cell is empty. Raises `InvalidInput` for what is no time with its zone."""
    said = text(cell)
    if not said:
        return None
    try:
        at = cell if isinstance(cell, datetime) else datetime.fromisoformat(said)
        if at.tzinfo is not None:
            return at
    except ValueError:
        pass
    raise InvalidInput(
        f"{_SAID_AT} {said[:40]!r} is no time with its zone; write it like 2026-11-23T14:05:00Z or "
        "2026-11-23T15:05:00+01:00"
    )


def names_of(cell: Any) -> tuple[str, ...]:
    """The classes in a cell, or in a list of a Parquet table."""
    names = cell if isinstance(cell, list) else text(cell).split(_SEPARATOR)
    return tuple(name for each in names if (name := text(each)))
