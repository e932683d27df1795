"""Images in a CSV or Parquet table.

The columns `path` and `label` have to be there; `split`, `confidence` and `group` may be; every further
column is metadata. Paths are relative to the table's folder. An empty cell is as good as none.

Where images may have any number of labels, the column `labels` takes the place of `label`: names with `|`
between them, or a Parquet list of strings. An empty cell or list says that the image has none of the classes.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from autovision.dataset.listing import SPLIT_NAMES, Listing, SourceImage, expanded
from autovision.errors import InvalidInput, near
from autovision.records.datasets import ImportProblem, Labels, Split

PATH, LABEL, LABELS = "path", "label", "labels"
OPTIONAL = ("split", "confidence", "group")
SEPARATOR = "|"
"""between the labels of an image"""

_Cells = dict[str, Any]


def read_csv(path: Path) -> Listing:
    """The images that a CSV file names; raises like `read_parquet`."""
    return _read(path, _csv_rows(path), where="line")


def read_parquet(path: Path) -> Listing:
    """The images that a Parquet file names; no image is opened.

    Raises:
        InvalidInput: the table cannot be read, lacks a column, names no image, or has an unknown split or a
            confidence that is not 0 to 1.
        OSError: the file cannot be read.
    """
    return _read(path, _parquet_rows(path), where="row")


def _read(path: Path, rows: Iterable[tuple[int, _Cells | None]], *, where: str) -> Listing:
    sources: list[SourceImage] = []
    problems: list[ImportProblem] = []
    for number, cells in rows:
        place = f"{path.name}, {where} {number}"
        if cells is None:
            problems.append(
                ImportProblem(
                    path=place, kind="malformed", message="more cells than the header; quote commas"
                )
            )
            continue
        label = _label(cells)
        text = {name: _text(value) for name, value in cells.items() if name not in (LABEL, LABELS)}
        empty = [name for name, there in ((PATH, text[PATH]), (LABEL, label is not None)) if not there]
        if label is None or not text[PATH]:
            message = f"the row has no {' and no '.join(empty)} and is left out"
            problems.append(ImportProblem(path=text[PATH] or place, kind="unlabelled", message=message))
            continue
        sources.append(_source(path, text, label, place))
    if not sources:
        raise InvalidInput(f"the table {str(path)!r} names no image with a label; add rows below its header")
    return Listing(tuple(sources), tuple(problems))


def _label(cells: _Cells) -> Labels | None:
    """What a row says of its image; None if that is nothing at all."""
    if LABEL in cells:
        return unicodedata.normalize("NFC", _text(cells[LABEL])) or None
    given = cells[LABELS]
    if given is None:  # of a Parquet table; an empty cell of a CSV file is an empty text
        return None
    return parse_labels(given if isinstance(given, list) else _text(given).split(SEPARATOR))


def parse_labels(names: Iterable[str | None]) -> tuple[str, ...]:
    """The labels of an image: trimmed, in normal form, each once, sorted."""
    return tuple(sorted({unicodedata.normalize("NFC", text) for name in names if (text := _text(name))}))


def _source(table: Path, text: dict[str, str], label: Labels, place: str) -> SourceImage:
    metadata = {name: value for name, value in text.items() if value and name not in (PATH, *OPTIONAL)}
    return SourceImage(
        label=label,
        path=table.parent / expanded(Path(text["path"])),
        source=text["path"],
        split=_split(text.get("split", ""), place),
        confidence=_confidence(text.get("confidence", ""), place),
        group=text.get("group") or None,
        metadata=metadata,
    )


def _split(name: str, place: str) -> Split | None:
    if name and name.lower() not in SPLIT_NAMES:
        raise InvalidInput(
            f"{place}: unknown split {name!r}{near(name.lower(), SPLIT_NAMES)}; use train, validation "
            "or test, or leave it empty"
        )
    return SPLIT_NAMES[name.lower()] if name else None


def _confidence(text: str, place: str) -> float:
    try:
        value = float(text or 1.0)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise InvalidInput(
            f"{place}: the confidence {text!r} is not a number from 0 to 1; correct it or leave it empty"
        )
    return value


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _check_columns(path: Path, columns: list[str]) -> None:
    if LABEL in columns and LABELS in columns:
        raise InvalidInput(
            f"the table {str(path)!r} has the columns {LABEL!r} and {LABELS!r}; keep the first if every image has "
            "exactly one label, else the second"
        )
    for name in (PATH, LABELS if LABELS in columns else LABEL):
        if name not in columns:
            raise InvalidInput(
                f"the table {str(path)!r} has no column {name!r}; its columns are "
                f"{', '.join(map(repr, columns)) or 'none'}{near(name, columns)}; rename or add it"
            )
    if len(set(columns)) < len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        raise InvalidInput(f"the table {str(path)!r} has the column {twice[0]!r} twice; rename or drop one")


def _csv_rows(path: Path) -> Iterator[tuple[int, _Cells | None]]:
    """Line numbers and cells of a CSV file; None for a row that is longer than the header."""
    try:
        # utf-8-sig: spreadsheets begin their files with a byte order mark.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"the table {str(path)!r} is not UTF-8 (byte {error.start} is {error.object[error.start]:#04x}); "
            "save it as UTF-8"
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        columns = [name.strip() for name in next(reader, [])]
        _check_columns(path, columns)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            padded = cells + [""] * (len(columns) - len(cells))
            yield (
                reader.line_num,
                dict(zip(columns, padded, strict=True)) if len(padded) == len(columns) else None,
            )
    except csv.Error as error:
        raise InvalidInput(
            f"the table {str(path)!r}, line {reader.line_num}, is not valid CSV: {error}"
        ) from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, _Cells | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()))
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InvalidInput(
            f"{str(path)!r} is not a Parquet table that can be read: {reason}; save it anew"
        ) from error
    _check_columns(path, table.column_names)
    for column in table.schema:
        if column.name == LABELS and _is_text_list(column.type):
            continue
        if pa.types.is_binary(column.type) or pa.types.is_nested(column.type):
            raise InvalidInput(
                f"the column {column.name!r} of {str(path)!r} holds {column.type} and not text or numbers; "
                "drop it"
            )
    number = 0
    for batch in table.to_batches(max_chunksize=10_000):
        try:
            found = batch.to_pylist()
        except (ValueError, OverflowError) as error:  # such as times that are finer than Python's
            raise InvalidInput(
                f"{str(path)!r} holds what Python has no value for: {' '.join(str(error).split())[:160]}; save the "
                "column as text"
            ) from error
        for cells in found:
            number += 1
            yield number, cells


def _is_text_list(kind: Any) -> bool:
    import pyarrow as pa

    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(
        is_list and (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type))
    )
