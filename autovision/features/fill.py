"""Computing rows that are missing, chunk by chunk, together with whoever else needs the same ones.

A lease on each chunk keeps two processes from computing the same; one whose holder was killed is free again when
its lease ends. A chunk that is done is in the store, whole, and its lease is gone.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from autovision.dataset.loader import load_pixels
from autovision.features.budget import FeatureBudget, disk_full_is_no_room
from autovision.features.shards import pack
from autovision.features.spec import FeatureSpec
from autovision.features.tables import Tables
from autovision.features.views import apply
from autovision.image import Pixels
from autovision.records.base import digest_of
from autovision.records.models import Preprocessing
from autovision.store import keys, lease
from autovision.store.protocol import Store

_CHUNK = 64
"""images that are decoded, computed and stored together, at least: what a kill can lose"""
_MOST_CHUNKS = 512
"""of a large split, before chunks grow"""
_SHARD_BYTES = 64 << 20
"""of a shard, at most, unless it is of few rows"""
_FEWEST = 8
_LEASE_S = 15.0
_PAUSE_S = 0.1
_TELLING_S = 4.0
"""after so many seconds their pace tells when rows will be ready"""
_LATE = 1.15
"""rows that would take so many times the seconds that are left are given up"""


class OutOfTime(Exception):
    """The features are not ready at the deadline, or would not be at the pace so far; what was computed is stored."""


@dataclass(frozen=True)
class Work:
    """Rows that are about to be computed: what a helper has to know, besides the backbone."""

    specs: tuple[FeatureSpec, ...]
    images: tuple[str, ...]
    chunk_rows: int
    """images of a chunk: everybody has to cut the images into the same ones"""
    chunks: int
    """how many there are to do, which is how many can be worked on at once"""
    deadline: float
    """seconds since the epoch"""


@dataclass(frozen=True)
class Filler:
    """Computes missing rows.

    Attributes:
        values: gives the rows of pixels (N, H, W, 3), seen in the spec's view: (N, *shape).
        computed: told how many rows were computed.
        helped: asks others to help, for the length of a context.
    """

    store: Store
    budget: FeatureBudget
    preprocessing: Preprocessing
    threads: int
    values: Callable[[FeatureSpec, Pixels, float], np.ndarray]
    computed: Callable[[FeatureSpec, int], None]
    helped: Callable[[Work], AbstractContextManager[None]]

    def fill(self, tables: Tables, images: Sequence[str], deadline: float) -> None:
        """Return when no row is missing. Raises `OutOfTime`, and `NoRoom`."""
        rows = _chunk_rows(len(set(images)), max(tables.row_bytes))
        chunks = -(-len(tables.lacking(images)) // rows)
        if chunks:
            work = Work(tables.specs, tuple(images), rows, chunks, deadline)
            with self.helped(work):
                self.do(tables, work)

    def do(self, tables: Tables, work: Work) -> None:
        """The same, of work that another process may have begun."""
        pace = _Pace(work.deadline)

        def count() -> int:
            tables.refresh()
            return len(tables.lacking(work.images))

        while lacking := tables.lacking(work.images):
            # Whole chunks disappear from the list, so that everybody cuts it into the same ones.
            rows = work.chunk_rows
            chunks = [lacking[start : start + rows] for start in range(0, len(lacking), rows)]
            any_done = False
            for chunk in chunks:
                any_done = self._work_on(tables, chunk, work.deadline) or any_done
                pace.check(count)
            if not any_done:
                time.sleep(_PAUSE_S)
            tables.refresh()

    def _work_on(self, tables: Tables, chunk: Sequence[str], deadline: float) -> bool:
        """Compute what is missing of a chunk, unless somebody else does; whether it is done now."""
        check(deadline)
        if not tables.lacking(chunk):
            return True
        name = f"features-{tables.specs[-1].digest}-{digest_of(list(chunk))[:12]}"
        with disk_full_is_no_room():
            held = lease.acquire(self.store, name, f"{socket.gethostname()}:{os.getpid()}", _LEASE_S)
            if held is None:
                return False
            try:
                with held.keep_alive():
                    tables.refresh()
                    self._compute(tables, chunk, deadline)
            finally:
                self.store.delete(keys.lease(name))  # nobody wants this chunk again
        return True

    def _compute(self, tables: Tables, chunk: Sequence[str], deadline: float) -> None:
        wanted = tables.lacking(chunk)
        if not wanted:
            return
        pixels = load_pixels(self.store, wanted, self.preprocessing, threads=self.threads)
        for table in tables.tables:
            lacking = set(table.missing(wanted))
            rows = [row for row, name in enumerate(wanted) if name in lacking]
            if rows:
                names = [wanted[row] for row in rows]
                seen = np.ascontiguousarray(apply(pixels[rows], names, table.spec.view))
                values = self.values(table.spec, seen, deadline)
                self.budget.put(*pack(table.spec, names, values), own=tables.digests)
                self.computed(table.spec, len(rows))


@dataclass
class _Pace:
    """How fast rows get done by all who work on them."""

    deadline: float
    _since: tuple[float, int] | None = None
    """when it was looked at first, and how many rows were missing then: a network is compiled before that"""

    def check(self, lacking: Callable[[], int]) -> None:
        """Raises `OutOfTime` as soon as it is clear that the rest will not be ready: time is better spent elsewhere."""
        if math.isinf(self.deadline):
            return
        now = time.time()
        if self._since is None:
            self._since = now, lacking()
            return
        began, missing = self._since
        if now - began < _TELLING_S:
            return
        left = lacking()
        if (now - began) * left > _LATE * (self.deadline - now) * (missing - left):
            raise OutOfTime


def check(deadline: float) -> None:
    """Raises `OutOfTime` at the deadline (seconds since the epoch)."""
    if time.time() >= deadline:
        raise OutOfTime


def _chunk_rows(images: int, row_bytes: int) -> int:
    """How many images make a chunk: the same for everybody who needs these images."""
    return min(max(_CHUNK, images // _MOST_CHUNKS), max(_FEWEST, _SHARD_BYTES // row_bytes))
