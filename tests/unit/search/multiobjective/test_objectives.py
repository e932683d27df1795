"""Several objectives: what is on the front, which arm is next, and who goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autovision.errors import InvalidInput
from autovision.model.footprint import Footprint
from autovision.records.searches import SearchRequest
from autovision.records.trials import TrialResult
from autovision.registry import footprints
from autovision.search.arms import ArmRecord
from autovision.search.constraints.footprints import remembered, runtime_here
from autovision.search.constraints.limits import gflops
from autovision.search.multiobjective.front import front_of
from autovision.search.multiobjective.model_costs import Costs
from autovision.search.multiobjective.objectives import (
    Trade,
    check_objectives,
    pareto_front,
    scalarised,
    weights_of,
)
from autovision.search.schedulers import Report
from autovision.search.select import best_trial
from autovision.space import Choice, Integer, Space
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore, records

LATENCY = ("latency_ms",)
Line = Callable[..., TrialResult]


class Sizes(Space):
    backbone = Choice("resnet18", "resnet34")
    weights = "random"
    resolution = Choice(64, 96, 128)
    drop_stages = Integer(0, 1)


def request_of(*objectives: str) -> SearchRequest:
    return SearchRequest(
        dataset="d",
        dataset_version=1,
        dataset_digest="0" * 64,
        space=Sizes().to_json(),
        budget_s=60,
        objectives=objectives,
    )


def test_objectives_are_checked_and_named_once() -> None:
    assert check_objectives(["size_mb", "latency_ms", "size_mb"]) == ("size_mb", "latency_ms")
    with pytest.raises(InvalidInput, match=r"'latency' is none of .*did you mean 'latency_ms'"):
        check_objectives(["latency"])


def test_ids_of_older_requests_are_left_as_they_are() -> None:
    assert request_of().id == "d-" + request_of().id.removeprefix("d-")
    assert "sampler" not in request_of().model_dump(exclude_defaults=True)
    assert len({request_of().id, request_of("size_mb").id, request_of().with_(sampler="gp").id}) == 3


def test_the_front_has_the_best_first_and_of_equals_the_earliest(line: Line) -> None:
    ledger = [
        line(0, 0.80, objectives={"latency_ms": 9.0}),
        line(1, 0.90, objectives={"latency_ms": 20.0}),
        line(2, 0.80, objectives={"latency_ms": 9.0}),
        line(3, 0.70, objectives={"latency_ms": 10.0}),
        line(4, None, objectives={"latency_ms": 1.0}),
        line(5, 0.99, objectives={"latency_ms": 5.0}, weights_key=None),
        line(6, 0.95),
        line(7, 0.90, objectives={"latency_ms": 21.0}),
    ]
    assert [result.number for result in pareto_front(LATENCY, ledger)] == [6, 1, 0]
    assert best_trial([ledger[7], *ledger[:5]]) == ledger[1], "the model is on the front"
    found = front_of(request_of(*LATENCY), ledger[:5])
    assert found is not None
    assert [(offer.trial[-10:-7], offer.chosen) for offer in found.offers] == [("001", True), ("000", False)]
    assert [value for value, _ in found.others] == [0.80, 0.70]
    assert sum(offer.knee for offer in found.offers) == 1
    assert 0 < found.hypervolume <= 1
    other = front_of(request_of(*LATENCY), ledger[:5], ledger[0].trial)
    assert other is not None
    assert [offer.chosen for offer in other.offers] == [False, True], (
        "it was better when it was judged once more"
    )
    assert front_of(request_of(), ledger) is None
    assert front_of(request_of(*LATENCY), ledger[4:5]) is None


# ---------------------------------------------------------------------------------------- which arm is next


def test_each_draw_weighs_the_objectives_anew_so_that_all_of_the_front_has_its_turn(line: Line) -> None:
    trade = Trade(LATENCY, seed=1)
    arms = {(("backbone", name),): ArmRecord(values=[0.5], running=i) for i, name in enumerate("abcd")}
    good, quick, between, bad = arms
    for arm, accuracy, ms in ((good, 0.9, 50.0), (quick, 0.6, 5.0), (between, 0.85, 12.0), (bad, 0.58, 49.0)):
        trade.learn(arm, [line(0, accuracy, objectives={"latency_ms": ms}), line(1, None)])
    best = []
    for number in range(200):
        seen = trade.records(arms, number)
        assert {arm: len(record.values) for arm, record in seen.items()} == dict.fromkeys(arms, 1)
        assert [record.running for record in seen.values()] == [0, 1, 2, 3], "the rest is as it is"
        best.append(max(seen, key=lambda arm: seen[arm].values[0]))
    assert {arm: best.count(arm) > 10 for arm in arms} == {good: True, quick: True, between: True, bad: False}
    assert [trade.records(arms, 7)[arm].values for arm in arms] == [
        trade.records(arms, 7)[arm].values for arm in arms
    ]


def test_with_one_objective_nothing_changes(line: Line) -> None:
    trade, arms = Trade((), seed=0), {(("backbone", "a"),): ArmRecord(values=[0.5])}
    trade.learn(next(iter(arms)), [line(0, 0.9)])
    assert trade.records(arms, 3) is arms
    assert not trade.excels(Report("t", "head", 0, 1.0, 0.9), 0, {})


def test_who_is_dominated_is_worth_less_under_any_weights() -> None:
    points = np.random.default_rng(0).random((30, 3))
    points = np.vstack([points, points - 0.01])
    for number in range(50):
        worth = scalarised(points, weights_of(3, 0, number))
        assert (worth[:30] > worth[30:]).all()
        assert (worth <= 1.0).all()


# --------------------------------------------------------------------------------------------- who goes on


def report(value: float, kind: str = "head") -> Report:
    return Report("t", kind, 0, 1.0, value)


def test_who_is_cheaper_than_all_that_are_better_goes_on() -> None:
    trade = Trade(LATENCY, seed=0)
    for value, ms, goes_on in (
        (0.9, 50.0, True),
        (0.5, 10.0, True),
        (0.5, 11.0, False),
        (0.8, 60.0, False),
        (0.7, 20.0, True),
        (float("nan"), 1.0, False),
        (0.95, 9.0, True),
        (0.9, 50.0, False),
    ):
        assert trade.excels(report(value), 2, {"latency_ms": ms}) is goes_on
    assert trade.excels(report(0.1), 1, {"latency_ms": 90.0}), "nobody was at that level"
    assert trade.excels(report(0.1, "fine-tuned"), 2, {"latency_ms": 90.0}), "nor of its kind"


# ------------------------------------------------------------------------------------- what a model costs


def measure_of(asked: list[TrialConfig]) -> Callable[[TrialConfig], Footprint]:
    def measure(config: TrialConfig) -> Footprint:
        asked.append(config)
        return Footprint(
            runtime="r", latency_ms=2 * gflops(config), memory_mb=100 + gflops(config), size_mb=1.0
        )

    return measure


def test_what_follows_from_a_configuration_is_not_measured() -> None:
    asked: list[TrialConfig] = []
    costs = Costs(("gflops", "size_mb"), 3, measure_of(asked))
    costs.explore(Sizes(), lambda config: True)
    small, large = (
        Sizes().config({"backbone": b, "resolution": 96, "drop_stages": 0}) for b in ("resnet18", "resnet34")
    )
    assert costs(small)["gflops"] < costs(large)["gflops"]
    assert 40 < costs(small)["size_mb"] < costs(large)["size_mb"] < 90, "11 and 21 million parameters"
    assert asked == []
    assert Costs((), 3, measure_of(asked))(small) == {}


def test_the_ends_of_each_family_are_measured_and_what_lies_between_is_interpolated() -> None:
    asked: list[TrialConfig] = []
    costs = Costs(("latency_ms", "memory_mb"), 3, measure_of(asked))
    costs.explore(Sizes(), lambda config: config.backbone == "resnet18")
    assert [(c.backbone, c.resolution, c.drop_stages) for c in asked] == [
        ("resnet18", 128, 0),
        ("resnet18", 64, 1),
    ]
    between = Sizes().config({"backbone": "resnet18", "resolution": 96, "drop_stages": 0})
    found: dict[str, Any] = costs(between)
    assert found["latency_ms"] == pytest.approx(2 * gflops(between))
    assert found["memory_mb"] == pytest.approx(100 + gflops(between))
    assert len(asked) == 2


def test_where_there_is_no_time_the_others_are_taken_to_be_like_those_that_were_measured() -> None:
    asked: list[TrialConfig] = []
    costs = Costs(("latency_ms", "memory_mb"), 3, measure_of(asked))
    told = costs.explore(Sizes(), lambda config: True, until=lambda: True)
    assert told is not None and "1 of 4 architectures were measured" in told
    assert len(asked) == 1
    for backbone in ("resnet18", "resnet34"):
        config = Sizes().config({"backbone": backbone, "resolution": 64, "drop_stages": 1})
        assert costs(config)["latency_ms"] == pytest.approx(2 * gflops(config))
        assert costs(config)["memory_mb"] == pytest.approx(100 + gflops(asked[0]))
    assert len(asked) == 1, "nothing is measured while trials run"


def test_what_was_measured_is_remembered_for_other_searches() -> None:
    store, asked = MemoryStore(), list[TrialConfig]()
    config = Sizes().config(Sizes().default())
    found = [
        remembered(store, classes, measure_of(asked))(config.with_(lr=lr))
        for classes, lr in ((3, 0.1), (3, 0.2), (4, 0.1))
    ]
    assert found[0] == found[1]
    assert len(asked) == 2, "more classes are another network"


def test_what_was_measured_on_a_named_runtime_is_what_gates_read() -> None:
    store, asked = MemoryStore(), list[TrialConfig]()
    config = Sizes().config(Sizes().default())
    remembered(store, 3, measure_of(asked))(config)
    for _ in range(2):
        found = remembered(store, 3, measure_of(asked), "eager-f32")(config)
    assert len(asked) == 2, "each runtime is measured once"
    assert records.read(store, footprints.key_of(config, 3, "eager-f32"), Footprint) == found


def test_a_runtime_that_the_node_has_not_is_refused_with_those_that_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert runtime_here("evaluated") is None and runtime_here("eager-f32") == "eager-f32"
    with pytest.raises(
        InvalidInput, match=r"'torch-bf16' is none of those that this node has, .*eager-f32; name"
    ):
        runtime_here("torch-bf16")
