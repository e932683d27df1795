"""Whole searches, simulated: made-up costs and objectives on a clock that only the simulation moves."""

from __future__ import annotations

import heapq
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from autovision.records.searches import SearchRequest
from autovision.records.trials import CurvePoint, TrialResult, TrialState
from autovision.search import requests
from autovision.search.begun import settle
from autovision.search.costing.cost import config_of
from autovision.search.driver import Driver
from autovision.search.multiobjective.objectives import pareto_front
from autovision.search.progress import ProgressEvent
from autovision.search.proposer import Drawn
from autovision.search.warm import Start
from autovision.space import Choice, Float, Integer, Space
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore, keys
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


@pytest.fixture
def world() -> World:
    return World()


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


# -------------------------------------------------------------------------------------------- whole searches


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_search_from_its_first_trial_to_the_end_of_its_budget(world: World, workers: int) -> None:
    world.training_s = 4.0 * workers  # so that each number of workers gets through about as many trials
    driver = driver_of(world)
    told = Simulation(driver, world, workers).run()
    ledger = stored_ledger(driver)

    first = told.begun[0].assignment
    assert (first.config.backbone, first.config.augmentation) == ("small", "none"), "the cheapest comes first"
    assert all(b.assignment.config.backbone == "small" for b in told.begun[:workers]), (
        "all help the first one"
    )

    assert len({result.trial for result in ledger}) == len(ledger)
    assert {result.trial for result in ledger} == {begun.assignment.trial for begun in told.begun}
    assert len(told.begun) > len(ledger), "some that were paused were promoted"
    assert [result.number for result in ledger] == list(range(len(ledger)))
    assert sorted(ledger, key=lambda r: r.trial) == sorted(driver.ledger, key=lambda r: r.trial)
    digests = [TrialConfig.model_validate(result.config).digest for result in ledger]
    assert len(set(digests)) == len(digests), "nothing is tried twice"

    states = Counter(result.state for result in ledger)
    assert states[TrialState.PRUNED] > 3
    assert states[TrialState.COMPLETE] > 3
    best = max(ledger, key=lambda r: r.value or 0.0)
    assert best.state is not TrialState.PRUNED
    assert best.config["backbone"] == "large", "it was worth its cost"
    pruned = [r.value or 0.0 for r in ledger if r.state is TrialState.PRUNED]
    complete = [r.value or 0.0 for r in ledger if r.state is TrialState.COMPLETE]
    assert sum(pruned) / len(pruned) < sum(complete) / len(complete)


def test_nothing_is_begun_that_does_not_fit(world: World) -> None:
    driver = driver_of(world, budget_s=50.0)
    told = Simulation(driver, world).run()
    for begun in told.begun[2:]:
        left = driver.deadline - begun.at
        assert begun.predicted_s + 0.3 <= max(0.5 * left, 1.0)
    assert "large" not in {begun.assignment.config.backbone for begun in told.begun}
    assert world.now <= driver.deadline
    assert len(told.begun) > 20, "what did fit was used"


def test_a_budget_that_nothing_fits_into_still_gives_one_value(world: World) -> None:
    driver = driver_of(world, budget_s=2.0)
    Simulation(driver, world, workers=1).run()
    assert world.now > driver.deadline, "the cheapest arm takes longer than all there was"
    (only,) = stored_ledger(driver)
    assert only.state is TrialState.STOPPED
    assert only.value is not None


def test_trials_are_cut_short_by_the_end_of_the_budget(world: World) -> None:
    world.training_s = 60.0
    driver = driver_of(world, budget_s=50.0)
    Simulation(driver, world).run()
    stopped = [r for r in stored_ledger(driver) if r.state is TrialState.STOPPED]
    assert stopped
    assert all(r.value is not None for r in stopped)


def test_progress_never_goes_back(world: World) -> None:
    world.training_s = 5.0
    driver = driver_of(world, budget_s=120.0)
    told = Simulation(driver, world, workers=3).run()
    for before, after in itertools.pairwise(told.events):
        assert after.elapsed_s >= before.elapsed_s
        assert after.done >= before.done
        assert (after.best_value or 0.0) >= (before.best_value or 0.0)
        assert after.left_s <= before.left_s
    assert max(event.running for event in told.events) == 3
    last = told.events[-1]
    assert (last.running, last.done) == (0, len(driver.ledger))
    assert last.complete + last.pruned + last.failed == len(driver.ledger)
    best = max(driver.ledger, key=lambda r: r.value or 0.0)
    assert last.best_value == best.metrics["accuracy"]
    assert last.best_config == best.config
    assert last.budget_s == 120.0


