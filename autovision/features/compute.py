"""The frozen part of a network for the images of a split: what is stored is read, what is missing is computed once.

    FeatureSource.prefix -> StoredPrefix     rows of memory-mapped shards, after the missing ones were computed
                         -> ComputedPrefix   computed batch by batch: fresh views, cut 0, or no room in the budget

The store holds activations and pooled rows as float16, and decoded pixels as uint8. The first two are computed by
one compiled network for each cut; cut 0 is the pixels themselves, normalized when they are taken.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from autovision.features.budget import FeatureBudget, Keeper, NoRoom
from autovision.features.extract import FrozenPrefix, Shapes, shapes_of
from autovision.features.fill import Filler, OutOfTime, Work, check
from autovision.features.gather import RowMap
from autovision.features.prefix import (
    BATCH,
    ComputedPrefix,
    DecodedPixels,
    HeldPrefix,
    NormalizedPixels,
    Prefix,
    StoredPixels,
    StoredPrefix,
)
from autovision.features.shards import FeatureTable, ShardGone, as_stored
from autovision.features.spec import FeatureSpec, pixel_spec
from autovision.features.tables import Tables
from autovision.features.views import IDENTITY, Views
from autovision.image import Pixels
from autovision.model.backbone import LoadedBackbone
from autovision.model.compiled import Compiled
from autovision.model.inference import compile_module, native_precision
from autovision.model.stages import StagedBackbone
from autovision.records.models import Preprocessing
from autovision.store.protocol import Store

__all__ = ["FeatureSource", "Helpers", "OutOfTime", "Work", "nobody"]

_MOST_HELD = 32 << 20
"""pooled numbers, of two bytes each, that a trial keeps in memory where there is no room for them in the store"""
_ATTEMPTS = 3
"""at reading rows that are removed as soon as they are stored"""


class Helpers(Protocol):
    """Asks others to compute with a source, until the context ends."""

    def __call__(self, source: FeatureSource, work: Work) -> AbstractContextManager[None]: ...


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
        seconds: time spent computing, or waiting for features, so far; that of `Prefix.take` included if it computes.
        computed: images times views that were sent through the network so far, for each output that is stored.
        notes: what happened that the record of a trial should tell; see `take_notes`.
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
        self._networks: dict[tuple[int | None, tuple[int, ...]], Compiled] = {}

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
            columns: of a row of everything pooled (see `FrozenPrefix`), the wanted ones; None: none are.
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
                    width = 0 if columns is None else len(columns)
                    held = cut is None and width * len(images) * views.number <= _MOST_HELD
                    once = "computed for this trial alone" if held else "recomputed in every epoch"
                    self._note(f"features of {_what(cut, columns)} {reason}: {once}")
                    computed = self._computing(images, views, cut, columns, deadline)
                    return HeldPrefix.of(computed, lambda: check(deadline)) if held else computed
            return self._computing(images, views, cut, columns, deadline)
        finally:
            self.seconds += time.monotonic() - started

    def passing(
        self,
        images: Sequence[str],
        pixels: Callable[[np.ndarray], Pixels],
        views: Views,
        *,
        cut: int | None,
        columns: np.ndarray | None,
    ) -> Prefix:
        """The same for any pixels (rows -> uint8 (B, H, W, 3)), computed batch by batch; nothing of it is stored.

        Args:
            images: names that random views are drawn by; all else as in `prefix`.
        """
        stages = [] if columns is None else self.shapes.stages_of(columns)
        return ComputedPrefix(
            names=images,
            draw=views,
            pixels=pixels,
            network=self._network(cut, stages),
            activation_shape=None if cut is None else self.shapes.activations[cut],
            columns=None if columns is None else np.searchsorted(self.shapes.columns_of(stages), columns),
            spent=self._spent,
            rounded=cut != 0,
        )

    def missing(self, images: Sequence[str], views: Views, cut: int | None) -> int:
        """How many image views are not stored yet: pooled ones, or activations at a cut (0: decoded pixels)."""
        specs = self._activations(views, cut) if cut else self._pooled(views)
        tables = self._group([pixel_spec(self.preprocessing, IDENTITY)] if cut == 0 else specs)
        return sum(len(table.missing(images)) for table in tables.tables)

    def lacking(self, images: Sequence[str]) -> set[str]:
        """Those of the images whose pooled features, as they are, the store does not have."""
        return set(self._group(self._pooled(Views())).lacking(images))

    def take_notes(self) -> tuple[str, ...]:
        """What happened since the last call, for the record of a trial."""
        notes = tuple(self.notes)
        self.notes.clear()
        return notes

    def help(self, work: Work) -> None:
        """Compute rows that another process waits for. Raises `OutOfTime`, and `NoRoom`."""
        self._filler(_unaided).do(self._group(work.specs), work)

    # ------------------------------------------------------------------------------------------------ stored

    def _stored(
        self,
        images: Sequence[str],
        views: Views,
        cut: int | None,
        columns: np.ndarray | None,
        deadline: float,
    ) -> Prefix:
        """Raises `OutOfTime`, and `NoRoom`."""
        activations = self._activations(views, cut) if cut is not None else []
        pooled = self._pooled(views) if columns is not None else []
        tables = self._group([*activations, *pooled])
        first, second = self._maps(tables, images, [len(activations), len(pooled)], deadline)
        number = len(activations) or len(pooled)
        return StoredPrefix((number, len(images)), first, second, columns, self._keeper(tables))

    def _maps(
        self, tables: Tables, images: Sequence[str], lengths: Sequence[int], deadline: float
    ) -> list[RowMap | None]:
        """The rows (V, N) of the first V tables, of the next, …; None of no tables."""
        ends = np.cumsum(lengths).tolist()
        for _ in range(_ATTEMPTS):
            for shards in tables.shards:
                self._budget.touch(shards)
            if missing := tables.missing_bytes(images):
                self._budget.admit(tables.total_bytes(images), missing, tables.digests)
                self._filler(lambda work: self.helpers(self, work)).fill(tables, images, deadline)
            try:
                return [
                    tables.map(images, slice(end - length, end)) if length else None
                    for length, end in zip(lengths, ends, strict=True)
                ]
            except ShardGone:
                tables.refresh()
        raise NoRoom("were removed again and again")

    def _filler(self, helped: Callable[[Work], AbstractContextManager[None]]) -> Filler:
        return Filler(
            self.store,
            self._budget,
            self.preprocessing,
            self.threads,
            values=self._values,
            computed=self._count,
            helped=helped,
        )

    def _values(self, spec: FeatureSpec, pixels: Pixels, deadline: float) -> np.ndarray:
        if spec.output == "pixels":
            return pixels
        stages = range(len(self.shapes.channels)) if spec.output == "pooled" else ()
        network = self._network(spec.cut, stages)
        parts = []
        for start in range(0, len(pixels), BATCH):
            check(deadline)
            parts.append(as_stored(network(pixels[start : start + BATCH])[0]))
        return np.concatenate(parts)

    def _count(self, spec: FeatureSpec, rows: int) -> None:
        if spec.output != "pixels":
            self.computed += rows

    # --------------------------------------------------------------------------------------------- computing

    def _computing(
        self,
        images: Sequence[str],
        views: Views,
        cut: int | None,
        columns: np.ndarray | None,
        deadline: float,
    ) -> Prefix:
        return self.passing(images, self._pixels(images, deadline), views, cut=cut, columns=columns)

    def _pixels(self, images: Sequence[str], deadline: float) -> Callable[[np.ndarray], Pixels]:
        """What gives the pixels of rows of `images`: stored ones if there is room. Raises `OutOfTime`."""
        tables = self._group([pixel_spec(self.preprocessing, IDENTITY)])
        try:
            (pixels,) = self._maps(tables, images, [1], deadline)
        except NoRoom as reason:
            self._note(f"decoded images {reason}: decoded again in every epoch")
            return DecodedPixels(self.store, images, self.preprocessing, self.threads)
        assert pixels is not None
        return StoredPixels(pixels, self._keeper(tables))

    def _spent(self, seconds: float, images: int) -> None:
        self.seconds += seconds
        self.computed += images

    # ------------------------------------------------------------------------------------- specs and networks

    def _activations(self, views: Views, cut: int | None) -> list[FeatureSpec]:
        pooled = self._pooled(views)
        return [spec.with_(output="cut", cut=cut) for spec in pooled]

    def _pooled(self, views: Views) -> list[FeatureSpec]:
        return [
            FeatureSpec(
                backbone=self.name,
                weights_digest=self.loaded.info.digest,
                preprocessing=self.preprocessing,
                view=view,
                output="pooled",
                precision=native_precision(),
            )
            for view in views.names()
        ]

    def _group(self, specs: Sequence[FeatureSpec]) -> Tables:
        """The tables of these specs, as the store is now."""
        tables = [self._tables.setdefault(spec.digest, FeatureTable(spec)) for spec in specs]
        group = Tables(self.store, tuple(tables), tuple(map(self._row_bytes, specs)), self._found_damaged)
        group.refresh()
        return group

    def _row_bytes(self, spec: FeatureSpec) -> int:
        match spec.output:
            case "pixels":
                return self.preprocessing.height * self.preprocessing.width * 3
            case "pooled":
                return 2 * self.shapes.columns
            case "cut":
                assert spec.cut is not None
                return 2 * int(np.prod(self.shapes.activations[spec.cut]))

    def _network(self, cut: int | None, stages: Sequence[int]) -> Compiled:
        if cut == 0 and not stages:
            return NormalizedPixels(self.preprocessing)
        key = cut, tuple(stages)
        if key not in self._networks:
            module = FrozenPrefix(self._staged, self.preprocessing, cut, stages)
            size = (self.preprocessing.height, self.preprocessing.width)
            self._networks[key] = compile_module(
                module, size, precision=native_precision(), threads=self.threads
            )
        return self._networks[key]

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

    def _keeper(self, tables: Tables) -> Keeper:
        return Keeper(self._budget, tables.shards)

    def _found_damaged(self, shards: int) -> None:
        self._note(f"{shards} damaged shards of frozen features were found, and computed again")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _unaided(work: Work) -> AbstractContextManager[None]:
    return nullcontext()


def _what(cut: int | None, columns: np.ndarray | None) -> str:
    """`cut 3`, `pooled stages`, or both."""
    parts = [f"cut {cut}"] if cut is not None else []
    return " and ".join(parts + (["pooled stages"] if columns is not None else []))
