"""Tables in files: CSV or Parquet, read into rows with their lines.

A CSV file has commas, semicolons or tabs between its cells, as its header has, and is UTF-8, or UTF-16 as spreadsheets
write it.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autovision.errors import InvalidInput

_PARQUET = (".parquet", ".pq")
_DELIMITERS = ",;\t"
_ZIP = b"PK\x03\x04"
"""what files of spreadsheets begin with"""
_ONE_LINE = (
    "request_id",
    "label",
    "labels",
    "annotator",
    "confidence",
    "new_label",
    "new_confidence",
    "reviewer",
    "image",
    "dataset",
)
"""columns in which no text goes over several lines"""
_BREAK = re.compile(r"\r\n|\r|\n")

Table = tuple[list[str], list[tuple[int, dict[str, Any]]]]
"""columns, and rows with their lines"""


def read(file: Path, called: str = "--file") -> Table:
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
        found = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InvalidInput(f"{shown} is no Parquet table that can be read: {reason}") from error
    try:
        return list(found.column_names), list(enumerate(found.to_pylist(), start=1))
    except (ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InvalidInput(
            f"{shown} holds what Python has no value for: {reason}; save the column as text"
        ) from error


def text(cell: Any) -> str:
    """A cell without spaces around it; some programs write texts to Parquet as bytes."""
    if isinstance(cell, bytes):
        return cell.decode(errors="replace").strip()
    return "" if cell is None else str(cell).strip()