def test_the_cost_model_is_told_what_each_rung_took(world: World) -> None:
    driver = driver_of(world, budget_s=100.0)
    Simulation(driver, world, workers=1).run()
    assert any(begun for begun, _, _ in world.observed)
    assert all(seconds == pytest.approx(begun) for begun, _, seconds in world.observed)
    rungs = [rungs for _, rungs, _ in world.observed]
    assert max(rungs) == 3 and rungs.count(1) == sum(bool(result.curve) for result in driver.ledger)


def test_the_number_of_trials_can_be_bounded(world: World) -> None:
    driver = driver_of(world, max_trials=7)
    Simulation(driver, world, workers=3).run()
    assert len(stored_ledger(driver)) == 7


# --------------------------------------------------------------------------------------------------- crashes


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


def test_after_a_crash_the_search_goes_on_from_its_ledger(world: World) -> None:
    world.training_s = 9.0
    crashed = driver_of(world, budget_s=200.0)
    Simulation(crashed, world, workers=3).run(crash_at=world.now + 60.0)
    lost = set(crashed.running)
    assert lost, "the crash came while trials were running"
    before = stored_ledger(crashed)

    driver = resumed(world, crashed)
    for arm, record in crashed._arms.items():
        known = driver._arms[arm]
        assert sorted(known.values) == pytest.approx(sorted(record.values))
        assert sorted(known.seconds) == pytest.approx(sorted(record.seconds))
        assert (known.failed, known.running) == (record.failed, record.running)
    assert set(driver.running) == lost
    assert set(driver.paused) == set(crashed.paused)
    assert {key: scores for key, scores in driver._scheduler._scores.items() if scores} == {
        key: pytest.approx(scores) for key, scores in crashed._scheduler._scores.items() if scores
    }

    told = Simulation(driver, world, workers=3).run()
    after = stored_ledger(driver)
    of_first = {r.trial: r for r in after if r.trial.startswith("01-")}
    assert all(of_first[r.trial] == r for r in before), "what was finished is not repeated"
    assert set(of_first) == {r.trial for r in before} | lost | set(crashed.paused), "and nothing else is lost"
    assert {begun.assignment.trial for begun in told.begun} >= lost
    assert not list(driver.store.list(keys.begun(driver.request.id)))
    assert len(after) > len(before) + 5
    assert len({r.number for r in after}) == len(after)
    digests = [TrialConfig.model_validate(r.config).digest for r in after]
    assert len(set(digests)) == len(digests), "nothing that was recorded is tried again"
    assert not any(begun.assignment.must_report for begun in told.begun)


def test_failures_count_after_a_crash_as_they_did_before(world: World) -> None:
    world.objective = lambda config: None if config.backbone == "small" else accuracy(config)
    crashed = driver_of(world, max_trials=9)
    Simulation(crashed, world, workers=1).run()
    assert sum(record.failed for record in crashed._arms.values()) > 0
    driver = resumed(world, crashed)
    assert {a: r.failed for a, r in driver._arms.items()} == {a: r.failed for a, r in crashed._arms.items()}


def test_the_bound_on_trials_holds_over_all_attempts(world: World) -> None:
    crashed = driver_of(world, max_trials=8)
    Simulation(crashed, world, workers=2).run(crash_at=world.now + 5.0)
    done = len(stored_ledger(crashed))
    assert 0 < done < 8
    driver = resumed(world, crashed)
    Simulation(driver, world, workers=2).run()
    assert len(stored_ledger(driver)) == 8


