"""The review queue as a folder: a table to be filled in, the images, a page to look at; and the table read back.

`queue.csv` has a row for each entry. A reviewer fills `new_label`: a class, or with several labels all of them with `|`
between, and `|` alone for none; `new_confidence` and `reviewer` if they like. A row whose `new_label` is empty says
nothing. `queue.parquet` is the same table.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autovision.errors import InvalidInput
from autovision.records.datasets import Labels, labels_of
from autovision.review.queue import Entry, ReviewQueue
from autovision.store import keys
from autovision.store.protocol import Store

SEPARATOR = "|"
NEW_LABEL, NEW_CONFIDENCE, REVIEWER = "new_label", "new_confidence", "reviewer"
PAGE, TABLE = "queue.html", "queue.csv"
_IMAGES = "images"
_FREE = ("why", "labelled_by", "source")
"""columns with texts of others, which nothing reads back"""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MOST_CLASSES = 20
"""whose probabilities a row tells"""
_MAGIC = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"RIFF": "webp",
}


@dataclass(frozen=True)
class Verdict:
    """What a reviewer wrote in one row."""

    request_id: str | None
    image: str
    dataset: str
    """name of the data set that the image is of; empty: it was captured"""
    label: Labels
    confidence: str
    """as it stands there"""
    reviewer: str


def check(folder: Path) -> None:
    """Raises `InvalidInput` for a folder that holds something already, which may be somebody's work."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(
            f"{str(folder)!r} is no empty folder; name a new one, since its labels may be needed"
        )


def write(store: Store, queue: ReviewQueue, folder: Path, page: str) -> None:
    """Write the queue as files; `page` is its HTML.

    Raises `InvalidInput` like `check`, and for a folder that cannot be written.
    """
    check(folder)
    try:
        (folder / _IMAGES).mkdir(parents=True, exist_ok=True)
        rows = []
        for number, entry in enumerate(queue.entries, start=1):
            data = store.get(keys.image(entry.image)).data
            file = f"{_IMAGES}/{number:04d}-{entry.image[:12]}.{_extension(data)}"
            (folder / file).write_bytes(data)
            rows.append(_row(queue, entry, file))
        _write_tables(folder, rows)
        (folder / PAGE).write_text(page, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            f"{str(folder)!r} cannot be written: {error.strerror or error}; choose another place"
        ) from error


def verdict_of(cells: Mapping[str, Any], *, multi_label: bool) -> Verdict | None:
    """What a row says; None if its `new_label` is empty. Raises `InvalidInput` for a row that names no image."""
    said = cells.get(NEW_LABEL)
    if said is None or (not isinstance(said, list) and not str(said).strip()):
        return None
    text = {name: "" if value is None else str(value).strip() for name, value in cells.items() if name}
    request, image, dataset = (text.get(name, "") for name in ("request_id", "image", "dataset"))
    if not request and not (image and dataset):
        raise InvalidInput(
            "the row has neither a request_id nor an image with its dataset; restore its cells"
        )
    parts = said if isinstance(said, list) else str(said).split(SEPARATOR)
    names = tuple(name for part in parts if (name := str(part).strip()))
    label: Labels = names if multi_label or len(names) != 1 else names[0]
    return Verdict(
        request_id=request or None,
        image=image,
        dataset="" if request else dataset.partition("@")[0],
        label=label,
        confidence=text.get(NEW_CONFIDENCE, ""),
        reviewer=text.get(REVIEWER, ""),
    )


def _row(queue: ReviewQueue, entry: Entry, file: str) -> dict[str, str | float]:
    likely = sorted(entry.probabilities.items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST_CLASSES]
    return {
        "file": file,
        "reason": entry.reason.value,
        "why": entry.why,
        NEW_LABEL: "",
        NEW_CONFIDENCE: "",
        REVIEWER: "",
        "label": _told(entry.label),
        "labelled_by": entry.by,
        "suggested": _told(entry.suggested),
        "answer": _told(entry.answer),
        "probabilities": SEPARATOR.join(f"{name}={p:.4f}" for name, p in likely),
        "judged_by": entry.judged_by,
        "score": entry.score,
        "request_id": entry.request_id or "",
        "dataset": "" if entry.request_id else queue.dataset,
        "split": entry.split or "",
        "image": entry.image,
        "source": entry.source,
    }


def _told(label: Labels | None) -> str:
    """As it is to be filled in."""
    if label is None or isinstance(label, str):
        return label or ""
    return SEPARATOR.join(labels_of(label)) or SEPARATOR


def _write_tables(folder: Path, rows: list[dict[str, str | float]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(_columns())
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _harmless(name, value) for name, value in row.items()} for row in rows)
    # A byte order mark: without it spreadsheets take UTF-8 for something else.
    (folder / TABLE).write_text(text.getvalue(), encoding="utf-8-sig", newline="")
    schema = pa.schema([(name, pa.float64() if name == "score" else pa.string()) for name in names])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), os.fspath(folder / "queue.parquet"))


def _harmless(column: str, value: str | float) -> str | float:
    """Not as a formula, which spreadsheets would compute: an annotator's name comes from outside."""
    dangerous = column in _FREE and isinstance(value, str) and value.startswith(_FORMULA)
    return f"'{value}" if dangerous else value


def _columns() -> Iterator[str]:
    yield from (
        "file",
        "reason",
        "why",
        NEW_LABEL,
        NEW_CONFIDENCE,
        REVIEWER,
        "label",
        "labelled_by",
        "suggested",
    )
    yield from (
        "answer",
        "probabilities",
        "judged_by",
        "score",
        "request_id",
        "dataset",
        "split",
        "image",
        "source",
    )


def _extension(data: bytes) -> str:
    return next((extension for magic, extension in _MAGIC.items() if data.startswith(magic)), "img")
