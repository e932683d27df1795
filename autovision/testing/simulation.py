"""Searches on a virtual clock: the driver as it is, with workers, features and trials that only take time.

    Lab           what a configuration's curve is, and what its features cost: recorded, or made up
    Simulation    workers that ask a policy for trials, share features, and report rung by rung
    simulated_driver    AutoVision's own policy, ready to be simulated

A trial first waits for the tables of frozen features that it needs. Whoever needs the same table works on it, too, and
so do idle workers; what is stored once is there for all. Then it reports at the end of each rung, and once more at the
deadline, as `autovision.trial.execution.Execution` does; heads that are trained together report together, as
`autovision.trial.batch.HeadBatch` does. Whoever is told not to go on frees its worker, and goes on from where it was if
it is given out again. Nothing sleeps: hours of many workers take seconds.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch

from autovision.features.views import Views
from autovision.model import backbone as backbones
from autovision.model.stages import channels_of, stages_of
from autovision.records.searches import SearchRequest
from autovision.records.trials import TrialResult
from autovision.search.costing.arithmetic import needed
from autovision.search.costing.cost import CostModel
from autovision.search.driver import Driver
from autovision.search.warm import Start
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore
from autovision.store.protocol import Store
from autovision.trial.assignment import Head
from autovision.trial.execution import value_of
from autovision.trial.trial import DataSplits, Workbench

START = 1_000_000.0
"""when simulations begin, in seconds since the epoch"""
CHUNK = 64
"""images that one worker computes at a time"""
KEPT = 4
"""heads of a batch of which the weights are stored"""


@dataclass
class VirtualClock:
    """Stands where it was set; a driver reads it as it would `time.time`."""

    now: float = START

    def __call__(self) -> float:
        return self.now


# ------------------------------------------------------------------------------------------------ what is simulated


@dataclass(frozen=True)
class Table:
    """Frozen features of one split under one view: what is computed once, and shared."""

    backbone: str
    resolution: int | None
    view: str
    cut: int | None
    """None: pooled features of all stages"""
    split: str
    """`train` or `validation`"""


@dataclass(frozen=True)
class Rung:
    """What a trial comes to at the end of a rung."""

    rung: int
    epoch: int
    seconds: float
    """of training, since its features were there"""
    metrics: Mapping[str, float]
    """on validation"""


class Lab(Protocol):
    """Where simulated trials get their curves and costs from."""

    @property
    def images(self) -> Mapping[str, int]:
        """split -> how many"""
        ...

    @property
    def classes(self) -> int: ...

    def tables(self, config: TrialConfig) -> Sequence[Table]:
        """What has to be there before training begins."""
        ...

    def table_s(self, table: Table) -> float:
        """Seconds of one worker that computes all of a table."""
        ...

    def curve(self, config: TrialConfig, seed: int) -> Sequence[Rung]:
        """Every rung, the last one at the end of training; of a trial that fails, those before it failed."""
        ...

    def together_s(self, configs: Sequence[TrialConfig]) -> float:
        """Seconds of training heads as one computation."""
        ...


def tables_of(config: TrialConfig) -> list[Table]:
    """The tables that a trial of AutoVision reads."""
    return [
        Table(config.backbone, config.resolution, view, cut, split)
        for cut, views, splits in needed(config)
        for split in splits
        for view in views.names()
    ]


class Policy(Protocol):
    """Who decides: the driver, or something that it is compared with."""

    def next(self) -> Task | None: ...

    def goes_on(self, trial: str, result: dict[str, Any]) -> bool: ...

    def ended(self, trial: str) -> object: ...


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


# ----------------------------------------------------------------------------------------------------- features


@dataclass
class _Filling:
    """A table that is being computed."""

    left_s: float
    """of one worker"""
    most: int
    """workers that find something to do"""
    waiting: list[_Work] = field(default_factory=list)


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

    def join(self, work: _Work, table: Table) -> None:
        self._settle()
        if table not in self._filling:
            most = max(1, math.ceil(self._lab.images[table.split] / CHUNK))
            self._filling[table] = _Filling(self._lab.table_s(table), most)
        self._filling[table].waiting.append(work)
        self.version += 1

    def leave(self, work: _Work) -> None:
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

    def complete(self) -> list[_Work]:
        """Whoever waited for a table that is complete by now."""
        self._settle()
        ready: list[_Work] = []
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


# ---------------------------------------------------------------------------------------------------- simulation


@dataclass(eq=False)
class _Work:
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


@dataclass(frozen=True)
class Seen:
    """One report of one trial."""

    at: float
    """seconds since the search began"""
    trial: str
    config: TrialConfig
    epoch: float
    objective: float


@dataclass
class Simulation:
    """Some workers that do what a policy says.

    Attributes:
        overhead_s: of every trial, before it begins: what Ray Tune takes with actors that are reused.
        setup_s: of a worker that meets a backbone at a resolution for the first time: loading and compiling it.
        objective: what a trial reports of its metrics.
        seen: every report with a value, in order.
        trials: that were begun.
        busy_s: seconds that workers were not idle, over all of them.
    """

    policy: Policy
    lab: Lab
    clock: VirtualClock
    shelf: FeatureShelf
    workers: int = 1
    overhead_s: float = 0.14
    setup_s: float = 4.0
    objective: Callable[[Mapping[str, float], str], float] = lambda m, name: value_of(dict(m), name)
    seen: list[Seen] = field(default_factory=list)
    trials: int = 0
    busy_s: float = 0.0

    def run(self, until: float = math.inf) -> Simulation:
        """Until the policy has nothing more to do and all workers are idle, or until that time on the clock."""
        self._started = self.clock.now
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._tickets = itertools.count()
        self._idle = list(range(self.workers))
        self._met: set[tuple[int, str, int | None]] = set()
        self._works: dict[str, _Work] = {}
        self._give_out()
        while self._heap and self._heap[0][0] <= until:
            self.clock.now, _, act = heapq.heappop(self._heap)
            act()
            while self._heap and self._heap[0][0] <= self.clock.now:
                heapq.heappop(self._heap)[2]()
            self._give_out()
        going = (work for work in self._works.values() if not work.over)
        self.busy_s += sum(self.clock.now - work.began for work in going)
        return self

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(when, self.clock.now), next(self._tickets), act))

    def _give_out(self) -> None:
        """A trial for every idle worker, as long as there are any to be had; the others help with features."""
        while self._idle and (task := self.policy.next()) is not None:
            work = self._works.get(task.trial)
            if work is None:
                work = self._works[task.trial] = _Work(task, self.lab.curve(task.config, task.seed))
                self.trials += max(1, len(work.heads))
            work.task, work.over, work.began = task, False, self.clock.now
            work.worker, work.trained_from = self._idle.pop(), math.inf
            key = (work.worker, task.config.backbone, task.config.resolution)
            setup = 0.0 if key in self._met else self.setup_s
            self._met.add(key)
            self._at(self.clock.now + self.overhead_s + setup, functools.partial(self._gather, work))
        self.shelf.set_helpers(len(self._idle))
        self._watch_features()

    # ------------------------------------------------------------------------------------------ one trial

    def _gather(self, work: _Work) -> None:
        """Wait for the next table that is missing; train if none is."""
        for table in self.lab.tables(work.task.config):
            if not self.shelf.has(table):
                self.shelf.join(work, table)
                if not work.task.must_report:
                    self._at(work.task.deadline, functools.partial(self._out_of_time, work))
                return
        if not work.reported:
            work.feature_s = self.clock.now - work.began - self.overhead_s
        if work.heads:
            self._train_together(work)
        else:
            done = work.curve[work.reported - 1].seconds if work.reported else 0.0
            work.trained_from = self.clock.now - done
            self._train(work)

    def _out_of_time(self, work: _Work) -> None:
        if math.isinf(work.trained_from) and not work.over:
            self.shelf.leave(work)
            self._fail(work, "stopped", "the budget ended before the first rung")

    def _train(self, work: _Work) -> None:
        """Until the next rung, or the deadline."""
        if work.reported == len(work.curve):
            self._fail(work, "failed", "the loss was not finite")
            return
        rung = work.curve[work.reported]
        at, deadline = work.trained_from + rung.seconds, work.task.deadline
        cut = at > deadline
        if cut and not (work.task.must_report and not work.reported):
            at = max(deadline, self.clock.now)
            rung = between(work.curve, at - work.trained_from, work.reported)
        self._at(at, functools.partial(self._report, work, rung, cut))

    def _report(self, work: _Work, rung: Rung, cut: bool) -> None:
        epochs = work.task.config.epochs
        last = cut or (work.reported + 1 == len(work.curve) and rung.epoch >= epochs)
        work.reported += 1
        ended = "stopped" if rung.epoch < epochs else "complete"
        point, objective = self._seen(work.task.trial, work.task.config, rung, work)
        result = {
            "outcome": ended if last else "running",
            "objective": objective,
            "epoch": rung.epoch,
            "point": json.dumps(point),
            "weights_key": "simulated",
            "done": last,
            **self._seconds(work),
        }
        if self.policy.goes_on(work.task.trial, result) and not last:
            self._train(work)
        else:
            self._end(work)

    def _train_together(self, work: _Work) -> None:
        """All heads of a batch, or what of them the deadline leaves."""
        seconds = self.lab.together_s([head.config for head in work.heads])
        left = math.inf if work.task.must_report else max(0.0, work.task.deadline - self.clock.now)
        work.trained_from = self.clock.now
        share = min(1.0, left / max(seconds, 1e-9))
        self._at(self.clock.now + share * seconds, functools.partial(self._report_together, work, share))

    def _report_together(self, work: _Work, share: float) -> None:
        told: list[dict[str, Any]] = []
        for head in work.heads:
            curve = self.lab.curve(head.config, work.task.seed)
            reached = [rung for rung in curve if rung.epoch <= share * head.config.epochs + 1e-9]
            if len(reached) < len(curve) and share < 1:
                reached.append(between(curve, share * curve[-1].seconds, len(reached)))
            points = [self._seen(head.trial, head.config, rung, work) for rung in reached]
            failed = not points or (share == 1 and reached[-1].epoch < head.config.epochs)
            told.append(
                {
                    "outcome": "failed" if failed else "complete" if share == 1 else "stopped",
                    "error": "the loss was not finite" if failed else None,
                    "objective": None if failed else points[-1][1],
                    "points": points,
                    "weights_key": None,
                }
            )
        values = [each["objective"] for each in told if each["objective"] is not None]
        for each in sorted(told, key=lambda each: -(each["objective"] or -math.inf))[:KEPT]:
            each["weights_key"] = None if each["objective"] is None else "simulated"
        result = {
            "outcome": "complete",
            "objective": max(values, default=math.nan),
            "heads": json.dumps(told),
            "done": True,
            **self._seconds(work),
        }
        self.policy.goes_on(work.task.trial, result)
        self._end(work)

    def _seen(self, trial: str, config: TrialConfig, rung: Rung, work: _Work) -> tuple[dict[str, Any], float]:
        """A point of a curve as workers report it, and its value; noted among what was seen."""
        objective = self.objective(rung.metrics, work.task.metric)
        self.seen.append(Seen(self.clock.now - self._started, trial, config, rung.epoch, objective))
        seconds = self._seconds(work)["seconds"] / max(1, len(work.heads))
        return {
            "rung": rung.rung,
            "epoch": rung.epoch,
            "seconds": seconds,
            "search_s": self.clock.now - work.task.search_started,
            "train_loss": 0.0,
            "metrics": dict(rung.metrics),
        }, objective

    def _seconds(self, work: _Work) -> dict[str, float]:
        return {"seconds": work.spent_s + self.clock.now - work.began, "feature_s": work.feature_s}

    def _fail(self, work: _Work, outcome: str, error: str) -> None:
        result = {"outcome": outcome, "error": error, "objective": math.nan, "done": True}
        self.policy.goes_on(work.task.trial, result | self._seconds(work))
        self._end(work)

    def _end(self, work: _Work) -> None:
        """For good, or until it is given out again."""
        work.over = True
        work.spent_s += self.clock.now - work.began
        self.busy_s += self.clock.now - work.began
        self._idle.append(work.worker)
        self.policy.ended(work.task.trial)

    # ------------------------------------------------------------------------------------------ features

    def _watch_features(self) -> None:
        """Be called when the next table is complete, unless something changes before."""
        if getattr(self, "_watched", -1) == self.shelf.version:
            return
        self._watched = version = self.shelf.version
        at = self.shelf.next_done()
        if math.isfinite(at):
            self._at(at, lambda: self._features_done(version))

    def _features_done(self, version: int) -> None:
        if version == self.shelf.version:
            for work in self.shelf.complete():
                if not work.over:
                    self._gather(work)


def between(curve: Sequence[Rung], seconds: float, reported: int) -> Rung:
    """What a trial is worth that is cut short between two rungs, or before its first: on a line over log epochs."""
    after = curve[reported]
    before = curve[reported - 1] if reported else None
    begun = before.seconds if before else 0.0
    first = before.epoch if before else 0
    share = min(1.0, max(0.0, (seconds - begun) / max(after.seconds - begun, 1e-9)))
    epoch = first + share * (after.epoch - first)
    if before is None:
        return Rung(len(curve), max(1, math.floor(epoch)), seconds, after.metrics)
    weight = math.log(max(epoch, 1.0) / before.epoch) / math.log(after.epoch / before.epoch)
    metrics = {
        name: (1 - weight) * before.metrics[name] + weight * value for name, value in after.metrics.items()
    }
    return Rung(len(curve), max(1, math.floor(epoch)), seconds, metrics)


# ------------------------------------------------------------------------------------------ AutoVision's own policy


@dataclass
class _Images:
    """A split, of which only the sizes are known."""

    count: int
    classes: int
    images: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count


@dataclass
class _Splits:
    train: _Images
    validation: _Images


@functools.cache
def channels(backbone: str, resolution: int | None) -> list[int]:
    """Of every stage of a backbone, from its shapes alone: no weights are needed."""
    config = TrialConfig(backbone=backbone, resolution=resolution)
    prep = backbones.preprocessing(config)
    with torch.device("meta"):
        staged = stages_of(backbones.create(config), (prep.height, prep.width)).eval()
        return channels_of(staged, prep.height, prep.width)


@dataclass
class _Bench:
    """What a cost model needs to know, and where it keeps its measurements."""

    store: Store

    def channels(self, config: TrialConfig) -> list[int]:
        return channels(config.backbone, config.resolution)


class SimulatedCost(CostModel):
    """The cost model as searches have it, which counts missing features on a shelf."""

    def __init__(self, lab: Lab, shelf: FeatureShelf, store: Store, clock: VirtualClock) -> None:
        splits = _Splits(*(_Images(lab.images[name], lab.classes) for name in ("train", "validation")))
        self._shelf = shelf
        super().__init__(cast(Workbench, _Bench(store)), cast(DataSplits, splits), warm=False, clock=clock)

    def _lacking(self, config: TrialConfig, split: str, views: Views, cut: int | None) -> int:
        tables = (Table(config.backbone, config.resolution, view, cut, split) for view in views.names())
        return sum(self._shelf.missing(table) for table in tables)


def simulated_driver(
    lab: Lab,
    space: Space,
    clock: VirtualClock,
    shelf: FeatureShelf,
    *,
    budget_s: float,
    seed: int = 0,
    metric: str = "accuracy",
    scheduler: str = "halving",
    max_trials: int | None = None,
    store: Store | None = None,
    starts: Sequence[Start] | None = None,
    ledger: Sequence[TrialResult] = (),
    driver: type[Driver] = Driver,
    **settings: Any,
) -> Driver:
    """A driver whose search begins now on the virtual clock.

    Args:
        store: None: one in memory.
        starts: the points to try first; None: the space's default.
        driver: a subclass that decides otherwise.
        settings: further fields of the driver.
    """
    request = SearchRequest(
        dataset="simulated",
        dataset_version=1,
        dataset_digest="0" * 64,
        space=space.to_json(),
        budget_s=budget_s,
        max_trials=max_trials,
        seed=seed,
        metric=metric,
        scheduler=scheduler,
    )
    store = store or MemoryStore()
    settings.setdefault("images", lab.images["validation"])
    return driver(
        store=store,
        request=request,
        space=space,
        cost=SimulatedCost(lab, shelf, store, clock),
        starts=list(starts) if starts is not None else [Start(space.default(), "default")],
        ledger=list(ledger),
        attempt=1,
        deadline=clock.now + budget_s,
        search_started=clock.now,
        threads=1,
        clock=clock,
        **settings,
    )


def simulate(
    lab: Lab, space: Space, *, budget_s: float, workers: int = 1, seed: int = 0, **settings: Any
) -> tuple[Driver, Simulation]:
    """Run AutoVision's search to its end."""
    clock = VirtualClock()
    shelf = FeatureShelf(lab, clock)
    driver = simulated_driver(lab, space, clock, shelf, budget_s=budget_s, seed=seed, **settings)
    simulation = Simulation(cast(Policy, driver), lab, clock, shelf, workers=workers)
    simulation.run()
    driver.close()
    return driver, simulation
