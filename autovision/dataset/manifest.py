"""The rows of a data set version: a Parquet table in the store, named by the digest of what it says."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from autovision.errors import CorruptObject
from autovision.records.base import digest_of
from autovision.records.datasets import DatasetVersion, Labels, Split, labels_of
from autovision.store import keys
from autovision.store.protocol import AlreadyExists, Store

_ONE, _SEVERAL = pa.field("label", pa.string()), pa.field("labels", pa.list_(pa.string()))
_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("confidence", pa.float64()),
        ("group", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("metadata", pa.map_(pa.string(), pa.string())),
        ("perceptual_hash", pa.string()),
    ]
)


@dataclass(frozen=True)
class Row:
    """One image of a data set version."""

    image: str
    """SHA-256 of its bytes, in hex; its key in the store is `keys.image(image)`"""
    source: str
    """where it came from, for people to read"""
    label: Labels
    split: Split
    confidence: float = 1.0
    """how sure its labels are, 0 to 1"""
    group: str | None = None
    """images of one group are never in two splits"""
    width: int = 0
    """in pixels, upright"""
    height: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    perceptual_hash: str | None = None
    """see `autovision.duplicates`; None in versions that are older than it"""

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes: one, or any number in a data set of several labels an image."""
        return labels_of(self.label)


def digest(rows: Iterable[Row]) -> str:
    """SHA-256 over the rows in canonical order; where an image came from, and what follows from its bytes, aside."""
    return digest_of(
        [
            [row.image, row.label, row.split, row.confidence, row.group, sorted(row.metadata.items())]
            for row in _canonical(rows)
        ]
    )


def write(store: Store, name: str, rows: Sequence[Row]) -> tuple[str, str]:
    """Store the rows of the data set `name`; their key and digest. Equal rows are stored once."""
    named = digest(rows)
    key = keys.dataset_manifest(name, named)
    try:
        store.put_new(key, _to_parquet(rows))
    except AlreadyExists:
        blob = store.get(key)
        try:
            _parse(key, blob.data, named)
        except CorruptObject:
            store.put_if(key, _to_parquet(rows), blob.etag)
    return key, named


def read(store: Store, version: DatasetVersion) -> list[Row]:
    """The rows of a version, ordered by image digest.

    Raises:
        CorruptObject: the table is damaged, or is not the one that the version names.
        KeyNotFound: the table is gone.
    """
    return _parse(version.manifest_key, store.get(version.manifest_key).data, version.digest)


def _canonical(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.image, row.label))


def _to_parquet(rows: Iterable[Row]) -> bytes:
    records = [
        {**vars(row), "labels": row.label, "split": row.split.value, "metadata": sorted(row.metadata.items())}
        for row in _canonical(rows)
    ]
    several = any(not isinstance(row["label"], str) for row in records)
    schema = _SCHEMA.append(_SEVERAL if several else _ONE)
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


def _parse(key: str, data: bytes, expected: str) -> list[Row]:
    try:
        rows = [_row(record) for record in pq.read_table(io.BytesIO(data)).to_pylist()]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptObject(
            f"the rows of a data set at {key!r} cannot be read: {' '.join(str(error).split())[:160]}; "
            "restore the object from a backup, or import the data set again"
        ) from error
    if (found := digest(rows)) != expected:
        raise CorruptObject(
            f"the rows of a data set at {key!r} have the digest {found[:12]} instead of {expected[:12]}; "
            "restore the object from a backup, or import the data set again"
        )
    return rows


def _row(record: dict[str, Any]) -> Row:
    label = tuple(record.pop("labels")) if "labels" in record else record["label"]
    return Row(
        **{**record, "label": label, "split": Split(record["split"]), "metadata": dict(record["metadata"])}
    )
