"""Whole searches, simulated, and what a driver decides by itself."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest

from autovision.records.trials import TrialResult, TrialState
from autovision.search.costing.cost import config_of
from autovision.search.progress import ProgressEvent
from autovision.search.warm import Start
from autovision.space import Choice, Float, Integer, Space
from autovision.space.config import TrialConfig
from autovision.store import keys
from tests.unit.search.driving import (
    Simulation,
    Three,
    World,
    accuracy,
    begin,
    driver_of,
    point,
    resumed,
    stored_ledger,
)

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


def test_only_the_first_trial_may_overrun_a_budget(world: World) -> None:
    """A metric that is defined nowhere must not lead to ever dearer trials after the end."""
    world.objective = lambda config: None
    driver = driver_of(world, budget_s=20.0)
    told = Simulation(driver, world, workers=1).run()
    assert len(driver.ledger) > 1 and {result.state for result in driver.ledger} == {TrialState.FAILED}
    assert all(begun.at <= driver.deadline for begun in told.begun)


def test_a_trial_that_waits_to_be_begun_again_is_begun_though_the_budget_is_over(world: World) -> None:
    crashed = driver_of(world, budget_s=20.0)
    first = begin(crashed)
    world.now += 30.0
    driver = resumed(world, crashed)
    assert driver.at_work == 0 and driver.pending_first
    again = begin(driver)
    assert (again.trial, again.must_report, driver.at_work) == (first.trial, True, 1)
    assert driver.next() is None


def test_without_time_what_waits_to_be_begun_again_is_left_once_there_is_a_value(world: World) -> None:
    crashed = driver_of(world, budget_s=20.0, max_trials=2)
    Simulation(crashed, world, workers=1).run(crash_at=world.now + 5.05)
    assert crashed._lessons.valued and crashed.running
    world.now = crashed.deadline
    driver = resumed(world, crashed)
    assert driver.next() is None and driver.at_work == 0, "so that the search ends"
    driver.close()
    assert set(driver.running) == set() and len(stored_ledger(driver)) == len(driver.ledger)


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
    assert world.now < driver.deadline and driver.exhausted


def test_a_search_that_ends_for_lack_of_time_has_not_tried_everything(world: World) -> None:
    driver = driver_of(world, budget_s=40.0)
    Simulation(driver, world).run()
    assert driver.ledger and not driver.exhausted


def test_an_arm_of_which_everything_was_tried_gives_way_before_there_is_a_value(world: World) -> None:
    class Uneven(Space):
        backbone = Choice("small", "medium")
        weights = "random"
        taps = Integer(1, 3)

    world.objective = lambda config: None if config.backbone == "small" or config.taps < 3 else 0.5
    driver = driver_of(world, Uneven(), budget_s=10_000.0)
    Simulation(driver, world, workers=1).run()
    assert len(driver.ledger) == 6
    assert max(result.value or 0.0 for result in driver.ledger) > 0


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
    (record,) = [r for a, r in again._lessons.arms.items() if is_same(config_of(a, late.config.model_dump()))]
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
    driver = driver_of(world, request=several, threads=2, gpu=True, gpu_share=0.5)
    task = begin(driver)
    assert (task.workers, task.threads, task.gpu, task.gpu_share) == (3, 2, True, 0.5)
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


def test_a_trial_of_several_workers_is_begun_once_more_as_it_was_when_what_speaks_for_them_is_lost(
    world: World,
) -> None:
    several = driver_of(world).request.with_(workers_per_trial=2)
    driver = driver_of(world, request=several)
    first = begin(driver)
    driver.goes_on(first.trial, {**point(0.7), "weights_key": "kept"})
    driver.lost(first.trial, "its node was lost")
    assert driver.ledger == [] and driver.at_work == 0
    again = begin(driver)
    assert (again.trial, again.workers, again.parts) == (first.trial, 2, 1)
    assert (again.before.losses, again.before.objective, again.before.weights_key) == (1, 0.7, "kept")
    driver.lost(first.trial, "its node was lost again")
    assert [result.error for result in driver.ledger] == ["its node was lost again"]
