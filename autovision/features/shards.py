"""Rows of one feature spec in the store: Arrow IPC files, written once, memory-mapped by every reader.

A shard is named by the digest of its content. It appears whole or not at all, and is checked against its name
before the first of its rows is read; one that is damaged is removed, and what it held is computed again.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autovision.features.spec import FeatureSpec
from autovision.store import keys
from autovision.store.protocol import KeyNotFound, Store

Rows = npt.NDArray[np.float16] | npt.NDArray[np.uint8]

_log = logging.getLogger(__name__)


class ShardGone(Exception):
    """A shard that was listed is no longer there, or was damaged and has been removed: list again."""


@dataclass
class FeatureTable:
    """Which rows of one spec the store holds. It maps none of them: `rows` does.

    Attributes:
        damaged: keys of shards that were found damaged, and removed.
    """

    spec: FeatureSpec
    damaged: list[str] = field(default_factory=list)
    _images: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """key of a shard -> the images in it"""
    _where: dict[str, tuple[str, int]] = field(default_factory=dict)
    """image -> key of its shard, row in it"""
    _checked: set[str] = field(default_factory=set)

    @property
    def shards(self) -> list[str]:
        return list(self._images)

    def refresh(self, store: Store) -> None:
        """See what was added to the store and removed from it since."""
        listed = set(store.list(keys.features(self.spec.digest)))
        if gone := self._images.keys() - listed:
            self._forget(gone)
        for key in sorted(listed - self._images.keys()):
            try:
                images = tuple(map(sys.intern, _read(store, key).column("image").to_pylist()))
            except (pa.ArrowException, OSError, KeyError):
                self._remove(store, key)
            except KeyNotFound:
                continue
            else:
                self._images[key] = images
                for row, image in enumerate(images):
                    self._where.setdefault(image, (key, row))

    def missing(self, images: Iterable[str]) -> list[str]:
        return [image for image in dict.fromkeys(images) if image not in self._where]

    def rows(self, store: Store, images: Sequence[str]) -> tuple[list[Rows], np.ndarray, np.ndarray]:
        """The mapped shards that hold the images; for each image the number of its shard, and its row in it.

        None of the images may be missing. What is mapped stays readable whatever happens to the store.
        Raises `ShardGone`; the table is to be refreshed then, and lacks some of the images.
        """
        places = [self._where[image] for image in images]
        number = {key: i for i, key in enumerate(dict.fromkeys(key for key, _ in places))}
        mapped = [self._map(store, key) for key in number]
        shard = np.array([number[key] for key, _ in places], np.int64)
        return mapped, shard, np.array([row for _, row in places], np.int64)

    def _map(self, store: Store, key: str) -> Rows:
        try:
            if key not in self._checked and not _is_whole(store, key):
                self._remove(store, key)
                self._forget([key])
                raise ShardGone(key)
            table = _read(store, key)
        except (KeyNotFound, OSError) as error:
            self._forget([key])
            raise ShardGone(key) from error
        self._checked.add(key)
        shape = tuple(int(size) for size in table.schema.metadata[b"shape"].split(b","))
        # One record batch per shard: its values are one stretch of the mapped file, viewed without a copy.
        values = table.column("values").chunk(0).flatten().to_numpy(zero_copy_only=True)
        rows: Rows = values.reshape(-1, *shape)
        return rows

    def _remove(self, store: Store, key: str) -> None:
        _log.warning("the frozen features at %r in %s are damaged; they are computed again", key, store.uri)
        self.damaged.append(key)
        store.delete(key)

    def _forget(self, gone: Iterable[str]) -> None:
        for key in list(gone):
            self._images.pop(key, None)
        self._where = {}
        for key, images in self._images.items():
            for row, image in enumerate(images):
                self._where.setdefault(image, (key, row))


def _read(store: Store, key: str) -> pa.Table:
    with pa.memory_map(str(store.local_path(key))) as source:
        return pa.ipc.open_file(source).read_all()


def _is_whole(store: Store, key: str) -> bool:
    """Whether a shard's content is what its name says."""
    with store.local_path(key).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == keys.feature_shard_digest(key)


def as_stored(values: np.ndarray) -> Rows:
    """Values as a shard holds them: uint8 as they are, others rounded to float16 and clipped to what it can hold."""
    if values.dtype == np.uint8:
        return values
    limit = float(np.finfo(np.float16).max)
    rounded: Rows = np.clip(values, -limit, limit).astype(np.float16)
    return rounded


def pack(spec: FeatureSpec, images: Sequence[str], values: np.ndarray) -> tuple[str, bytes]:
    """A shard's key and content: `values` (N, *shape) are the images' rows."""
    rows = as_stored(values)
    shape = rows.shape[1:]
    width = int(np.prod(shape))
    kind = pa.uint8() if rows.dtype == np.uint8 else pa.float16()
    schema = pa.schema(
        [("image", pa.string()), ("values", pa.list_(kind, width))],
        metadata={"shape": ",".join(map(str, shape)), "spec": spec.model_dump_json()},
    )
    flat = pa.array(np.ascontiguousarray(rows).reshape(-1), kind)
    batch = pa.record_batch(
        [pa.array(list(images)), pa.FixedSizeListArray.from_arrays(flat, width)], schema=schema
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)
    data = sink.getvalue().to_pybytes()
    return keys.feature_shard(spec.digest, hashlib.sha256(data).hexdigest(), len(data)), data
