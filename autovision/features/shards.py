"""Rows of one feature spec in the store: Arrow IPC files, written once, memory-mapped by every reader.

A shard's key holds the digest of the images in it, so two writers of the same rows write the same file,
and a row that stands in two shards has the same value in both. A shard appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from autovision.errors import CorruptObject
from autovision.features.spec import FeatureSpec
from autovision.records import digest_of
from autovision.store import keys
from autovision.store.protocol import Store


@dataclass
class FeatureTable:
    """The rows of one spec that this process knows of."""

    spec: FeatureSpec
    shape: tuple[int, ...] = ()
    """of one row; () while there are no rows"""
    _shards: dict[str, np.ndarray] = field(default_factory=dict)
    _where: dict[str, tuple[str, int]] = field(default_factory=dict)

    def refresh(self, store: Store) -> None:
        """Map the shards that have been added since."""
        for key in store.list(keys.features(self.spec.digest)):
            if key not in self._shards:
                self._map(store, key)

    def missing(self, images: Sequence[str]) -> list[str]:
        return [image for image in dict.fromkeys(images) if image not in self._where]

    def gather(self, images: Sequence[str], columns: np.ndarray | None = None) -> np.ndarray:
        """Rows of the images, in their order: float16 (N, *shape), or (N, len(columns)) of a flat table."""
        width = self.shape if columns is None else (len(columns),)
        out = np.empty((len(images), *width), np.float16)
        for row, name in enumerate(images):
            key, at = self._where[name]
            value = self._shards[key][at]
            out[row] = value if columns is None else value[columns]
        return out

    def _map(self, store: Store, key: str) -> None:
        try:
            with pa.memory_map(str(store.local_path(key))) as source:
                table = pa.ipc.open_file(source).read_all()
        except (pa.ArrowException, OSError) as error:
            raise CorruptObject(
                f"the frozen features at {key!r} in {store.uri} cannot be read ({error}); delete that object: "
                "what it held is computed again"
            ) from error
        self.shape = tuple(int(size) for size in table.schema.metadata[b"shape"].split(b","))
        # One record batch per shard: its values are one stretch of the mapped file, viewed without a copy.
        values = table.column("values").chunk(0).flatten().to_numpy(zero_copy_only=True)
        self._shards[key] = values.reshape(-1, *self.shape)
        for row, name in enumerate(table.column("image").to_pylist()):
            self._where.setdefault(name, (key, row))


def write_shard(store: Store, spec: FeatureSpec, images: Sequence[str], values: np.ndarray) -> None:
    """Store rows: `values` (N, *shape) are rounded to float16, and clipped to what that can hold."""
    limit = float(np.finfo(np.float16).max)
    rows = np.clip(values, -limit, limit).astype(np.float16)
    shape = rows.shape[1:]
    width = int(np.prod(shape))
    schema = pa.schema(
        [("image", pa.string()), ("values", pa.list_(pa.float16(), width))],
        metadata={"shape": ",".join(map(str, shape)), "spec": spec.model_dump_json()},
    )
    flat = pa.array(rows.reshape(-1), pa.float16())
    batch = pa.record_batch(
        [pa.array(list(images)), pa.FixedSizeListArray.from_arrays(flat, width)], schema=schema
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)
    store.put_immutable(
        keys.feature_shard(spec.digest, digest_of(list(images))[:24]), sink.getvalue().to_pybytes()
    )