@pytest.mark.parametrize("crash_after_s", [0.5, 12.5, 60.5])
def test_in_order_a_resumed_search_draws_what_an_undisturbed_one_draws(crash_after_s: float) -> None:
    class One(Three):
        backbone = "small"
        augmentation = "none"

    def new(store: MemoryStore, **changes: Any) -> tuple[Driver, World]:
        world = World(training_s=5.0)
        request = SearchRequest(
            dataset="d",
            dataset_version=1,
            dataset_digest="0" * 64,
            space=One().to_json(),
            budget_s=900.0,
            max_trials=20,
            scheduler="none",
        )
        starts = [Start(One.default(), "default")]
        fields: dict[str, Any] = {"store": store, "request": request, "starts": starts, "budget_s": 900.0}
        return driver_of(world, One(), **fields | changes), world

    def drawn(driver: Driver) -> list[dict[str, Any]]:
        return [result.config for result in sorted(stored_ledger(driver), key=lambda r: r.number)]

    undisturbed, world = new(MemoryStore())
    Simulation(undisturbed, world, workers=1).run()
    crashed, world = new(MemoryStore())
    Simulation(crashed, world, workers=1).run(crash_at=world.now + crash_after_s)
    assert crashed.running and len(stored_ledger(crashed)) < 20
    driver, world = new(crashed.store, ledger=stored_ledger(crashed), attempt=2)
    Simulation(driver, world, workers=1).run()
    assert drawn(driver) == drawn(undisturbed)


# ------------------------------------------------------------------------------------------- single decisions


def test_starting_points_come_first_with_their_origin_and_model(world: World) -> None:
    starts = [
        Start({**Three.default(), "lr": 0.01}, "champion", "m-1"),
        Start({**Three.default(), "lr": 0.02}, "ledger"),
        Start(Three.default(), "default"),
    ]
    driver = driver_of(world, starts=list(starts))
    tasks = [begin(driver) for _ in range(4)]
    assert [driver.running[task.trial].lead.origin for task in tasks] == [
        "champion",
        "ledger",
        "default",
        "sampled",
    ]
    assert [task.initial_model for task in tasks] == ["m-1", None, None, None]
    assert [task.config.lr for task in tasks[:3]] == pytest.approx([0.01, 0.02, 1e-3])


def test_a_starting_point_that_would_eat_the_budget_is_passed_over(world: World) -> None:
    starts = [
        Start({**Three.default(), "backbone": "large"}, "champion", "m-1"),
        Start(Three.default(), "default"),
    ]
    driver = driver_of(world, starts=starts, budget_s=60.0)
    task = begin(driver)
    assert (driver.running[task.trial].lead.origin, task.config.backbone) == ("default", "medium")


def test_a_starting_point_that_was_tried_is_not_tried_again(world: World) -> None:
    crashed = driver_of(world, starts=[Start(Three.default(), "default")], max_trials=1)
    Simulation(crashed, world).run()
    more = crashed.request.with_(max_trials=5)
    driver = resumed(world, crashed, request=more, starts=[Start(Three.default(), "default")])
    task = begin(driver)
    assert driver.running[task.trial].lead.origin == "sampled"


def test_backbones_that_cannot_be_used_are_left_alone(world: World) -> None:
    starts = [Start({**Three.default(), "backbone": "small"}, "ledger"), Start(Three.default(), "default")]
    world.training_s = 5.0
    driver = driver_of(world, starts=starts, left_out=frozenset({"small"}), budget_s=120.0)
    told = Simulation(driver, world).run()
    assert len(told.begun) > 10
    assert "small" not in {begun.assignment.config.backbone for begun in told.begun}


def test_what_breaks_a_limit_is_never_begun(world: World) -> None:
    """Whole arms, single points, and starting points."""

    def fault(config: TrialConfig) -> str | None:
        return "too slow" if config.backbone == "large" or config.dropout > 0.25 else None

    starts = [Start({**Three.default(), "backbone": "large"}, "ledger"), Start(Three.default(), "default")]
    told = Simulation(driver_of(world, starts=starts, fault=fault, budget_s=120.0), world).run()
    assert len(told.begun) > 5
    assert all(fault(begun.assignment.config) is None for begun in told.begun)
    assert told.begun[0].assignment.config.digest == Three().config(Three.default()).digest


def test_a_depth_that_meets_the_limits_keeps_its_arm(world: World) -> None:
    class Deep(Three):
        unfreeze = 0
        drop_stages = Integer(0, 3)

    def fault(config: TrialConfig) -> str | None:
        return "too large" if config.drop_stages < 2 else None

    told = Simulation(driver_of(world, Deep(), fault=fault, budget_s=120.0), world).run()
    assert {begun.assignment.config.drop_stages for begun in told.begun} == {2, 3}


