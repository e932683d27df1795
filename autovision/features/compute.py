"""Features on demand: read what is stored, compute what is missing, once on the whole cluster."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autovision import image
from autovision.dataset.loader import load_pixels
from autovision.features.shards import FeatureTable, write_shard
from autovision.features.spec import FeatureSpec, view_names, view_of
from autovision.model.backbone import LoadedBackbone
from autovision.model.inference import Compiled, compile_module, native_precision
from autovision.model.network import CutExtractor, PooledExtractor
from autovision.records import Preprocessing, digest_of
from autovision.space.config import Augmentation
from autovision.store import lease
from autovision.store.protocol import Store

_CHUNK = 64
"""images that are decoded, computed and stored together: what a kill can lose"""
_LEASE_S = 15.0


class OutOfTime(Exception):
    """The deadline came before the features were ready; what was computed is stored."""


@dataclass
class FeatureSource:
    """Features of one backbone at one resolution.

    Attributes:
        loaded: the whole backbone (not truncated), in evaluation mode.
        threads: CPU threads to compute with.
        seconds: time spent computing or waiting for features so far.
        computed: images times views computed so far, by output (`pooled` or `cut`).
    """

    store: Store
    loaded: LoadedBackbone
    name: str
    preprocessing: Preprocessing
    threads: int
    seconds: float = 0.0
    computed: int = 0

    def __post_init__(self) -> None:
        self._tables: dict[str, FeatureTable] = {}
        self._compiled: dict[int | None, Compiled] = {}

    def pooled(
        self, images: Sequence[str], augmentation: Augmentation, columns: np.ndarray, *, deadline: float
    ) -> np.ndarray:
        """Pooled statistics: float16 (V, N, len(columns)). Raises `OutOfTime`."""
        return self._fetch(images, augmentation, None, columns, deadline)

    def cut(
        self, images: Sequence[str], augmentation: Augmentation, cut: int, *, deadline: float
    ) -> np.ndarray:
        """Activations below stage number `cut`: float16 (V, N, *shape). Raises `OutOfTime`."""
        return self._fetch(images, augmentation, cut, None, deadline)

    def missing(self, images: Sequence[str], augmentation: Augmentation, cut: int | None) -> int:
        """How many image views are not stored yet."""
        return sum(len(table.missing(images)) for table in self._tables_of(augmentation, cut))

    def _fetch(
        self,
        images: Sequence[str],
        augmentation: Augmentation,
        cut: int | None,
        columns: np.ndarray | None,
        deadline: float,
    ) -> np.ndarray:
        started = time.monotonic()
        try:
            tables = self._tables_of(augmentation, cut)
            if any(table.missing(images) for table in tables):
                self._fill(tables, images, cut, deadline)
        finally:
            self.seconds += time.monotonic() - started
        return np.stack([table.gather(images, columns) for table in tables])

    def _tables_of(self, augmentation: Augmentation, cut: int | None) -> list[FeatureTable]:
        tables = []
        for view in view_names(augmentation):
            spec = FeatureSpec(
                backbone=self.name,
                weights_digest=self.loaded.info.digest,
                preprocessing=self.preprocessing,
                view=view,
                output="pooled" if cut is None else "cut",
                cut=cut,
                precision=native_precision(),
            )
            table = self._tables.setdefault(spec.digest, FeatureTable(spec))
            table.refresh(self.store)
            tables.append(table)
        return tables

    def _fill(
        self, tables: list[FeatureTable], images: Sequence[str], cut: int | None, deadline: float
    ) -> None:
        """Compute missing rows chunk by chunk; whoever else needs the same ones computes other chunks meanwhile.

        A lease on each chunk keeps two from computing the same; one whose holder was killed is free again when
        its lease ends.
        """
        holder = f"{socket.gethostname()}:{os.getpid()}"
        distinct = list(dict.fromkeys(images))
        chunks = [distinct[start : start + _CHUNK] for start in range(0, len(distinct), _CHUNK)]
        name = f"features-{tables[-1].spec.digest}"
        while chunks := [chunk for chunk in chunks if any(table.missing(chunk) for table in tables)]:
            computed = False
            for chunk in chunks:
                _check(deadline)
                held = lease.acquire(self.store, f"{name}-{digest_of(chunk)[:12]}", holder, _LEASE_S)
                if held is None:
                    continue
                with held.keep_alive():
                    for table in tables:
                        table.refresh(self.store)
                    self._compute(tables, chunk, cut)
                computed = True
            if not computed:
                time.sleep(0.1)
            for table in tables:
                table.refresh(self.store)

    def _compute(self, tables: list[FeatureTable], chunk: Sequence[str], cut: int | None) -> None:
        missing = {table.spec.digest: set(table.missing(chunk)) for table in tables}
        wanted = [name for name in chunk if any(name in names for names in missing.values())]
        if not wanted:
            return
        pixels = load_pixels(self.store, wanted, self.preprocessing, threads=self.threads)
        for table in tables:
            rows = [row for row, name in enumerate(wanted) if name in missing[table.spec.digest]]
            if rows:
                view = image.apply_view(pixels[rows], *view_of(table.spec.view))
                values = self._extractor(cut)(np.ascontiguousarray(view))[0]
                write_shard(self.store, table.spec, [wanted[row] for row in rows], values)
                self.computed += len(rows)

    def _extractor(self, cut: int | None) -> Compiled:
        if cut not in self._compiled:
            staged = self.loaded.staged
            module = (
                PooledExtractor(staged, self.preprocessing)
                if cut is None
                else CutExtractor(staged, cut, self.preprocessing)
            )
            size = (self.preprocessing.height, self.preprocessing.width)
            self._compiled[cut] = compile_module(
                module, size, precision=native_precision(), threads=self.threads
            )
        return self._compiled[cut]


def _check(deadline: float) -> None:
    if time.time() >= deadline:
        raise OutOfTime
