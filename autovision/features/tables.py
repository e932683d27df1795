"""Several tables of the same images: the views of one output, or of two outputs that are needed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autovision.features.gather import RowMap
from autovision.features.shards import FeatureTable, Rows
from autovision.features.spec import FeatureSpec
from autovision.store.protocol import Store


@dataclass(frozen=True)
class Tables:
    """Tables of the same images.

    Attributes:
        row_bytes: what a row of each table takes.
        noted: told how many damaged shards were found.
    """

    store: Store
    tables: tuple[FeatureTable, ...]
    row_bytes: tuple[int, ...]
    noted: Callable[[int], None]

    def refresh(self) -> None:
        """See what was added to the store and removed from it since."""
        for table in self.tables:
            table.refresh(self.store)
            if table.damaged:
                self.noted(len(table.damaged))
                table.damaged.clear()

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        return tuple(table.spec for table in self.tables)

    @property
    def digests(self) -> frozenset[str]:
        return frozenset(spec.digest for spec in self.specs)

    @property
    def shards(self) -> list[list[str]]:
        return [table.shards for table in self.tables]

    def lacking(self, images: Sequence[str]) -> list[str]:
        """The distinct images that some table lacks, in their order."""
        lacking = {image for table in self.tables for image in table.missing(images)}
        return [image for image in dict.fromkeys(images) if image in lacking]

    def total_bytes(self, images: Sequence[str]) -> int:
        """What the rows of the images take, when all are there."""
        return len(set(images)) * sum(self.row_bytes)

    def missing_bytes(self, images: Sequence[str]) -> int:
        counts = (len(table.missing(images)) for table in self.tables)
        return sum(count * size for count, size in zip(counts, self.row_bytes, strict=True))

    def map(self, images: Sequence[str], which: slice) -> RowMap:
        """The rows (V, N) of V of the tables; none of them may be missing. Raises `ShardGone`."""
        shards: list[Rows] = []
        shard, row = [], []
        for table in self.tables[which]:
            mapped, at, rows = table.rows(self.store, images)
            shard.append(at + len(shards))
            row.append(rows)
            shards += mapped
        return RowMap(shards, np.stack(shard), np.stack(row))