def test_until_there_is_a_value_every_trial_must_report(world: World) -> None:
    driver = driver_of(world)
    first, second = begin(driver), begin(driver)
    assert first.must_report
    assert second.must_report
    assert driver.pending_first
    driver.goes_on(first.trial, {"outcome": "failed", "error": "x", "done": True, "objective": math.nan})
    driver.ended(first.trial)
    assert driver.pending_first
    third = begin(driver)
    assert third.must_report
    driver.goes_on(second.trial, point(0.5))
    assert not driver.pending_first
    assert not begin(driver).must_report


def test_without_a_running_trial_no_value_is_pending(world: World) -> None:
    driver = driver_of(world)
    assert not driver.pending_first
    task = begin(driver)
    driver.goes_on(task.trial, {"outcome": "failed", "error": "x", "done": True, "objective": math.nan})
    driver.ended(task.trial)
    assert not driver.pending_first


def test_nothing_is_begun_after_the_deadline(world: World) -> None:
    driver = driver_of(world, budget_s=20.0)
    first = begin(driver)
    driver.goes_on(first.trial, point(0.5))
    world.now += 19.6
    assert driver.next() is None


def test_a_search_that_is_late_before_its_first_trial_begins_one_nevertheless(world: World) -> None:
    driver = driver_of(world, budget_s=20.0)
    world.now += 30.0
    assert begin(driver).must_report
    assert driver.next() is None


def test_an_arm_that_fails_gives_way_whatever_the_metric(world: World) -> None:
    """A metric whose values are below zero must not make a failure look like the best of all."""
    world.objective = lambda config: None if config.backbone == "small" else accuracy(config) - 2.0  # type: ignore[operator]
    driver = driver_of(world, budget_s=200.0)
    told = Simulation(driver, world, workers=1).run()
    names = Counter(begun.assignment.config.backbone for begun in told.begun)
    assert names["small"] < 0.2 * len(told.begun)
    assert names["medium"] + names["large"] > 10


def test_a_space_that_is_exhausted_ends_the_search(world: World) -> None:
    class Few(Space):
        backbone = Choice("small", "medium")
        weights = "random"
        taps = Integer(1, 3)

    driver = driver_of(world, Few())
    told = Simulation(driver, world).run()
    configs = {(b.assignment.config.backbone, b.assignment.config.taps) for b in told.begun}
    assert len(configs) == len(driver.ledger) == 6
    assert world.now < driver.deadline


def test_an_arm_that_was_out_of_time_is_not_begun_again_but_is_no_worse_for_it(world: World) -> None:
    driver = driver_of(world)
    first = begin(driver)
    driver.goes_on(first.trial, point(0.5) | {"done": True, "outcome": "complete"})
    driver.ended(first.trial)
    late = begin(driver)
    while late.config.backbone == first.config.backbone:
        driver.goes_on(late.trial, point(0.5) | {"done": True, "outcome": "complete"})
        driver.ended(late.trial)
        late = begin(driver)
    driver.goes_on(
        late.trial,
        {"outcome": "stopped", "objective": math.nan, "done": True, "seconds": 8.0, "feature_s": 8.0}
        | {"error": "the budget ended before the first rung"},
    )
    (result,) = driver.ended(late.trial)
    assert (result.state, result.value, result.seconds) == (TrialState.STOPPED, None, 8.0)

    def is_same(config: TrialConfig) -> bool:
        return (config.backbone, config.augmentation) == (late.config.backbone, late.config.augmentation)

    again = resumed(world, driver)  # with more seconds, say
    (record,) = [r for a, r in again._arms.items() if is_same(config_of(a, late.config.model_dump()))]
    assert (record.failed, record.values) == (0, [])
    Simulation(driver, world, workers=1).run()
    assert sum(is_same(TrialConfig.model_validate(r.config)) for r in driver.ledger) == 1


def test_the_first_trials_of_an_arm_are_judged_under_the_usual_views(world: World) -> None:
    class Views(Space):
        backbone = Choice("small", "medium", "large")
        weights = "random"
        augmentation = Choice("none", "dihedral")
        test_time_augmentation = Choice("dihedral", "none", when={"augmentation": "dihedral"})
        lr = Float(1e-4, 1e-1, log=True)

    driver = driver_of(world, Views(), budget_s=300.0)
    told = Simulation(driver, world, workers=1).run()
    first: dict[str, str] = {}
    for begun in told.begun:
        config = begun.assignment.config
        if config.augmentation == "dihedral":
            first.setdefault(config.backbone, config.test_time_augmentation)
    assert len(first) > 1 and set(first.values()) == {"dihedral"}
    assert any(
        begun.assignment.config.augmentation == "dihedral"
        and begun.assignment.config.test_time_augmentation == "none"
        for begun in told.begun
    )


