"""The frozen part of a network for the images of a split: what is stored is read, what is missing is computed once.

    FeatureSource.prefix -> StoredPrefix     rows of memory-mapped shards, after the missing ones were computed
                         -> ComputedPrefix   computed batch by batch: fresh views, cut 0, or no room in the budget

Missing rows are computed chunk by chunk. A lease on each chunk keeps two processes from computing the same; one
whose holder was killed is free again when its lease ends.
"""

from __future__ import annotations

import copy
import functools
import os
import socket
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from autovision.dataset.loader import load_pixels
from autovision.features import budget
from autovision.features.budget import FeatureBudget, NoRoom
from autovision.features.extract import FrozenPrefix, Shapes, shapes_of
from autovision.features.gather import RowMap
from autovision.features.prefix import BATCH, ComputedPrefix, Prefix, StoredPrefix
from autovision.features.shards import FeatureTable, Rows, ShardGone, as_stored, pack
from autovision.features.spec import FeatureSpec, Output, pixel_spec
from autovision.features.views import IDENTITY, Views, apply
from autovision.image import Pixels
from autovision.model.backbone import LoadedBackbone
from autovision.model.inference import Compiled, EagerModule, compile_module, native_precision
from autovision.model.stages import StagedBackbone
from autovision.records import Preprocessing, digest_of
from autovision.space.config import Augmentation
from autovision.store import keys, lease
from autovision.store.protocol import Store

_CHUNK = 64
"""images that are decoded, computed and stored together, at least: what a kill can lose"""
_MOST_CHUNKS = 512
"""of a large split, before chunks grow"""
_SHARD_BYTES = 64 << 20
"""of a shard, at most, unless it is of few rows"""
_LEASE_S = 15.0
_ATTEMPTS = 3


class OutOfTime(Exception):
    """The deadline came before the features were ready; what was computed is stored."""


class Helpers(Protocol):
    """Asks others to help with computing what a source is about to compute, until the context ends."""

    def __call__(self, source: FeatureSource, work: Work) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Work:
    """Rows that are missing: what whoever helps has to know, besides the backbone."""

    specs: tuple[FeatureSpec, ...]
    images: tuple[str, ...]
    chunks: int
    deadline: float


def nobody(source: FeatureSource, work: Work) -> AbstractContextManager[None]:
    """No helpers."""
    return nullcontext()


