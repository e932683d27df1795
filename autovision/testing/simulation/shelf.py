"""Features on the virtual clock: what is stored, and what is being computed for those that wait."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from autovision.space.config import TrialConfig
from autovision.testing.simulation.lab import Lab, Rung, Table, VirtualClock
from autovision.trial.assignment import Head

CHUNK = 64
"""images that one worker computes at a time"""


class Task(Protocol):
    """What a policy gives out; an `Assignment` is one."""

    @property
    def trial(self) -> str: ...
    @property
    def config(self) -> TrialConfig: ...
    @property
    def seed(self) -> int: ...
    @property
    def metric(self) -> str: ...
    @property
    def deadline(self) -> float: ...
    @property
    def must_report(self) -> bool: ...
    @property
    def search_started(self) -> float: ...


@dataclass(eq=False)
class Work:
    """A trial at work, or heads that are trained together."""

    task: Task
    curve: Sequence[Rung]
    worker: int = 0
    began: float = 0.0
    """when a worker took it up last"""
    spent_s: float = 0.0
    """of workers that had it before"""
    feature_s: float = 0.0
    reported: int = 0
    """rungs"""
    trained_from: float = math.inf
    """when training would have begun, had it never paused; infinite before that"""
    over: bool = False
    """nobody works on it"""

    @property
    def heads(self) -> Sequence[Head]:
        return getattr(self.task, "heads", ())


@dataclass
class _Filling:
    """A table that is being computed."""

    left_s: float
    """of one worker"""
    most: int
    """workers that find something to do"""
    waiting: list[Work] = field(default_factory=list)


class FeatureShelf:
    """The tables that are there, and those that are being computed."""

    def __init__(self, lab: Lab, clock: VirtualClock) -> None:
        self._lab, self._clock = lab, clock
        self._done: set[Table] = set()
        self._filling: dict[Table, _Filling] = {}
        self._settled = clock.now
        self.helpers = 0
        """idle workers"""
        self.version = 0
        """grows whenever a prediction of `next_done` is void"""

    @property
    def complete_tables(self) -> frozenset[Table]:
        return frozenset(self._done)

    def stock(self, tables: Iterable[Table], share: float) -> None:
        """Tables that an earlier search has computed, for this share of the images, less than 1."""
        for table in tables:
            images = (1 - share) * self._lab.images[table.split]
            self._filling[table] = self._begun(table, images)

    def has(self, table: Table) -> bool:
        return table in self._done

    def missing(self, table: Table) -> int:
        """Images that are not computed yet."""
        if table in self._done:
            return 0
        images = self._lab.images[table.split]
        filling = self._filling.get(table)
        if filling is None:
            return images
        self._settle()
        return math.ceil(images * filling.left_s / max(self._lab.table_s(table), 1e-9))

    def join(self, work: Work, table: Table) -> None:
        self._settle()
        if table not in self._filling:
            self._filling[table] = self._begun(table, self._lab.images[table.split])
        self._filling[table].waiting.append(work)
        self.version += 1

    def _begun(self, table: Table, images: float) -> _Filling:
        """Of which so many images are missing."""
        seconds = self._lab.table_s(table) * images / self._lab.images[table.split]
        return _Filling(seconds, max(1, math.ceil(images / CHUNK)))

    def leave(self, work: Work) -> None:
        """Its deadline came; what is computed stays computed."""
        self._settle()
        for filling in self._filling.values():
            if work in filling.waiting:
                filling.waiting.remove(work)
        self.version += 1

    def set_helpers(self, helpers: int) -> None:
        if helpers != self.helpers:
            self._settle()
            self.helpers = helpers
            self.version += bool(self._filling)

    def next_done(self) -> float:
        """When the next table will be complete, if nothing changes; infinite if none will."""
        self._settle()
        times = (f.left_s / rate for f in self._filling.values() if (rate := self._rate(f)) > 0)
        return self._clock.now + min(times, default=math.inf)

    def complete(self) -> list[Work]:
        """Whoever waited for a table that is complete by now."""
        self._settle()
        ready: list[Work] = []
        for table, filling in list(self._filling.items()):
            if filling.left_s <= 1e-6:
                ready += filling.waiting
                self._done.add(table)
                del self._filling[table]
        self.version += 1
        return ready

    def _rate(self, filling: _Filling) -> float:
        wanted = [f for f in self._filling.values() if f.waiting]
        if not filling.waiting:
            return 0.0
        return min(float(filling.most), len(filling.waiting) + self.helpers / len(wanted))

    def _settle(self) -> None:
        passed, self._settled = self._clock.now - self._settled, self._clock.now
        if passed > 0:
            rates = [self._rate(filling) for filling in self._filling.values()]
            for filling, rate in zip(self._filling.values(), rates, strict=True):
                filling.left_s = max(0.0, filling.left_s - passed * rate)