def test_a_space_with_nothing_to_choose_between_is_one_arm(world: World) -> None:
    class One(Space):
        backbone = "small"
        weights = "random"
        unfreeze = 0
        lr = Float(1e-4, 1e-1, log=True)

    driver = driver_of(world, One(), budget_s=30.0)
    told = Simulation(driver, world, workers=1).run()
    assert len(told.begun) > 5
    # What is asked about is what would be run: the space's constants, not the defaults of all spaces.
    assert {(config.backbone, config.weights) for config in world.asked} == {("small", "random")}


def test_how_a_trial_ended_is_what_the_ledger_says(world: World) -> None:
    driver = driver_of(world)

    def ended(*results: dict[str, Any], error: str | None = None) -> TrialResult:
        task = begin(driver)
        for result in results:
            driver.goes_on(task.trial, result)
        (found,) = driver.ended(task.trial, error=error)
        return found

    over = {"outcome": "stopped", "error": "the budget ended", "done": True, "objective": math.nan}
    broken = {"outcome": "failed", "error": "loss is nan", "done": True, "objective": math.nan}
    complete = ended(point(0.5), {**point(0.6, 1), "outcome": "complete", "done": True})
    assert (complete.state, complete.value, len(complete.curve)) == (TrialState.COMPLETE, 0.6, 2)
    assert (complete.seconds, complete.feature_s, complete.notes) == (3.0, 2.0, ("a note",))
    assert complete.weights_key == "weights-0.6"
    worse = ended(
        point(0.7), {**point(0.6, 1), "weights_key": "weights-0.7", "outcome": "complete", "done": True}
    )
    assert (worse.value, worse.metrics["accuracy"], worse.weights_key) == (0.7, 0.7, "weights-0.7")

    cut = ended(point(0.5), {**point(0.4, 1), "outcome": "stopped", "done": True})
    assert (cut.state, cut.value) == (TrialState.STOPPED, 0.5)
    early = ended(over)
    assert (early.state, early.value, early.error) == (TrialState.STOPPED, None, "the budget ended")
    asked = ended(point(0.9))
    assert asked.state is TrialState.STOPPED, "it was going on when everything was stopped"

    failed = ended(broken)
    assert (failed.state, failed.value, failed.error) == (TrialState.FAILED, None, "loss is nan")
    diverged = ended(point(0.5), broken)
    assert (diverged.state, diverged.value) == (TrialState.FAILED, 0.5)
    assert diverged.weights_key == "weights-0.5", "what its first rung stored is a model"
    lost = ended(point(0.55), error="the worker was lost")
    assert (lost.state, lost.error, lost.weights_key) == (
        TrialState.FAILED,
        "the worker was lost",
        "weights-0.55",
    )


def test_a_trial_that_is_worse_than_its_peers_is_pruned(world: World) -> None:
    driver = driver_of(world)
    tasks = [begin(driver) for _ in range(4)]
    assert [driver.goes_on(t.trial, point(v)) for t, v in zip(tasks, (0.8, 0.9, 0.5, 0.95), strict=True)] == [
        True,
        True,
        False,
        True,
    ]
    assert driver.ended(tasks[2].trial) == [], "it is paused"
    assert set(driver.paused) == {tasks[2].trial}
    driver.close()
    pruned = next(result for result in driver.ledger if result.trial == tasks[2].trial)
    assert (pruned.state, pruned.value) == (TrialState.PRUNED, 0.5)


def test_a_failure_is_told_in_a_line_of_its_own(world: World) -> None:
    events: list[ProgressEvent] = []
    driver = driver_of(world, emit=events.append)
    task = begin(driver)
    driver.goes_on(
        task.trial, {"outcome": "failed", "error": "no memory", "done": True, "objective": math.nan}
    )
    driver.ended(task.trial)
    assert events[-1].message == f"trial {task.trial} failed: no memory"
    assert events[-1].failed == 1