@dataclass
class FeatureSource:
    """Features of one backbone at one resolution.

    Attributes:
        loaded: the whole backbone (not truncated), in evaluation mode.
        threads: CPU threads to compute with.
        budget_bytes: what all features in the store may take together; None: a share of the disk.
        helpers: who else computes missing rows.
        seconds: time spent computing or waiting for features so far.
        computed: images times views computed so far, by output (`pooled` or `cut`).
        notes: what happened that the record of a trial should tell.
    """

    store: Store
    loaded: LoadedBackbone
    name: str
    preprocessing: Preprocessing
    threads: int
    budget_bytes: int | None = None
    helpers: Helpers = nobody
    seconds: float = 0.0
    computed: int = 0
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tables: dict[str, FeatureTable] = {}
        self._compiled: dict[tuple[int | None, tuple[int, ...]], Compiled] = {}

    def prefix(
        self,
        images: Sequence[str],
        views: Views,
        *,
        cut: int | None,
        columns: np.ndarray | None,
        deadline: float,
    ) -> Prefix:
        """The frozen part of the network for these images under these views.

        Args:
            images: digests.
            cut: the activation below this stage number is wanted; None: none is.
            columns: of a row of everything pooled (`PooledExtractor`), the wanted ones; None: none are.
            deadline: seconds since the epoch.

        Raises:
            OutOfTime: some rows are missing still.
            KeyNotFound, CorruptObject: an image is not in the store, or can no longer be decoded.
        """
        started = time.monotonic()
        try:
            if views.number is not None and cut != 0:
                try:
                    return self._stored(images, views, cut, columns, deadline)
                except NoRoom as reason:
                    self._note(f"features of {_what(cut, columns)} {reason}: recomputed in every epoch")
            return self._computing(images, views, cut, columns, deadline)
        finally:
            self.seconds += time.monotonic() - started

    def missing(self, images: Sequence[str], augmentation: Augmentation | Views, cut: int | None) -> int:
        """How many image views are not stored yet: pooled ones, or with `cut` activations there."""
        views = augmentation if isinstance(augmentation, Views) else Views(augmentation)
        tables = [self._table(spec) for spec in self._specs(views, "pooled" if cut is None else "cut", cut)]
        return sum(len(table.missing(images)) for table in tables)

    def pooled(
        self, images: Sequence[str], augmentation: Augmentation, columns: np.ndarray, *, deadline: float
    ) -> np.ndarray:
        """Pooled statistics: float16 (V, N, len(columns)). Raises `OutOfTime`."""
        prefix = self.prefix(images, Views(augmentation), cut=None, columns=columns, deadline=deadline)
        return self._everything(prefix, 1)

    def cut(
        self, images: Sequence[str], augmentation: Augmentation, cut: int, *, deadline: float
    ) -> np.ndarray:
        """Activations below stage number `cut`: float16 (V, N, *shape). Raises `OutOfTime`."""
        prefix = self.prefix(images, Views(augmentation), cut=cut, columns=None, deadline=deadline)
        return self._everything(prefix, 0)

    def _everything(self, prefix: Prefix, which: int) -> np.ndarray:
        rows = np.arange(prefix.images)
        assert prefix.views is not None
        parts = [prefix.take(np.full_like(rows, view), rows)[which] for view in range(prefix.views)]
        return np.stack(parts).astype(np.float16, copy=False)  # type: ignore[arg-type]

    # -------------------------------------------------------------------------------------------- stored

    def _stored(
        self,
        images: Sequence[str],
        views: Views,
        cut: int | None,
        columns: np.ndarray | None,
        deadline: float,
    ) -> Prefix:
        """Raises `OutOfTime`, and `NoRoom`."""
        activation = self._specs(views, "cut", cut) if cut is not None else []
        pooled = self._specs(views, "pooled", None) if columns is not None else []
        size = (len(views.names()), len(images))
        maps, tables = self._maps(images, [activation, pooled], deadline)
        return StoredPrefix(size, maps[0], maps[1], columns, self._keeper(tables))

    def _maps(
        self, images: Sequence[str], groups: Sequence[Sequence[FeatureSpec]], deadline: float
    ) -> tuple[list[RowMap | None], list[FeatureTable]]:
        """For each group of V specs the map (V, N) of its rows, or None if it is empty; and all tables."""
        tables = [[self._table(spec) for spec in group] for group in groups]
        every = [table for group in tables for table in group]
        for _ in range(_ATTEMPTS):
            self._admit(every, images)
            self._fill(every, images, deadline)
            try:
                return [self._map(group, images) if group else None for group in tables], every
            except ShardGone:
                self._refresh(every)
        raise NoRoom("were removed again and again")

    def _map(self, tables: Sequence[FeatureTable], images: Sequence[str]) -> RowMap:
        shards: list[Rows] = []
        shard, row = [], []
        for table in tables:
            mapped, at, rows = table.rows(self.store, images)
            shard.append(at + len(shards))
            row.append(rows)
            shards += mapped
        return RowMap(shards, np.stack(shard), np.stack(row))

    def _admit(self, tables: Sequence[FeatureTable], images: Sequence[str]) -> None:
        """Say that the tables are in use, and see that there is room for what they lack. Raises `NoRoom`."""
        distinct = len(set(images))
        total = sum(distinct * self._row_bytes(table.spec) for table in tables)
        missing = sum(len(table.missing(images)) * self._row_bytes(table.spec) for table in tables)
        for table in tables:
            self._budget.touch(table.shards)
        if missing:
            self._budget.admit(total, missing, _digests(tables))

    def _keeper(self, tables: Sequence[FeatureTable]) -> _Keeper:
        return _Keeper(self._budget, [table.shards for table in tables])

    def _fill(self, tables: Sequence[FeatureTable], images: Sequence[str], deadline: float) -> None:
        """Compute missing rows; whoever else needs the same ones computes other chunks meanwhile.

        Raises `OutOfTime`, and `NoRoom`.
        """
        distinct = list(dict.fromkeys(images))
        rows = min(max(_CHUNK, len(distinct) // _MOST_CHUNKS), self._most_rows(tables))
        if not _lacking(tables, distinct):
            return
        work = Work(
            tuple(table.spec for table in tables),
            tuple(distinct),
            -(-len(_lacking(tables, distinct)) // rows),
            deadline,
        )
        with self.helpers(self, work):
            while lacking := _lacking(tables, distinct):
                # Whole chunks disappear from the front of the list, so that everybody cuts it into the same ones.
                chunks = [lacking[start : start + rows] for start in range(0, len(lacking), rows)]
                if not any([self._work_on(tables, chunk, deadline) for chunk in chunks]):
                    time.sleep(0.1)
                self._refresh(tables)

    def _most_rows(self, tables: Sequence[FeatureTable]) -> int:
        return max(16, _SHARD_BYTES // max(self._row_bytes(table.spec) for table in tables))

    def _work_on(self, tables: Sequence[FeatureTable], chunk: Sequence[str], deadline: float) -> bool:
        """Compute what is missing of a chunk, unless somebody else does; whether it was done here."""
        _check(deadline)
        name = f"features-{tables[-1].spec.digest}-{digest_of(list(chunk))[:12]}"
        held = lease.acquire(self.store, name, f"{socket.gethostname()}:{os.getpid()}", _LEASE_S)
        if held is None:
            return False
        try:
            with held.keep_alive():
                self._refresh(tables)
                self._compute(tables, chunk, deadline)
        finally:
            self.store.delete(keys.lease(name))  # nobody wants this chunk again
        return True

    def _compute(self, tables: Sequence[FeatureTable], chunk: Sequence[str], deadline: float) -> None:
        wanted = _lacking(tables, chunk)
        if not wanted:
            return
        pixels = load_pixels(self.store, wanted, self.preprocessing, threads=self.threads)
        for table in tables:
            lacking = set(table.missing(wanted))
            rows = [row for row, name in enumerate(wanted) if name in lacking]
            if rows:
                names = [wanted[row] for row in rows]
                values = self._values(table.spec, pixels[rows], names, deadline)
                self._budget.put(*pack(table.spec, names, values), own=_digests(tables))
                self.computed += len(rows) if table.spec.output != "pixels" else 0

    def _values(self, spec: FeatureSpec, pixels: Pixels, names: Sequence[str], deadline: float) -> np.ndarray:
        seen = np.ascontiguousarray(apply(pixels, names, spec.view))
        if spec.output == "pixels":
            return seen
        stages = range(len(self.shapes.channels)) if spec.output == "pooled" else ()
        network = self._network(spec.cut, tuple(stages))
        parts = []
        for start in range(0, len(seen), BATCH):
            _check(deadline)
            parts.append(as_stored(network(seen[start : start + BATCH])[0]))
        return np.concatenate(parts)

    def _refresh(self, tables: Sequence[FeatureTable]) -> None:
        for table in tables:
            table.refresh(self.store)
        if damaged := sum(len(table.damaged) for table in tables):
            self._note(f"{damaged} damaged shards of frozen features were found, and computed again")
            for table in tables:
                table.damaged.clear()

    # ------------------------------------------------------------------------------------------ computing

    def _computing(
        self,
        images: Sequence[str],
        views: Views,
        cut: int | None,
        columns: np.ndarray | None,
        deadline: float,
    ) -> Prefix:
        stages = [] if columns is None else self.shapes.stages_of(columns)
        return ComputedPrefix(
            names=images,
            draw=views,
            pixels=self._pixels(images, deadline),
            network=self._network(cut, tuple(stages)),
            activation_shape=None if cut is None else self.shapes.activations[cut],
            columns=None if columns is None else np.searchsorted(self.shapes.columns_of(stages), columns),
            spent=self._spent,
            rounded=cut != 0,
        )

    def _pixels(self, images: Sequence[str], deadline: float) -> _DecodedPixels | _StoredPixels:
        """What gives the pixels of rows of `images`: stored ones if there is room. Raises `OutOfTime`."""
        try:
            (pixels,), tables = self._maps(images, [[pixel_spec(self.preprocessing, IDENTITY)]], deadline)
        except NoRoom as reason:
            self._note(f"decoded images {reason}: decoded again in every epoch")
            return _DecodedPixels(self.store, images, self.preprocessing, self.threads)
        assert pixels is not None
        return _StoredPixels(pixels, self._keeper(tables))

    def _spent(self, seconds: float, images: int) -> None:
        self.seconds += seconds
        self.computed += images

    # --------------------------------------------------------------------------------------------- shared

    def _specs(self, views: Views, output: Output, cut: int | None) -> list[FeatureSpec]:
        return [
            FeatureSpec(
                backbone=self.name,
                weights_digest=self.loaded.info.digest,
                preprocessing=self.preprocessing,
                view=view,
                output=output,
                cut=cut,
                precision=native_precision(),
            )
            for view in views.names()
        ]

    def _table(self, spec: FeatureSpec) -> FeatureTable:
        table = self._tables.setdefault(spec.digest, FeatureTable(spec))
        self._refresh([table])
        return table

    def _row_bytes(self, spec: FeatureSpec) -> int:
        match spec.output:
            case "pixels":
                return self.preprocessing.height * self.preprocessing.width * 3
            case "pooled":
                return 2 * self.shapes.columns
            case "cut":
                assert spec.cut is not None
                return 2 * int(np.prod(self.shapes.activations[spec.cut]))

    def _network(self, cut: int | None, stages: tuple[int, ...]) -> Compiled:
        if (cut, stages) not in self._compiled:
            module = FrozenPrefix(self._staged, self.preprocessing, cut, stages)
            size = (self.preprocessing.height, self.preprocessing.width)
            self._compiled[cut, stages] = (
                EagerModule(module)  # there is nothing to compile in a normalization
                if cut == 0 and not stages
                else compile_module(module, size, precision=native_precision(), threads=self.threads)
            )
        return self._compiled[cut, stages]

    @functools.cached_property
    def shapes(self) -> Shapes:
        """What the stages give."""
        return shapes_of(self.loaded.staged, self.preprocessing)

    @functools.cached_property
    def _staged(self) -> StagedBackbone:
        """The stages that compute: on a GPU a copy, since compiling moves them there."""
        return copy.deepcopy(self.loaded.staged) if torch.cuda.is_available() else self.loaded.staged

    @functools.cached_property
    def _budget(self) -> FeatureBudget:
        return FeatureBudget.of(self.store, self.budget_bytes)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


class _Keeper:
    """Says from time to time that shards are in use."""

    def __init__(self, features: FeatureBudget, shards: Sequence[Sequence[str]]) -> None:
        self._budget, self._shards = features, shards
        self._next = time.monotonic() + budget.TOUCH_S

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + budget.TOUCH_S
            for shards in self._shards:
                self._budget.touch(shards)


@dataclass(frozen=True)
class _StoredPixels:
    pixels: RowMap
    used: _Keeper

    def __call__(self, rows: np.ndarray) -> Pixels:
        self.used()
        return self.pixels.take((np.zeros_like(rows), rows))  # type: ignore[return-value]


@dataclass(frozen=True)
class _DecodedPixels:
    store: Store
    images: Sequence[str]
    preprocessing: Preprocessing
    threads: int

    def __call__(self, rows: np.ndarray) -> Pixels:
        names = [self.images[row] for row in rows]
        return load_pixels(self.store, names, self.preprocessing, threads=self.threads)


def _check(deadline: float) -> None:
    if time.time() >= deadline:
        raise OutOfTime


def _lacking(tables: Sequence[FeatureTable], images: Sequence[str]) -> list[str]:
    """The images that some table lacks."""
    lacking = {image for table in tables for image in table.missing(images)}
    return [image for image in images if image in lacking]


def _digests(tables: Sequence[FeatureTable]) -> set[str]:
    return {table.spec.digest for table in tables}


def _what(cut: int | None, columns: np.ndarray | None) -> str:
    parts = ([f"cut {cut}"] if cut is not None else []) + (
        ["all stages, pooled,"] if columns is not None else []
    )
    return " and ".join(parts)
