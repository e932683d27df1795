"""A champion with the BatchNorm statistics of what production sends."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.torch import load as load_tensors

from autovision.dataset import catalog
from autovision.model import bundle
from autovision.model.predictor import Predictor
from autovision.model.version import read_file
from autovision.promotion import rollout
from autovision.records.datasets import Split
from autovision.records.deployments import DecisionKind, DriftReport, RetrainingPolicy
from autovision.registry import deployments
from autovision.registry.evaluate import predictions
from autovision.retraining import adaptation, renormalization
from autovision.retraining.renormalization import Gain, decide, gain
from autovision.search.finishing.court import champion_of
from autovision.store import MemoryStore, captures, keys
from autovision.trial.workbench import Workbench
from autovision.upkeep import references
from tests.unit.retraining.test_adaptation import estimated

if TYPE_CHECKING:
    from tests.unit.conftest import History


def test_the_estimate_knows_of_a_confidence_that_came_back() -> None:
    """Held-out answers are right at 0.9 where they are sure; requests are answered unsurely, and surely again."""
    rng = np.random.default_rng(0)
    right = rng.random(500) < 0.9
    held_out = np.where(right, rng.uniform(0.8, 1.0, 500), rng.uniform(0.5, 0.8, 500))
    sure, unsure = (rng.uniform(low, low + 0.4, 200) for low in (0.62, 0.5))
    found = gain(held_out, right, unsure, sure, seed=0)
    assert found.before == pytest.approx((unsure >= 0.8).mean(), abs=0.03)
    assert found.after == pytest.approx((sure >= 0.8).mean(), abs=0.03)
    assert 0 < found.low < found.after - found.before
    assert gain(held_out, right, sure, unsure, seed=0).low < 0
    same = gain(held_out, right, sure, sure, seed=0)
    assert same.low == 0 and not decide(same).accepted
    assert gain(held_out, right, unsure, sure, seed=0) == found


@pytest.mark.parametrize(("low", "accepted"), [(0.01, True), (0.0, False), (-0.1, False)])
def test_it_is_done_only_where_accuracy_is_sure_to_gain(low: float, accepted: bool) -> None:
    verdict = decide(Gain(0.6, 0.8, low, 100))
    assert verdict.accepted is accepted and "goes from 0.600 to 0.800" in verdict.why


@pytest.fixture
def shifted(tiny: History, serve_images: Callable[..., list[tuple[str, str]]], tmp_path: Path) -> MemoryStore:
    """Where 40 images of another kind were answered."""
    store = tiny.copy()
    deployments.create(store, "door", "colours", tiny.space.to_json(), RetrainingPolicy(window=40))
    deployments.set_champion(store, "door", tiny.models[0].id, expected=None)
    serve_images(store, tiny.models[0].id, tmp_path, 40, seed=51, shifted=True)
    return store


def test_a_challenger_has_other_statistics_and_is_judged_as_it_would_serve(
    tiny: History, shifted: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, champion = shifted, tiny.models[0]
    monkeypatch.setattr(adaptation, "estimate", lambda *given, seed: estimated(p_only_shares=0.01))
    monkeypatch.setattr(renormalization, "gain", lambda *given, seed: Gain(0.6, 0.8, 0.1, 40))
    found = adaptation.consider(store, "door")
    model = found.model
    assert model is not None and found.decision.accepted and found.decision.subject == model.id
    assert "more than the shares of the classes has changed" in found.decision.why
    assert model.renormalized and model.lineage.parents == (champion.id,)
    before, after = (load_tensors(read_file(store, m, bundle.WEIGHTS_FILE)) for m in (champion, model))
    changed = {name for name, tensor in after.items() if not tensor.equal(before[name])}
    assert changed and all(name.endswith(("running_mean", "running_var")) for name in changed)
    version = catalog.get(store, "colours@1")
    kept = predictions(store, model.id, version, Split.TEST).probabilities
    store.delete(keys.evaluation(model.id, version.digest, Split.TEST))
    again = predictions(store, model.id, version, Split.TEST).probabilities
    np.testing.assert_allclose(kept, again, atol=0.02)
    served = Predictor.load(store, model.id)
    seen = captures.read(store, "door").captures
    answers = served.predict([captures.read_image(store, each) for each in seen])
    assert len(answers) == 40
    assert not [key for key in references.read(store).wanted if not store.exists(key)]
    # The gates have the last word, and ask for something better.
    decision = rollout.consider(store, "door", model.id)
    assert decision.subject == model.id and "better_somewhere" in {
        g["name"] for g in decision.numbers["gates"]
    }
    # Its weights alone, on stored features, do not say what it says: a re-search compares with nobody.
    request = tiny.searches[1].with_(parent_model=model.id)
    assert champion_of(store, request, Workbench(store, 1).splits("colours@1")) is None


def test_where_the_estimate_gains_nothing_there_is_no_challenger(
    shifted: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "estimate", lambda *given, seed: estimated(p_only_shares=0.01))
    monkeypatch.setattr(renormalization, "gain", lambda *given, seed: Gain(0.8, 0.8, -0.1, 40))
    models = list(shifted.list(keys.MODELS))
    found = adaptation.consider(shifted, "door")
    assert found.model is None and not found.decision.accepted
    assert (
        "labels are needed" in found.decision.why and found.decision.numbers["batchnorm"]["gain_low"] == -0.1
    )
    assert list(shifted.list(keys.MODELS)) == models


def test_without_pixels_there_is_nothing_to_estimate_from(
    tiny: History, shifted: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for capture in captures.read(shifted, "door").captures:
        shifted.delete(captures.image_key(capture))
    monkeypatch.setattr(adaptation, "estimate", lambda *given, seed: estimated(p_only_shares=0.01))
    found = adaptation.consider(shifted, "door")
    assert found.model is None and "batchnorm" not in found.decision.numbers
    assert found.decision.why.endswith("; labels are needed")


def test_an_alarm_is_answered_once(
    tiny: History, shifted: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = captures.read(shifted, "door").captures
    report = DriftReport(
        id="20260601T000000.000000-000001",
        deployment="door",
        model=tiny.models[0].id,
        n=40,
        reference_n=40,
        first_request=seen[0].request_id,
        last_request=seen[-1].request_id,
        window_start=seen[0].received_at,
        window_end=seen[-1].received_at,
        score=1.0,
        threshold=0.1,
        p_value=0.001,
        alpha=0.01,
        alarm=True,
        created_at=seen[-1].received_at,
    )
    monkeypatch.setattr(adaptation, "estimate", lambda *given, seed: estimated(p_same=0.5))
    ticks = itertools.count(1)

    def clock() -> datetime:
        return seen[-1].received_at + timedelta(seconds=next(ticks))

    first = adaptation.answer(shifted, "door", report, seed=0, clock=clock)
    assert (first.kind, first.accepted, first.numbers["report"]) == (DecisionKind.ADAPT, False, report.id)
    assert adaptation.answer(shifted, "door", report, seed=1, clock=clock) == first
    # What cannot be answered so is said, and is no fault.
    late = report.with_(id="20260601T000000.000000-000002", window_start=seen[20].received_at)
    told = adaptation.answer(shifted, "door", late, seed=0, clock=clock)
    assert not told.accepted and "20 captured requests, and 40 are needed" in told.why