def test_a_trial_is_told_how_many_workers_it_has_and_leaves_no_checkpoint(world: World) -> None:
    several = driver_of(world).request.with_(workers_per_trial=3)
    driver = driver_of(world, request=several, threads=2, gpu=True)
    task = begin(driver)
    assert (task.workers, task.threads, task.gpu) == (3, 2, True)
    key = keys.checkpoint(task.search, task.config.digest, task.seed)
    driver.store.put_immutable(key, b"half way")
    driver.ended(task.trial)
    assert not list(driver.store.list(keys.checkpoints(task.search)))


def test_what_nobody_began_is_ignored_and_the_end_is_recorded_once(world: World) -> None:
    driver = driver_of(world)
    assert not driver.goes_on("nobody", point(0.5))
    assert driver.ended("nobody") == []
    task = begin(driver)
    driver.goes_on(task.trial, point(0.5))
    assert len(driver.ended(task.trial)) == 1
    assert driver.ended(task.trial) == []
    assert len(stored_ledger(driver)) == len(driver.ledger) == 1


def test_a_trial_whose_worker_was_lost_is_begun_once_more_with_less_at_a_time(world: World) -> None:
    driver = driver_of(world, max_trials=1)
    first = begin(driver)
    assert (first.parts, first.before.losses) == (1, 0)
    driver.goes_on(first.trial, {**point(0.7), "weights_key": "kept"})
    driver.lost(first.trial, "the worker was lost")
    assert driver.ledger == []
    again = begin(driver)
    assert again.with_(parts=1, before=first.before, must_report=True) == first
    assert (again.parts, again.before.losses, again.before.weights_key) == (2, 1, "kept")
    assert driver.next() is None, "it is the only trial still"
    # Without a checkpoint the rung is passed once more: it counts once.
    driver.goes_on(first.trial, point(0.7))
    driver.goes_on(first.trial, point(0.8, rung=1))
    driver.lost(first.trial, "the worker was lost again")
    (result,) = driver.ledger
    assert [p.rung for p in result.curve] == [0, 1]
    assert (result.state, result.error) == (TrialState.FAILED, "the worker was lost again")
    assert driver.running == {}


def test_a_trial_of_several_workers_has_been_begun_again_by_the_group_already(world: World) -> None:
    driver = driver_of(world, max_trials=1)
    trial = begin(driver).trial
    driver.running[trial].assignment = driver.running[trial].assignment.with_(workers=2)
    driver.lost(trial, "all workers were lost")
    assert [result.error for result in driver.ledger] == ["all workers were lost"]


# --------------------------------------------------------------------------------------------- heads together


def test_heads_on_the_same_features_are_trained_together(world: World) -> None:
    driver = driver_of(world, together=True, max_trials=400)
    told = Simulation(driver, world, workers=2).run()
    ledger = stored_ledger(driver)
    batches = [begun.assignment for begun in told.begun if begun.assignment.heads]
    assert len(batches) > 5
    assert max(len(task.heads) for task in batches) >= 16
    for task in batches:
        assert task.heads[0].trial == task.trial
        features = {(h.config.backbone, h.config.resolution, h.config.augmentation) for h in task.heads}
        assert len(features) == 1
        assert len({head.config.digest for head in task.heads}) == len(task.heads)
    assert len(ledger) > 8 * len(batches), "each is a line of the ledger"
    digests = [TrialConfig.model_validate(result.config).digest for result in ledger]
    assert len(set(digests)) == len(digests)
    assert {result.ladder for result in ledger} == {"probe"}
    of_first = [result for result in ledger if result.batch == batches[0].trial]
    assert len(of_first) == len(batches[0].heads)
    assert sum(r.seconds for r in of_first) == pytest.approx(features_s(batches[0].config) + 2.0)
    assert all(result.notes == ("a note",) for result in of_first)
    best = max(ledger, key=lambda r: r.value or 0.0)
    assert best.weights_key == f"weights-{best.trial}"


def test_a_batch_has_no_more_heads_than_trials_are_left(world: World) -> None:
    driver = driver_of(world, together=True, max_trials=20)
    Simulation(driver, world, workers=1).run()
    assert len(stored_ledger(driver)) == 20


