"""Putting a champion's probabilities right without labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from autovision.api import AutoVision
from autovision.dataset import catalog
from autovision.errors import InvalidInput
from autovision.model.predictor import Predictor
from autovision.priors import ShiftEstimate
from autovision.promotion.comparison import paired_predictions, with_shares
from autovision.records.datasets import Split
from autovision.records.deployments import Capture, Deployment, RetrainingPolicy
from autovision.registry import deployments
from autovision.registry.evaluate import predictions
from autovision.retraining import adaptation
from autovision.retraining.adaptation import decide
from autovision.store import MemoryStore, captures, keys
from autovision.trial.teaching import logits_of
from autovision.trial.workbench import Workbench
from autovision.upkeep import references

if TYPE_CHECKING:
    from tests.unit.conftest import History


def estimated(**changes: float) -> ShiftEstimate:
    fields = {"p_same": 0.005, "p_only_shares": 0.6, "gain": 0.04, "gain_low": 0.02, **changes}
    return ShiftEstimate(np.array([0.5, 0.5]), np.array([0.9, 0.1]), **fields)


@pytest.mark.parametrize(
    ("changes", "accepted", "said"),
    [
        ({}, True, "from cat 0.500 to 0.900, dog 0.500 to 0.100: expected gain of accuracy +0.040"),
        ({"p_same": 0.02}, False, "may be what they were (p = 0.02)"),
        ({"p_only_shares": 0.05}, False, "more than the shares of the classes has changed (p = 0.05"),
        ({"p_same": 0.5, "p_only_shares": 0.05}, False, "more than the shares of the classes has changed"),
        ({"gain_low": 0.0}, False, "changes too few answers"),
    ],
)
def test_it_is_done_only_where_the_estimate_says_that_it_helps(
    changes: dict[str, float], accepted: bool, said: str
) -> None:
    verdict = decide(estimated(**changes), ("cat", "dog"))
    assert verdict.accepted is accepted and said in verdict.why


def test_of_many_classes_those_are_told_that_moved_most() -> None:
    before, after = np.full(8, 1 / 8), np.full(8, 1 / 8)
    after[[2, 6]] += 0.1, -0.1
    shares = ShiftEstimate(before, after, p_same=0.005, p_only_shares=0.6, gain=0.04, gain_low=0.02)
    why = decide(shares, tuple("abcdefgh")).why
    assert "c 0.125 to 0.225" in why and "g 0.125 to 0.025, and 3 that moved less" in why


def test_the_part_of_the_test_split_with_other_shares_is_the_largest_there_is() -> None:
    labels = np.array([0] * 30 + [1] * 30)
    part = with_shares(labels, [0.9, 0.1])
    assert np.bincount(labels[part]).tolist() == [30, 3]
    assert part[:33].all() and not part[33:].any()
    assert np.bincount(labels[with_shares(labels, [0.25, 0.75])]).tolist() == [10, 30]


@pytest.fixture
def deployed(tiny: History) -> tuple[MemoryStore, Deployment]:
    store = tiny.copy()
    deployments.create(store, "door", "colours", tiny.space.to_json(), RetrainingPolicy(window=40))
    return store, deployments.set_champion(store, "door", tiny.models[0].id, expected=None)


def send(
    store: MemoryStore, answer: Callable[..., list[str]], model: str, paths: list[Path]
) -> list[Capture]:
    answer(store, model, [path.read_bytes() for path in paths], seed=40)
    return captures.read(store, "door").captures


def test_requests_like_the_held_out_images_change_nothing(
    deployed: tuple[MemoryStore, Deployment],
    answer_images: Callable[..., list[str]],
    paint_images: Callable[..., list[Path]],
    tmp_path: Path,
) -> None:
    store, deployment = deployed
    assert deployment.model is not None
    send(store, answer_images, deployment.model, paint_images(tmp_path, 30, seed=40))
    models = list(store.list(keys.MODELS))
    found = adaptation.consider(store, "door")
    assert found.model is None and not found.decision.accepted
    assert (found.decision.kind, found.decision.subject) == ("adapt", None)
    assert deployments.decisions(store, "door")[-1] == found.decision
    assert list(store.list(keys.MODELS)) == models


def test_too_few_requests_tell_nothing(
    deployed: tuple[MemoryStore, Deployment],
    answer_images: Callable[..., list[str]],
    paint_images: Callable[..., list[Path]],
    tmp_path: Path,
) -> None:
    store, deployment = deployed
    assert deployment.model is not None
    send(store, answer_images, deployment.model, paint_images(tmp_path, 10, seed=40))
    with pytest.raises(InvalidInput, match="20 captured requests, and 40 are needed"):
        adaptation.consider(store, "door")


def test_a_challenger_says_what_the_champion_says_with_the_other_shares(
    deployed: tuple[MemoryStore, Deployment],
    answer_images: Callable[..., list[str]],
    paint_images: Callable[..., list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, deployment = deployed
    assert deployment.model is not None
    champion = Predictor.load(store, deployment.model)
    paths = paint_images(tmp_path, 30, seed=41)
    send(store, answer_images, deployment.model, paths)
    monkeypatch.setattr(adaptation, "estimate", lambda *given, seed: estimated())
    found = adaptation.consider(store, "door")
    assert found.model is not None and found.decision.subject == found.model.id
    model = found.model
    assert model.shares == {"blue": 0.9, "red": 0.1}
    assert model.lineage.parents == (champion.model.id,) and model.lineage.trial == "shares"
    files = [path.read_bytes() for path in paths]
    before, after = (
        np.array([list(p.probabilities.values()) for p in predictor.predict(files)])  # type: ignore[union-attr]
        for predictor in (champion, Predictor.load(store, model.id))
    )
    expected = before * [1.8, 0.2] / (before * [1.8, 0.2]).sum(1, keepdims=True)
    np.testing.assert_allclose(after, expected, atol=0.02)
    version = catalog.get(store, "colours@1")
    kept = predictions(store, model.id, version, Split.TEST).probabilities
    store.delete(keys.evaluation(model.id, version.digest, Split.TEST))
    np.testing.assert_allclose(
        kept, predictions(store, model.id, version, Split.TEST).probabilities, atol=0.02
    )
    # The gates look at the part of the test split that has these shares.
    paired = paired_predictions(store, deployment, model)
    assert np.bincount(paired.labels).tolist() == [15, 2]
    # A successor that begins from it begins from what it says.
    split = Workbench(store, 1).splits("colours@1").validation
    bench = Workbench(store, 1)
    moved = logits_of(bench, model, split) - logits_of(bench, champion.model, split)
    np.testing.assert_allclose(
        moved[:, 0] - moved[:, 1], model.temperature * np.log(9.0), rtol=1e-3, atol=1e-3
    )
    assert not [key for key in references.read(store).wanted if not store.exists(key)]


def test_the_gates_have_the_last_word(
    deployed: tuple[MemoryStore, Deployment],
    answer_images: Callable[..., list[str]],
    paint_images: Callable[..., list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its champion errs nowhere on these images: a challenger that is not better is refused, whatever was estimated."""
    store, deployment = deployed
    assert deployment.model is not None
    send(store, answer_images, deployment.model, paint_images(tmp_path / "images", 30, seed=41))
    av = AutoVision(tmp_path / "store")
    for key in store.list():
        av.store.put_new(key, store.get(key).data)
    monkeypatch.setattr(adaptation, "estimate", lambda *given, seed: estimated())
    decision, verdict = av.adapt("door")
    assert verdict is not None and decision.accepted and not verdict.accepted
    assert verdict.subject == decision.subject
    assert "better_somewhere" in verdict.why
    assert av.deployment("door").model == deployment.model
    monkeypatch.setattr(adaptation, "estimate", lambda *given, seed: estimated(p_same=0.5))
    assert av.adapt("door")[1] is None
    deployments.set_champion(av.store, "door", decision.subject or "", expected=deployment.model)
    with pytest.raises(InvalidInput, match="was adapted without labels already"):
        av.adapt("door")
