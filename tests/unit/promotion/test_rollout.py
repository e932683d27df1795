"""Promotion as an act, with models that were really trained."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from autovision.dataset.importer import SourceImage, extend
from autovision.errors import Conflict, InvalidInput, NotFound
from autovision.model.footprint import Footprint
from autovision.model.predictor import Predictor
from autovision.model.version import read_version
from autovision.promotion import comparison, rollout
from autovision.records.deployments import DecisionKind, RetrainingPolicy
from autovision.records.gates import GatePolicy
from autovision.records.models import ModelVersion
from autovision.registry import deployments, footprints
from autovision.registry.corruptions import KINDS
from autovision.store import MemoryStore
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History, Scenes

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def store(tiny: History) -> MemoryStore:
    store = tiny.copy()
    deployments.create(store, "door", "colours", tiny.space.to_json())
    return store


@pytest.fixture
def models(tiny: History) -> tuple[str, str]:
    return tiny.models[0].id, tiny.models[1].id


def consider(store: MemoryStore, model: str, **options: Any) -> Any:
    return rollout.consider(store, "door", model, clock=lambda: NOW, **options)


def champion(store: MemoryStore) -> str | None:
    return deployments.get(store, "door").model


def test_the_first_model_is_promoted_because_it_beats_the_majority(
    store: MemoryStore, models: tuple[str, str]
) -> None:
    decision = consider(store, models[0])
    assert champion(store) == models[0]
    assert (decision.accepted, decision.kind, decision.subject) == (True, DecisionKind.PROMOTE, models[0])
    assert decision.created_at == NOW
    assert "beats_majority" in decision.why
    assert decision.numbers["n"] == 30
    assert (decision.numbers["champion"], decision.numbers["overruled"]) == (None, False)
    assert deployments.decisions(store, "door") == [decision]


def test_a_better_model_takes_the_place_and_the_numbers_are_kept(
    store: MemoryStore, models: tuple[str, str]
) -> None:
    first, second = models
    consider(store, first)
    decision = consider(store, second)
    assert decision.accepted
    assert decision.what.endswith(f"{second} over {first}")
    assert decision.numbers["champion"] == first
    assert decision.numbers["n"] == 60, "the test split of the data that the challenger was trained on"
    assert all(gate["passed"] for gate in decision.numbers["gates"])
    deployment = deployments.get(store, "door")
    assert (deployment.model, deployment.previous) == (second, (first,))


def test_a_model_that_is_no_better_is_refused_with_reasons(
    store: MemoryStore, models: tuple[str, str]
) -> None:
    first, second = models
    consider(store, second)
    decision = consider(store, first)
    assert not decision.accepted
    assert decision.what.startswith("refuse the challenger")
    assert "better_somewhere" in decision.why
    assert champion(store) == second
    assert deployments.decisions(store, "door")[-1] == decision


def test_a_person_can_overrule_the_gate_and_that_is_recorded(
    store: MemoryStore, models: tuple[str, str]
) -> None:
    first, second = models
    consider(store, second)
    decision = consider(store, first, force=True)
    assert champion(store) == first
    assert (decision.accepted, decision.numbers["overruled"]) == (True, True)
    assert decision.what.startswith("promote the challenger by hand: ")
    assert decision.why.startswith("promoted by hand against the gate's advice; it fails")


def test_force_overrules_nothing_where_the_gate_agrees(store: MemoryStore, models: tuple[str, str]) -> None:
    decision = consider(store, models[0], force=True)
    assert not decision.numbers["overruled"]
    assert "by hand" not in decision.why


def test_the_champion_needs_no_promotion(store: MemoryStore, models: tuple[str, str]) -> None:
    consider(store, models[0])
    before = deployments.get(store, "door")
    decision = consider(store, models[0])
    assert (decision.accepted, decision.what.startswith("nothing to do")) == (True, True)
    assert deployments.get(store, "door") == before


def test_when_another_promotion_wins_in_between_this_one_is_a_conflict(
    store: MemoryStore, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = models
    decide = rollout.decide

    def slow(*args: Any, **options: Any) -> Any:
        deployments.set_champion(store, "door", first, expected=None)
        return decide(*args, **options)

    monkeypatch.setattr(rollout, "decide", slow)
    with pytest.raises(Conflict, match=f"serves '{first}' by now; compare again"):
        consider(store, second)
    assert champion(store) == first
    assert deployments.decisions(store, "door") == [], "what did not happen is not recorded"
    monkeypatch.setattr(rollout, "decide", decide)
    assert consider(store, second).numbers["champion"] == first, "compared again, with the new champion"


def test_a_promotion_that_was_killed_before_its_record_is_recorded_by_the_next_one(
    store: MemoryStore, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = deployments.record_decision

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(deployments, "record_decision", killed)
    with pytest.raises(KeyboardInterrupt):
        consider(store, models[0])
    monkeypatch.setattr(deployments, "record_decision", record)
    consider(store, models[0])
    deployment = deployments.get(store, "door")
    assert (deployment.model, deployment.previous, deployment.revision) == (models[0], (), 1)
    promoted, again = deployments.decisions(store, "door")
    assert "beats_majority" in promoted.why and promoted.subject == models[0], (
        "it was part of what was changed"
    )
    assert again.what.startswith("nothing to do")


@pytest.mark.parametrize(("door", "model"), [("gate", None), ("door", "nobody")])
def test_what_is_not_there_leaves_no_decision(
    store: MemoryStore, models: tuple[str, str], door: str, model: str | None
) -> None:
    with pytest.raises(NotFound):
        rollout.consider(store, door, model or models[0])
    assert deployments.decisions(store, "door") == []


def test_an_unknown_metric_is_refused_and_nothing_happens(
    store: MemoryStore, models: tuple[str, str]
) -> None:
    with pytest.raises(InvalidInput, match="there is no 'precision'"):
        consider(store, models[0], metric="precision")
    assert champion(store) is None


def test_rolling_back_is_a_decision_too(store: MemoryStore, models: tuple[str, str]) -> None:
    first, second = models
    consider(store, first)
    with pytest.raises(InvalidInput, match="no earlier model"):
        rollout.roll_back(store, "door")
    consider(store, second)
    decision = rollout.roll_back(store, "door", clock=lambda: NOW)
    assert champion(store) == first
    assert (decision.kind, decision.subject) == (DecisionKind.ROLLBACK, first)
    assert decision.what == f"roll back from {second} to {first}"
    assert decision in deployments.decisions(store, "door")


def test_subgroups_that_the_policy_names_are_protected(
    tiny: History, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tiny.copy()
    policy = RetrainingPolicy(subgroup="line")
    deployment = deployments.create(store, "door", "colours", tiny.space.to_json(), policy)
    serving = deployments.set_champion(store, "door", models[0], expected=None)
    challenger = read_version(store, models[1])
    # The first version's images say nothing of their line: they are in no group, and the others are one.
    groups = comparison.paired_predictions(store, serving, challenger).groups
    assert {name: int(mask.sum()) for name, mask in groups.items()} == {"new": 30}
    found = comparison.predictions

    def with_lines(*args: Any, **options: Any) -> Any:
        what = found(*args, **options)
        lines = tuple("new" if i % 2 else "old" for i in range(len(what)))
        return type(what)(what.images, what.labels, what.probabilities, {"line": lines})

    monkeypatch.setattr(comparison, "predictions", with_lines)
    paired = comparison.paired_predictions(store, serving, challenger)
    assert {name: int(mask.sum()) for name, mask in paired.groups.items()} == {"new": 30, "old": 30}
    assert comparison.paired_predictions(store, deployment, challenger).champion is None


def test_a_champion_that_does_not_know_a_class_is_compared_on_it_all_the_same(
    tiny: History,
    run_search_alone: Callable[..., ModelVersion],
    paint_images: Callable[..., list[Path]],
    tmp_path: Path,
) -> None:
    store = tiny.copy()
    deployments.create(store, "door", "colours", tiny.space.to_json())
    serving = deployments.set_champion(store, "door", tiny.models[1].id, expected=None)
    green = [SourceImage(label="green", path=path) for path in paint_images(tmp_path, 10, seed=5)]
    version = extend(store, tiny.versions[1], green, seed=0)
    request = tiny.searches[1].with_(
        dataset_version=3, dataset_digest=version.digest, max_trials=1, parent_model=serving.model
    )
    challenger = run_search_alone(store, request, Workbench(store, threads=2))
    assert challenger.classes == ("blue", "green", "red")
    paired = comparison.paired_predictions(store, serving, challenger)
    assert paired.champion is not None
    assert paired.champion.shape == paired.challenger.shape
    np.testing.assert_array_equal(paired.champion[:, 1], 0.0)
    np.testing.assert_allclose(paired.champion.sum(1), 1.0)
    known = paired.labels != 1
    assert (paired.champion[known].argmax(1) == paired.labels[known]).mean() > 0.9, (
        "columns by name, not place"
    )
    assert isinstance(consider(store, challenger.id).accepted, bool)


def test_models_of_several_classes_are_compared_like_others(scenes: Scenes) -> None:
    store = scenes.copy()
    deployments.create(store, "door", "scenes", {})
    decision = consider(store, scenes.model.id)
    assert decision.accepted and champion(store) == scenes.model.id
    assert "for always answering" in decision.why
    deployment = deployments.get(store, "door")
    paired = comparison.paired_predictions(store, deployment, scenes.model)
    assert paired.champion is not None
    assert paired.labels.shape == paired.champion.shape == paired.challenger.shape
    np.testing.assert_array_equal(paired.champion, paired.challenger)


def test_declared_subgroups_that_are_not_there_are_told(tiny: History, models: tuple[str, str]) -> None:
    store = tiny.copy()
    policy = RetrainingPolicy(subgroup="camera")
    deployments.create(store, "door", "colours", tiny.space.to_json(), policy)
    consider(store, models[0])
    gates = {gate["name"]: gate for gate in consider(store, models[1]).numbers["gates"]}
    assert gates["not_worse_on"]["reason"] == "not judged: no held-out image says its camera"


def test_both_are_asked_about_the_same_corrupted_images_and_only_once(
    store: MemoryStore, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = models
    consider(store, first)
    gates = [gate for gate in consider(store, second).numbers["gates"] if "robust" in gate["name"]]
    assert [gate["name"] for gate in gates] == [f"as_robust[{kind}]" for kind in KINDS]
    assert {gate["numbers"]["n"] for gate in gates} == {60}
    rollout.roll_back(store, "door") if champion(store) == second else None
    monkeypatch.setattr(Predictor, "load", lambda *args, **options: pytest.fail("it was asked again"))
    again = [gate for gate in consider(store, second).numbers["gates"] if "robust" in gate["name"]]
    assert again == gates


def test_limits_are_measured_on_the_runtime_that_is_named(
    store: MemoryStore, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def measured(config: Any, classes: int, runtime: str, *, int8: Any) -> Footprint:
        asked.append((runtime, int8))
        return Footprint(runtime=runtime, latency_ms=7.0, memory_mb=400.0, size_mb=1.0)

    monkeypatch.setattr(footprints, "measure", measured)
    policy = GatePolicy(max_latency_ms=5.0, max_memory_mb=500.0, max_size_mb=100.0, runtime="eager-f32")
    deployments.set_gate_policy(store, "door", policy)
    for _ in range(2):
        decision = consider(store, models[0])
        gates = {gate["name"]: gate for gate in decision.numbers["gates"]}
        assert not decision.accepted and champion(store) is None
        assert [name for name, gate in gates.items() if not gate["passed"]] == ["within_latency"]
        assert gates["within_latency"]["numbers"]["latency_ms"] == 7.0
        assert gates["within_latency"]["numbers"]["runtime"] == "eager-f32"
    assert asked == [("eager-f32", None)], "measured once for an architecture and a kind of node"


def test_a_runtime_that_may_not_serve_is_within_no_limit(store: MemoryStore, models: tuple[str, str]) -> None:
    deployments.set_gate_policy(store, "door", GatePolicy(max_latency_ms=1e6, runtime="openvino-int8"))
    decision = consider(store, models[0])
    assert not decision.accepted
    assert "its latency could not be measured" in decision.why and "no int8 form" in decision.why