def test_fine_tuning_begins_with_what_the_best_head_found(world: World) -> None:
    class Deeper(Space):
        backbone = "small"
        weights = "random"
        unfreeze = Choice(0, 1)
        lr = Float(1e-4, 1e-1, log=True, default=1e-3)

    world.training_s = 5.0
    driver = driver_of(world, Deeper(), together=True, budget_s=120.0)
    told = Simulation(driver, world, workers=1).run()
    first = next(b.assignment for b in told.begun if b.assignment.config.unfreeze)
    ledger = {result.trial: result for result in stored_ledger(driver)}
    before = [r for r in ledger.values() if r.number < first.number and r.value is not None]
    assert ledger[first.trial].origin == "probe"
    assert first.config.lr == pytest.approx(max(before, key=lambda r: r.value or 0.0).config["lr"])
    assert {r.ladder for r in ledger.values()} == {"probe", "shallow"}


def test_a_batch_that_was_killed_is_trained_again_and_one_that_was_half_recorded_is_completed(
    world: World,
) -> None:
    crashed = driver_of(world, together=True)
    first = begin(crashed)
    assert len(first.heads) > 3
    key = keys.begun_trial(first.search, first.trial)
    kept = crashed.store.get(key).data
    simulation = Simulation(crashed, world)
    reports = simulation._work(first)
    next(reports)
    crashed.goes_on(first.trial, next(reports))
    crashed.ended(first.trial)
    for head in first.heads[2:]:
        crashed.store.delete(keys.trial(first.search, head.trial))
    crashed.store.put_new(key, kept)

    driver = resumed(world, crashed, together=True)
    again = begin(driver)
    assert again.trial == first.trial
    assert [head.trial for head in again.heads] == [head.trial for head in first.heads[2:]]
    later = begin(driver)
    assert {head.number for head in later.heads} & {head.number for head in first.heads} == set()


# -------------------------------------------------------------------------------------- pausing and going on


def test_a_paused_trial_goes_on_from_its_checkpoint_when_it_comes_to_be_among_the_best(world: World) -> None:
    driver = driver_of(world)
    tasks = [begin(driver) for _ in range(3)]
    for task, value in zip(tasks, (0.9, 0.8, 0.7), strict=True):
        driver.goes_on(task.trial, point(value))
    driver.ended(tasks[2].trial)
    assert set(driver.paused) == {tasks[2].trial}
    for value in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        other = begin(driver)
        driver.goes_on(other.trial, point(value))
        driver.ended(other.trial)
    again = begin(driver)
    assert again.trial == tasks[2].trial, "of nine, it is one of the best three"
    assert (again.before.objective, again.before.weights_key) == (0.7, "weights-0.7")
    assert (again.before.seconds, again.before.feature_s) == (3.0, 2.0)
    driver.goes_on(again.trial, {**point(0.95, rung=1), "outcome": "complete", "done": True})
    (result,) = driver.ended(again.trial)
    assert (result.state, result.value, len(result.curve)) == (TrialState.COMPLETE, 0.95, 2)


def test_who_is_nearly_done_is_not_paused(world: World) -> None:
    driver = driver_of(world, nearly_s=1000.0)
    tasks = [begin(driver) for _ in range(3)]
    assert all(driver.goes_on(t.trial, point(v)) for t, v in zip(tasks, (0.9, 0.8, 0.1), strict=True))


def test_seconds_that_nothing_else_fits_into_go_to_the_best_of_those_that_are_behind(world: World) -> None:
    driver = driver_of(world)
    tasks = [begin(driver) for _ in range(4)]
    for task, value in zip(tasks, (0.9, 0.95, 0.8, 0.7), strict=True):
        driver.goes_on(task.trial, point(value) | {"seconds": 2.1, "feature_s": 2.0})
    for task in tasks[2:]:
        driver.ended(task.trial)
    world.stored.clear()
    world.training_s = 1000.0
    again = begin(driver)
    assert again.trial == tasks[2].trial


def test_a_search_that_is_stopped_by_a_person_leaves_what_runs_to_whoever_goes_on(world: World) -> None:
    world.training_s = 9.0
    stopped = driver_of(world, budget_s=200.0)
    Simulation(stopped, world, workers=3).run(crash_at=world.now + 60.0)
    going = set(stopped.running)
    before = len(stopped.ledger)
    stopped.suspend()
    for trial in going:
        assert stopped.ended(trial) == []
    assert len(stored_ledger(stopped)) == before
    assert {result.trial for result in stopped.results} >= {
        t for t, r in stopped.running.items() if r.reported
    }
    driver = resumed(world, stopped)
    assert {begin(driver).trial for _ in going} == going


