"""Workers on the virtual clock, which do what a policy says."""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from autovision.space.config import TrialConfig
from autovision.testing.simulation.lab import Lab, Rung, VirtualClock
from autovision.testing.simulation.shelf import FeatureShelf, Task, Work
from autovision.trial.execution import value_of

KEPT = 4
"""heads of a batch of which the weights are stored"""


class Policy(Protocol):
    """Who decides: the driver, or something that it is compared with."""

    def next(self) -> Task | None: ...

    def goes_on(self, trial: str, result: dict[str, Any]) -> bool: ...

    def ended(self, trial: str) -> object: ...


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
        self._works: dict[str, Work] = {}
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
                work = self._works[task.trial] = Work(task, self.lab.curve(task.config, task.seed))
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

    def _gather(self, work: Work) -> None:
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

    def _out_of_time(self, work: Work) -> None:
        if math.isinf(work.trained_from) and not work.over:
            self.shelf.leave(work)
            self._fail(work, "stopped", "the budget ended before the first rung")

    def _train(self, work: Work) -> None:
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

    def _report(self, work: Work, rung: Rung, cut: bool) -> None:
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

    def _train_together(self, work: Work) -> None:
        """All heads of a batch, or what of them the deadline leaves."""
        seconds = self.lab.together_s([head.config for head in work.heads])
        left = math.inf if work.task.must_report else max(0.0, work.task.deadline - self.clock.now)
        work.trained_from = self.clock.now
        share = min(1.0, left / max(seconds, 1e-9))
        self._at(self.clock.now + share * seconds, functools.partial(self._report_together, work, share))

    def _report_together(self, work: Work, share: float) -> None:
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

    def _seen(self, trial: str, config: TrialConfig, rung: Rung, work: Work) -> tuple[dict[str, Any], float]:
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

    def _seconds(self, work: Work) -> dict[str, float]:
        return {"seconds": work.spent_s + self.clock.now - work.began, "feature_s": work.feature_s}

    def _fail(self, work: Work, outcome: str, error: str) -> None:
        result = {"outcome": outcome, "error": error, "objective": math.nan, "done": True}
        self.policy.goes_on(work.task.trial, result | self._seconds(work))
        self._end(work)

    def _end(self, work: Work) -> None:
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
