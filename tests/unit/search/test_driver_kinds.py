"""Heads that are trained together, and searches for several objectives."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from autovision.records.searches import SearchRequest
from autovision.search.driver import Driver
from autovision.search.multiobjective.objectives import pareto_front
from autovision.search.proposer import Drawn
from autovision.search.warm import Start
from autovision.space import Choice, Float, Integer, Space
from autovision.space.config import TrialConfig
from autovision.store import keys
from tests.unit.search.driving import (
    QUALITY,
    Simulation,
    Three,
    World,
    begin,
    driver_of,
    features_s,
    point,
    resumed,
    stored_ledger,
)

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


def test_starting_points_of_the_same_features_are_one_batch(world: World) -> None:
    default = Three.default()
    starts = [Start({**default, "lr": 0.01 + i / 100}, "ledger") for i in range(3)]
    starts.insert(1, Start({**default, "backbone": "small"}, "ledger"))
    driver = driver_of(world, starts=list(starts), together=True)
    first, second = begin(driver), begin(driver)
    members = driver.running[first.trial].members
    assert [member.config.lr for member in members[:3]] == pytest.approx([0.01, 0.02, 0.03])
    assert [member.origin for member in members[:4]] == ["ledger"] * 3 + ["sampled"]
    assert {member.config.backbone for member in members} == {default["backbone"]}
    assert second.config.backbone == "small" and driver.running[second.trial].lead.origin == "ledger"


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


def test_the_one_head_of_a_batch_that_was_not_recorded_is_trained_with_its_own_configuration(
    world: World,
) -> None:
    crashed = driver_of(world, together=True)
    first = begin(crashed)
    key = keys.begun_trial(first.search, first.trial)
    kept = crashed.store.get(key).data
    reports = Simulation(crashed, world)._work(first)
    next(reports)
    crashed.goes_on(first.trial, next(reports))
    crashed.ended(first.trial)
    last = first.heads[-1]
    whole = {result.trial: result for result in stored_ledger(crashed)}[last.trial]
    crashed.store.delete(keys.trial(first.search, last.trial))
    crashed.store.put_new(key, kept)

    driver = resumed(world, crashed, together=True)
    again = begin(driver)
    assert again.heads == (last,), "not the configuration of the batch's first"
    reports = Simulation(driver, world)._work(again)
    next(reports)
    driver.goes_on(again.trial, next(reports))
    (result,) = driver.ended(again.trial)
    assert (result.trial, result.config, result.value) == (whole.trial, whole.config, whole.value)
    assert result.weights_key == whole.weights_key


def test_what_a_head_takes_is_learnt_as_its_share_of_a_batch(world: World) -> None:
    driver = driver_of(world, together=True)
    first = begin(driver)
    reports = Simulation(driver, world)._work(first)
    next(reports)
    result = next(reports)
    driver.goes_on(first.trial, result)
    (point,) = driver.running[first.trial].curve_of_each(result)
    assert len(first.heads) > 1
    assert point.seconds == pytest.approx(result["feature_s"] + 2 * world.training_s / len(first.heads))


def test_a_slow_sampler_draws_no_more_than_there_is_patience_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(1_000_000))
    monkeypatch.setattr("autovision.search.proposer.time.monotonic", lambda: 0.7 * next(ticks))
    assert len(begin(driver_of(world, together=True)).heads) == 3


def test_a_late_starting_point_that_waits_already_is_tried_once(world: World) -> None:
    starts = [Start({**Three.default(), "lr": 0.01 + i / 100}, "ledger") for i in range(2)]
    driver = driver_of(world, starts=list(starts), together=True)
    driver.add_starts([Start(starts[1].point, "similar"), Start({**Three.default(), "lr": 0.05}, "similar")])
    members = driver.running[begin(driver).trial].members
    assert [member.origin for member in members[:4]] == ["ledger", "ledger", "similar", "sampled"]
    assert len({member.config.digest for member in members}) == len(members)


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
            proposal = driver._lessons.sampler.ask({"backbone": backbone})
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