def test_what_a_stopped_search_had_begun_can_be_settled(world: World) -> None:
    world.training_s = 9.0
    stopped = driver_of(world, budget_s=200.0)
    Simulation(stopped, world, workers=3).run(crash_at=world.now + 60.0)
    expected = {r.trial: r for r in stopped.results if r.trial not in {x.trial for x in stopped.ledger}}
    assert expected
    written = {result.trial: result for result in settle(stopped.store, stopped.request.id)}
    assert set(written) == set(expected)
    assert {r.value for r in written.values()} == {r.value for r in expected.values()}
    assert len(stored_ledger(stopped)) == len(stopped.ledger) + len(written)
    assert settle(stopped.store, stopped.request.id) == []


# ------------------------------------------------------------------------------------ several objectives

COSTS = {"small": 5.0, "medium": 12.0, "large": 40.0}


def several(world: World, seed: int = 0, **changes: Any) -> Driver:
    space = Three()
    request = SearchRequest(
        dataset="d",
        dataset_version=1,
        dataset_digest="0" * 64,
        space=space.to_json(),
        budget_s=600.0,
        seed=seed,
        objectives=("latency_ms",),
        max_trials=300,
    )
    costs = changes.pop("costs", lambda config: {"latency_ms": COSTS[config.backbone]})
    return driver_of(world, space, budget_s=600.0, request=request, costs=costs, **changes)


def test_a_search_for_several_objectives_tries_cheap_and_good_networks(world: World) -> None:
    """Each backbone has its place on the front, with about the best that it can be."""
    driver = several(world)
    Simulation(driver, world).run()
    ledger = stored_ledger(driver)
    assert all(result.objectives == {"latency_ms": COSTS[result.config["backbone"]]} for result in ledger)
    tried = Counter(result.config["backbone"] for result in ledger)
    assert set(tried) == set(COSTS)
    front = pareto_front(("latency_ms",), ledger)
    assert [result.config["backbone"] for result in front] == ["large", "medium", "small"]
    for result in front:
        assert result.metrics["accuracy"] > QUALITY[result.config["backbone"]] - 0.02


def test_who_is_on_the_front_is_not_paused_for_being_worse(world: World) -> None:
    def rungs(driver: Driver) -> int:
        """Of the first trials of the small backbone, after better ones of the large one have come to their ends."""
        reached = []
        for backbone, accuracy in (("large", 0.85), ("large", 0.86), ("large", 0.87), ("small", 0.6)):
            proposal = driver._sampler.ask({"backbone": backbone})
            config = driver.space.config(proposal.point)
            driver._begin([Drawn(proposal, config, None, "sampled")])
            trial = next(reversed(driver.running))
            goes_on = [driver.goes_on(trial, point(accuracy, rung)) for rung in range(2)]
            reached.append(sum(goes_on))
        return reached[-1]

    assert rungs(several(world)) == 2
    assert rungs(driver_of(world)) < 2


def test_costs_outlive_the_driver(world: World) -> None:
    """What runs when the process is killed is taken up, and what it costs is known."""
    driver = several(world)
    Simulation(driver, world).run(crash_at=world.now + 60)
    again = several(world, store=driver.store, ledger=stored_ledger(driver), attempt=2)
    Simulation(again, world).run()
    assert all("latency_ms" in result.objectives for result in stored_ledger(again))


def test_heads_of_a_batch_have_one_shape_and_differ_in_their_recipe(world: World) -> None:
    class Shapes(Three):
        taps = Integer(1, 4)
        head = Choice("linear", "mlp")
        head_width = Integer(16, 64, when={"head": "mlp"})

    driver = driver_of(world, Shapes(), together=True)
    for _ in range(3):
        heads = begin(driver).heads
        assert len({(h.config.taps, h.config.head, h.config.head_width) for h in heads}) == 1
        assert len({h.config.lr for h in heads}) == len(heads) > 3


def test_where_only_shapes_differ_heads_of_different_shapes_are_a_batch(world: World) -> None:
    class OnlyShapes(Space):
        backbone = "small"
        weights = "random"
        taps = Integer(1, 8)
        drop_stages = Integer(0, 3)

    heads = begin(driver_of(world, OnlyShapes(), together=True)).heads
    assert len({(head.config.taps, head.config.drop_stages) for head in heads}) == len(heads) > 3
