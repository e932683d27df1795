"""A driver on made-up costs and objectives, and a clock that only the simulation moves."""

from __future__ import annotations

import heapq
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from autovision.records.searches import SearchRequest
from autovision.records.trials import CurvePoint, TrialResult
from autovision.search import requests
from autovision.search.driver import Driver
from autovision.search.progress import ProgressEvent
from autovision.space import Choice, Float, Space
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore
from autovision.trial.assignment import Assignment


class Three(Space):
    """Three backbones, of which the large one is the best and the most expensive."""

    backbone = Choice("medium", "small", "large")
    weights = "random"
    augmentation = Choice("none", "flip")
    lr = Float(1e-4, 1e-1, log=True, default=1e-3)
    dropout = Float(0.0, 0.5)


FEATURES_S = {"small": 4.0, "medium": 10.0, "large": 30.0}
QUALITY = {"small": 0.70, "medium": 0.75, "large": 0.85}


def features_s(config: TrialConfig) -> float:
    return FEATURES_S[config.backbone] * (2 if config.augmentation == "flip" else 1)


def accuracy(config: TrialConfig) -> float | None:
    """At the last rung: best at lr = 0.01, a little better with flips."""
    off = abs(math.log10(config.lr) + 2)
    return QUALITY[config.backbone] - 0.05 * off + 0.01 * (config.augmentation == "flip")


@dataclass
class World:
    """What stands in for the cost model, the workers and the time."""

    objective: Callable[[TrialConfig], float | None] = accuracy
    features_s: Callable[[TrialConfig], float] = features_s
    training_s: float = 1.0
    now: float = 1000.0
    stored: set[tuple[str, str]] = field(default_factory=set)
    observed: list[tuple[float, int, float]] = field(default_factory=list)
    asked: list[TrialConfig] = field(default_factory=list)
    checkpoints: dict[str, int] = field(default_factory=dict)
    """trial -> rungs behind its checkpoint"""

    def time(self) -> float:
        return self.now

    # As `CostModel`: what it predicts is what happens.

    def begin(self, config: TrialConfig) -> float:
        return self.missing_s(config)

    def observe(self, begun: float, curve: list[CurvePoint], seconds: float) -> None:
        self.observed.append((begun, len(curve), seconds))

    def missing_s(self, config: TrialConfig) -> float:
        return 0.0 if (config.backbone, config.augmentation) in self.stored else self.features_s(config)

    def predicted_s(self, config: TrialConfig) -> float:
        self.asked.append(config)
        return self.missing_s(config) + self.training_s / 9

    def gflops(self, config: TrialConfig) -> float:
        return FEATURES_S.get(config.backbone, 4.0) / 4

    def head_s(self, config: TrialConfig) -> float:
        return 0.1

    def predicted_total_s(self, config: TrialConfig) -> float:
        self.asked.append(config)
        return self.missing_s(config) + self.training_s


@dataclass
class Begun:
    assignment: Assignment
    at: float
    predicted_s: float
    """until its first rung"""


