"""Labels from a CSV file: read, checked and sent row by row.

The column `label` holds an image's class; or the column `labels` all of its classes with `|` between them, where an
image may have any number, also none.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autovision.errors import AutoVisionError, InvalidInput, near

if TYPE_CHECKING:
    from autovision.api import AutoVision

_REQUEST, _LABEL, _LABELS = "request_id", "label", "labels"
_OPTIONAL = ("annotator", "confidence")
_SEPARATOR = "|"
_SHOWN = 10


@dataclass(frozen=True)
class LabelRow:
    """One row of the file; `fault` says why it cannot be sent."""

    line: int
    request_id: str = ""
    label: str | tuple[str, ...] = ""
    annotator: str = ""
    confidence: float = 1.0
    fault: str | None = None


@dataclass(frozen=True)
class Sent:
    """What became of the rows."""

    stored: int
    known: int
    bad: tuple[tuple[int, str], ...]
    """line in the file, and what is wrong with it"""

    def to_json(self) -> dict[str, Any]:
        bad = [{"line": line, "error": error} for line, error in self.bad]
        return {"stored": self.stored, "known": self.known, "bad": bad}

    def to_text(self) -> str:
        lines = [f"{self.stored} labels stored, {self.known} known already, {len(self.bad)} rows not usable"]
        lines += [f"    line {line}: {error}" for line, error in self.bad[:_SHOWN]]
        if len(self.bad) > _SHOWN:
            lines.append(f"    and {len(self.bad) - _SHOWN} more; --json lists all")
        return "\n".join(lines)


def check_confidence(confidence: float) -> float:
    """Raises `InvalidInput` unless it lies from 0 to 1."""
    if not 0 <= confidence <= 1:  # also refuses NaN
        raise InvalidInput(f"confidence {confidence:g}: give a number from 0 to 1")
    return confidence


def read(file: Path, annotator: str, confidence: float) -> list[LabelRow]:
    """The rows of a CSV file; `annotator` and `confidence` stand in where it has none.

    Raises `InvalidInput` for a file that cannot be read, or that lacks a column.
    """
    check_confidence(confidence)
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            return list(_rows(file, csv.DictReader(stream), annotator, confidence))
    except OSError as error:
        raise InvalidInput(f"--file {str(file)!r} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"--file {str(file)!r} is not a CSV file in UTF-8: {error}") from error


def send(av: AutoVision, deployment: str, rows: Sequence[LabelRow]) -> Sent:
    """Send the rows one by one: one that is refused does not keep back the others."""
    av.decisions(deployment)  # a deployment that does not exist is one fault, not one in each row
    stored, known = 0, 0
    bad: list[tuple[int, str]] = []
    for row in rows:
        if row.fault is not None:
            bad.append((row.line, row.fault))
            continue
        try:
            new = av.feedback(
                deployment, row.request_id, row.label, annotator=row.annotator, confidence=row.confidence
            )
        except InvalidInput as error:
            bad.append((row.line, str(error)))
        else:
            stored, known = stored + new, known + (not new)
    return Sent(stored, known, tuple(bad))


def _rows(file: Path, reader: csv.DictReader[str], annotator: str, confidence: float) -> Iterator[LabelRow]:
    columns = [name.strip() for name in reader.fieldnames or ()]
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
    reader.fieldnames = columns
    for values in reader:
        yield _row(reader.line_num, values, annotator, confidence)


def _row(line: int, values: dict[str, Any], annotator: str, confidence: float) -> LabelRow:
    given = {name: (values.get(name) or "").strip() for name in (_REQUEST, _LABEL, _LABELS, *_OPTIONAL)}
    for name in (_REQUEST, _LABEL):
        if name in values and not given[name]:
            return LabelRow(line, fault=f"{name} is empty")
    # An empty cell says that the image has none of the classes; a row that ends before it says nothing.
    if _LABELS in values and values[_LABELS] is None:
        return LabelRow(line, fault=f"{_LABELS} is missing; end the row with a comma for none of the classes")
    try:
        sure = check_confidence(float(given["confidence"])) if given["confidence"] else confidence
    except AutoVisionError as error:
        return LabelRow(line, fault=str(error))
    except ValueError:
        return LabelRow(line, fault=f"confidence {given['confidence']!r} is no number; give one from 0 to 1")
    several = tuple(name.strip() for name in given[_LABELS].split(_SEPARATOR) if name.strip())
    label = given[_LABEL] if _LABEL in values else several
    return LabelRow(line, given[_REQUEST], label, given["annotator"] or annotator, sure)
