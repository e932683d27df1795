"""Searches that go on: after a crash, after a person stopped them, and trials that are paused."""

from __future__ import annotations

from typing import Any

import pytest

from autovision.records.searches import SearchRequest
from autovision.records.trials import TrialState
from autovision.search.begun import settle
from autovision.search.driver import Driver
from autovision.search.warm import Start
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore, keys
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


def test_after_a_crash_the_search_goes_on_from_its_ledger(world: World) -> None:
    world.training_s = 9.0
    crashed = driver_of(world, budget_s=200.0)
    Simulation(crashed, world, workers=3).run(crash_at=world.now + 60.0)
    lost = set(crashed.running)
    assert lost, "the crash came while trials were running"
    before = stored_ledger(crashed)

    driver = resumed(world, crashed)
    for arm, record in crashed._lessons.arms.items():
        known = driver._lessons.arms[arm]
        assert sorted(known.values) == pytest.approx(sorted(record.values))
        assert sorted(known.seconds) == pytest.approx(sorted(record.seconds))
        assert (known.failed, known.running) == (record.failed, record.running)
    assert set(driver.running) == lost
    assert set(driver.paused) == set(crashed.paused)
    assert {key: scores for key, scores in driver._lessons.scheduler._scores.items() if scores} == {
        key: pytest.approx(scores) for key, scores in crashed._lessons.scheduler._scores.items() if scores
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
    assert sum(record.failed for record in crashed._lessons.arms.values()) > 0
    driver = resumed(world, crashed)
    assert {a: r.failed for a, r in driver._lessons.arms.items()} == {
        a: r.failed for a, r in crashed._lessons.arms.items()
    }


def test_the_bound_on_trials_holds_over_all_attempts(world: World) -> None:
    crashed = driver_of(world, max_trials=8)
    Simulation(crashed, world, workers=2).run(crash_at=world.now + 5.0)
    done = len(stored_ledger(crashed))
    assert 0 < done < 8
    driver = resumed(world, crashed)
    Simulation(driver, world, workers=2).run()
    assert len(stored_ledger(driver)) == 8


def test_a_bound_that_was_extended_lets_so_many_more_trials_begin(world: World) -> None:
    first = driver_of(world, max_trials=4)
    Simulation(first, world, workers=2).run()
    assert len(stored_ledger(first)) == 4
    driver = resumed(world, first, extended_trials=7)
    assert (driver.most, driver.wants, driver.event().most) == (7, 3, 7)
    Simulation(driver, world, workers=2).run()
    assert len(stored_ledger(driver)) == 7


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
    for going in (*stopped.running.values(), *stopped.paused.values()):
        task = going.assignment
        stopped.store.put_new(
            keys.checkpoint(task.search, task.config.digest, task.seed), b"of its last rung"
        )
    written = {result.trial: result for result in settle(stopped.store, stopped.request.id)}
    assert set(written) == set(expected)
    assert {r.value for r in written.values()} == {r.value for r in expected.values()}
    assert len(stored_ledger(stopped)) == len(stopped.ledger) + len(written)
    assert settle(stopped.store, stopped.request.id) == []
    assert not list(stopped.store.list(keys.checkpoints(stopped.request.id))), "nobody goes on from them"