@dataclass
class Simulation:
    """Runs a driver's assignments with some workers."""

    driver: Driver
    world: World
    workers: int = 2
    begun: list[Begun] = field(default_factory=list)
    events: list[ProgressEvent] = field(default_factory=list)

    def run(self, *, crash_at: float = math.inf) -> Simulation:
        """To the end; or until the process is killed, with whatever runs then."""
        self.driver.emit = self.events.append
        pending: list[tuple[float, int, Any]] = []
        tickets = itertools.count()
        while True:
            while len(pending) < self.workers and (assignment := self.driver.next()) is not None:
                reports = self._work(assignment)
                heapq.heappush(pending, (next(reports), next(tickets), (assignment, reports)))
            if pending and pending[0][0] > crash_at:
                return self
            if not pending:
                self.driver.close()
                return self
            self.world.now, _, (assignment, reports) = heapq.heappop(pending)
            result = next(reports)
            goes_on = self.driver.goes_on(assignment.trial, result)
            if goes_on and not result["done"]:
                heapq.heappush(pending, (next(reports), next(tickets), (assignment, reports)))
            else:
                self.driver.ended(assignment.trial)

    def _work(self, task: Assignment) -> Any:
        """When the next report comes and then what it says, rung by rung."""
        if task.heads:
            yield from self._together(task)
            return
        world, config = self.world, task.config
        waits = world.missing_s(config)
        start = world.now - task.before.seconds
        self.begun.append(Begun(task, world.now, waits + world.training_s / 9))
        value = world.objective(config)
        if value is None:
            yield start + waits
            yield {
                "outcome": "failed",
                "error": "no good",
                "objective": math.nan,
                "done": True,
                "seconds": waits,
                "feature_s": waits,
            }
        waits += task.before.feature_s
        for rung, share in enumerate((1 / 9, 1 / 3, 1.0)):
            if rung < world.checkpoints.get(task.trial, 0):
                continue  # it goes on from its checkpoint
            at = start + waits + share * world.training_s
            late = at > task.deadline
            at = max(start, min(at, task.deadline)) if late and not task.must_report else at
            yield at
            world.stored.add((config.backbone, config.augmentation))
            world.checkpoints[task.trial] = rung + 1
            last = late or rung == 2
            yield {
                "outcome": ("stopped" if late else "complete") if last else "running",
                "objective": value * (0.9 + 0.1 * share) - 0.02,
                "point": json.dumps(self._point(task, value, rung, share, at - start)),
                "weights_key": f"weights-{task.trial}-{rung}",
                "notes": [],
                "done": last,
                "seconds": at - start,
                "feature_s": waits,
            }

    def _point(
        self, task: Assignment, value: float, rung: int, share: float, seconds: float
    ) -> dict[str, Any]:
        return {
            "rung": rung,
            "epoch": max(1, math.ceil(share * task.config.epochs)),
            "seconds": seconds,
            "search_s": self.world.now - task.search_started,
            "train_loss": 0.5,
            "metrics": {"accuracy": value * (0.9 + 0.1 * share), "neg_log_loss": -1.0},
        }

    def _together(self, task: Assignment) -> Any:
        """Heads of a batch: all in the time of two that are trained alone."""
        world, start = self.world, self.world.now
        waits = world.missing_s(task.config)
        self.begun.append(Begun(task, start, waits + world.training_s / 9))
        yield start + waits + 2 * world.training_s
        world.stored.add((task.config.backbone, task.config.augmentation))
        told = []
        for head in task.heads:
            value = world.objective(head.config)
            if value is None:
                told.append({"outcome": "failed", "error": "no good", "objective": None, "points": []})
                continue
            points = [
                [self._point(task, value, rung, share, 0.1), value * (0.9 + 0.1 * share) - 0.02]
                for rung, share in enumerate((1 / 9, 1 / 3, 1.0))
            ]
            key = f"weights-{head.trial}"
            told.append({"outcome": "complete", "error": None, "points": points, "weights_key": key})
        yield {
            "outcome": "complete",
            "objective": 0.0,
            "heads": json.dumps(told),
            "notes": ["a note"],
            "done": True,
            "seconds": waits + 2 * world.training_s,
            "feature_s": waits,
        }


def driver_of(world: World, space: Space | None = None, *, budget_s: float = 300.0, **changes: Any) -> Driver:
    space = space or Three()
    request = changes.pop("request", None) or SearchRequest(
        dataset="d",
        dataset_version=1,
        dataset_digest="0" * 64,
        space=space.to_json(),
        budget_s=budget_s,
        max_trials=changes.pop("max_trials", None),
    )
    fields: dict[str, Any] = {
        "store": MemoryStore(),
        "request": request,
        "space": space,
        "cost": world,
        "starts": [],
        "ledger": [],
        "attempt": 1,
        "deadline": world.now + budget_s,
        "search_started": world.now,
        "threads": 1,
        "clock": world.time,
        "together": False,
        "nearly_s": 0.0,
    }
    return Driver(**fields | changes)


def stored_ledger(driver: Driver) -> list[TrialResult]:
    return requests.trials(driver.store, driver.request.id)


def begin(driver: Driver) -> Assignment:
    task = driver.next()
    assert task is not None
    return task


def point(accuracy: float, rung: int = 0) -> dict[str, Any]:
    metrics = {"accuracy": accuracy, "neg_log_loss": -0.5}
    told = {"rung": rung, "epoch": rung + 1, "seconds": 1.0, "search_s": 1.0, "train_loss": 0.5}
    return {
        "outcome": "running",
        "objective": accuracy,
        "point": json.dumps({**told, "metrics": metrics}),
        "weights_key": f"weights-{accuracy}",
        "notes": ["a note"],
        "done": False,
        "seconds": 3.0,
        "feature_s": 2.0,
    }


def resumed(world: World, crashed: Driver, **changes: Any) -> Driver:
    fields: dict[str, Any] = {
        "store": crashed.store,
        "request": crashed.request,
        "ledger": stored_ledger(crashed),
        "attempt": 2,
        "deadline": crashed.deadline,
        "search_started": crashed.search_started,
    }
    return driver_of(world, **fields | changes)
