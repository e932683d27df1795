"""Labels from a CSV or Parquet file: read, checked and sent row by row.

The column `label` holds an image's class; or the column `labels` all of its classes, where an image may have any
number, also none: names with `|` between them, in Parquet a list as well. `annotator` and `confidence` may be there,
and `said_at`: when the annotator said so, a time with its zone such as 2026-11-23T14:05:00Z, in Parquet also a
timestamp.
A CSV file has commas, semicolons or tabs between its cells, as its header has, and is UTF-8, or UTF-16 as spreadsheets
write it.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autovision.errors import AutoVisionError, InvalidInput, near

if TYPE_CHECKING:
    from autovision.api import AutoVision

_REQUEST, _LABEL, _LABELS = "request_id", "label", "labels"
_OPTIONAL = ("annotator", "confidence")
_SAID_AT = "said_at"
_SEPARATOR = "|"
_PARQUET = (".parquet", ".pq")
_DELIMITERS = ",;\t"
_ZIP = b"PK\x03\x04"
"""what files of spreadsheets begin with"""
_ONE_LINE = (
    _REQUEST,
    _LABEL,
    _LABELS,
    *_OPTIONAL,
    "new_label",
    "new_confidence",
    "reviewer",
    "image",
    "dataset",
)
"""columns in which no text goes over several lines"""
_BREAK = re.compile(r"\r\n|\r|\n")
_AT_ONCE = 1000
"""rows that are sent together"""
_SHOWN, _LINES = 10, 5
"""faults that are shown, and lines of each"""

Table = tuple[list[str], list[tuple[int, dict[str, Any]]]]
"""columns, and rows with their lines"""


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
    columns, rows = table(file)
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


def table(file: Path, called: str = "--file") -> Table:
    """The columns of a CSV or Parquet file, and its rows with their lines. Raises `InvalidInput`."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"{called} {str(file)!r} cannot be read: {error.strerror}; name a file that can be"
        ) from error
    shown = f"{called} {str(file)!r}"
    if data.startswith(_ZIP):
        raise InvalidInput(
            f"{shown} is a spreadsheet or an archive; save its table as CSV UTF-8, or as Parquet"
        )
    columns, rows = (_parquet if file.suffix.lower() in _PARQUET else _csv)(shown, data)
    for name in columns:
        if name and columns.count(name) > 1:
            raise InvalidInput(f"{shown} has the column {name!r} more than once; keep one of them")
    return columns, rows


def check_cells(cells: Mapping[Any, Any]) -> None:
    """Raises `InvalidInput` for a row that has more cells than the header, or one that has swallowed other rows."""
    for name in _ONE_LINE:
        if isinstance(cell := cells.get(name), str) and (breaks := len(_BREAK.findall(cell.strip()))):
            raise InvalidInput(
                f'{name} goes on for {breaks} lines more: a quote " that is opened here is not closed, and what '
                "follows up to the next one is read as part of it; close it, and give the file again"
            )
    if more := cells.get(None):
        raise InvalidInput(
            f"the row has {len(more)} cells more than the header; put a text that has the separator in it in quotes, "
            "and write fractions with a point"
        )


def _csv(shown: str, data: bytes) -> Table:
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        # utf-8-sig: spreadsheets begin their files with a byte order mark.
        content = data.decode("utf-16" if wide else "utf-8-sig")
        header = content.partition("\n")[0]
        reader = csv.DictReader(
            io.StringIO(content, newline=""), delimiter=max(_DELIMITERS, key=header.count)
        )
        columns = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        return columns, [
            (reader.line_num - _breaks(cells), cells) for cells in reader if any(map(_filled, cells.values()))
        ]
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidInput(
            f"{shown} is not a CSV file in UTF-8: {error} (line {line}); save it as CSV UTF-8"
        ) from error
    except csv.Error as error:
        raise InvalidInput(
            f'{shown} is not a CSV file: {error}, up to line {reader.line_num}; a quote " may not be closed: save it '
            "as CSV UTF-8"
        ) from error


def _breaks(cells: Mapping[Any, Any]) -> int:
    """Lines that a row takes beyond its first."""
    return sum(len(_BREAK.findall(cell.rstrip())) for cell in cells.values() if isinstance(cell, str))


def _filled(cell: Any) -> bool:
    return bool(cell.strip() if isinstance(cell, str) else cell)


def _parquet(shown: str, data: bytes) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        read = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InvalidInput(f"{shown} is no Parquet table that can be read: {reason}") from error
    try:
        return list(read.column_names), list(enumerate(read.to_pylist(), start=1))
    except (ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InvalidInput(
            f"{shown} holds what Python has no value for: {reason}; save the column as text"
        ) from error


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
    for begin in range(0, len(rows), _AT_ONCE):
        some = rows[begin : begin + _AT_ONCE]
        bad += [(row.line, row.fault) for row in some if row.fault is not None]
        good = [row for row in some if row.fault is None]
        words = [Word(row.request_id, row.label, row.annotator, row.confidence, row.said_at) for row in good]
        for row, news in zip(good, av.feedback_many(deployment, words, new_classes=new_classes), strict=True):
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
        check_cells(values)
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


def text(cell: Any) -> str:
    """A cell without spaces around it; some programs write texts to Parquet as bytes."""
    if isinstance(cell, bytes):
        return cell.decode(errors="replace").strip()
    return "" if cell is None else str(cell).strip()
