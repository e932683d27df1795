"""Corrupted validation images, of which candidates and champion say what their whole networks would."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from autovision.decisions import scores
from autovision.model import backbone as backbones
from autovision.model.inference import native_precision
from autovision.model.predictor import Scorer
from autovision.records.searches import SearchRequest
from autovision.records.trials import TrialResult
from autovision.registry.corruptions import KINDS
from autovision.registry.robustness import forms
from autovision.search import requests
from autovision.search.costing.cost import CostModel
from autovision.search.finishing import robust
from autovision.search.finishing.candidates import compare
from autovision.search.finishing.chosen import screened
from autovision.search.finishing.confirm import alike
from autovision.search.finishing.court import Court, court_of
from autovision.search.finishing.judge import Worth
from autovision.search.select import rank
from autovision.significance import chance_not_worse
from autovision.space.config import TrialConfig
from autovision.trial.trial import assemble
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History

MARGIN = 0.05


def court(tiny: History, *, cost: bool = False, **changes: Any) -> Court:
    request: SearchRequest = tiny.searches[1].with_(**{"robustness_margin": MARGIN, **changes})
    bench = Workbench(tiny.copy(), 2)
    model = CostModel(bench, bench.splits(f"{request.dataset}@{request.dataset_version}")) if cost else None
    return court_of(bench, request, math.inf, beside_champion=True, cost=model)


def ledger_of(tiny: History) -> list[TrialResult]:
    found = [r for r in requests.trials(tiny.store, tiny.searches[1].id) if r.weights_key is not None]
    return sorted(found, key=rank)


def directly(found: Court, config: TrialConfig, key: str) -> np.ndarray:
    """(N, kinds, C) logits by the whole network of a trial, of corrupted pixels as the gates make them."""
    bench, prep = found.bench, backbones.preprocessing(config)
    network = assemble(bench, config, bench.store.get(key).data, len(found.splits.version.classes))
    scorer = Scorer.as_evaluated(network, (prep.height, prep.width), native_precision(), bench.threads)
    images = found.splits.validation.images[: robust.MOST]
    pixels = np.concatenate([forms(bench.store, image, prep) for image in images])
    return scorer(pixels)[0].reshape(len(images), len(KINDS), -1)


def shares(found: Court, chances: robust.Chances) -> list[tuple[float, float]]:
    """Before and after, as they are told."""
    told = [what.split(" (")[0].split() for _, what in chances]
    assert [words[2] for words in told] == list(KINDS)
    return [(float(words[3]), float(words[5])) for words in told]


def test_heads_say_of_corrupted_images_what_their_networks_say(tiny: History) -> None:
    found = court(tiny)
    assert found.champion is not None
    truth = found.splits.validation.truth[: robust.MOST]
    champion = TrialConfig.model_validate(found.champion.lineage.config)
    refit = found.champion.lineage.refit
    assert refit is not None
    logits = directly(found, champion, refit.before_key) / found.champion.temperature
    p = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    before = scores(found.champion.decision, p.reshape(-1, p.shape[2])).reshape(p.shape).argmax(2)
    for result in ledger_of(tiny)[:3]:
        config, key = TrialConfig.model_validate(result.config), result.weights_key or ""
        told = shares(found, found.chances(key, config, math.inf))
        after = directly(found, config, key).argmax(2)
        assert told == [
            (
                pytest.approx((before[:, at] == truth).mean(), abs=6e-4),
                pytest.approx((after[:, at] == truth).mean(), abs=6e-4),
            )
            for at in range(len(KINDS))
        ]


def test_a_candidate_that_is_the_champion_is_as_robust(tiny: History) -> None:
    found = court(tiny)
    assert found.champion is not None and found.champion.lineage.refit is not None
    config = TrialConfig.model_validate(found.champion.lineage.config)
    chances = found.chances(found.champion.lineage.refit.before_key, config, math.inf)
    assert all(before == after for before, after in shares(found, chances))
    n, test = min(len(found.splits.validation), robust.MOST), len(found.splits.test)
    error = np.sqrt(1 / (n + 1) / n)
    expected = chance_not_worse(0.0, error, error * np.sqrt(n / min(test, 100)), MARGIN)
    assert [chance for chance, _ in chances] == pytest.approx([expected] * len(KINDS))


def test_the_backbone_sees_corrupted_images_once(tiny: History, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = robust.forms

    def watched(store: Any, digest: str, prep: Any) -> np.ndarray:
        made.append(digest)
        return real(store, digest, prep)

    monkeypatch.setattr(robust, "forms", watched)
    found = court(tiny)
    for result in ledger_of(tiny):
        assert found.chances(result.weights_key or "", TrialConfig.model_validate(result.config), math.inf)
    assert len(made) == len(set(made)) <= robust.MOST
    assert not [key for key in found.bench.store.list("features/") if "corrupt" in key]


def test_pixels_that_are_too_many_to_keep_are_made_for_each_pass(
    tiny: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = ledger_of(tiny)[0]
    asked = result.weights_key or "", TrialConfig.model_validate(result.config)
    kept = court(tiny).chances(*asked, math.inf)
    monkeypatch.setattr(robust, "_MOST_HELD", 0)
    assert court(tiny).chances(*asked, math.inf) == kept


def test_without_time_or_a_margin_nothing_is_looked_at(tiny: History) -> None:
    result = ledger_of(tiny)[0]
    asked = result.weights_key or "", TrialConfig.model_validate(result.config)
    assert court(tiny).chances(*asked, time.time() - 1) == ()
    assert court(tiny, robustness_margin=None).chances(*asked, math.inf) == ()
    # It is known beforehand that so many images take longer than that.
    found = court(tiny, cost=True)
    assert found.chances(*asked, time.time() + 1e-3) == ()
    assert found.chances(*asked, time.time() + 600)


def test_the_best_is_looked_at_until_it_is_known_what_corruptions_leave_of_it(
    tiny: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, ledger = court(tiny), ledger_of(tiny)
    clean = screened(court(tiny, robustness_margin=None), ledger, math.inf, math.inf)
    ranked = sorted(clean, key=clean.__getitem__, reverse=True)
    keys = {result.weights_key: result.trial for result in ledger}
    looked: list[str] = []

    def chances(self: Any, key: str, config: TrialConfig, deadline: float) -> robust.Chances:
        looked.append(keys[key])
        return ((0.0 if keys[key] == ranked[0] else 1.0, "accuracy with blur"),)

    monkeypatch.setattr(robust.Robustness, "chances", chances)
    expected = screened(found, ledger, math.inf, math.inf)
    assert looked[0] == ranked[0] and len(looked) == len(set(looked))
    assert looked[-1] == max(expected, key=expected.__getitem__)
    assert expected[ranked[0]] <= clean[ranked[0]]
    assert all(expected[trial] == clean[trial] for trial in ranked if trial not in looked)


def test_what_is_offered_to_the_gates_is_told_with_what_they_will_see(
    tiny: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = ledger_of(tiny)[0]
    config, key = TrialConfig.model_validate(result.config), result.weights_key or ""
    monkeypatch.setattr(
        robust.Robustness, "chances", lambda *asked: ((0.01, "accuracy with blur 0.9 to 0.5"),)
    )
    compared = compare(court(tiny), config, key, "trained", math.inf)
    assert compared is not None
    trained = next(each for each in compared.candidates if each.candidate == "trained")
    assert (trained.chance, trained.at_risk) == (0.01, "accuracy with blur 0.9 to 0.5")
    assert trained.expected is not None and trained.expected <= trained.value


def test_a_trial_that_there_is_no_time_to_look_at_loses_what_the_others_lost(
    tiny: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, ledger = court(tiny), ledger_of(tiny)
    clean = screened(court(tiny, robustness_margin=None), ledger, math.inf, math.inf)
    first = max(clean, key=clean.__getitem__)
    of = {result.weights_key: result.trial for result in ledger}

    def chances(self: Any, key: str, config: TrialConfig, deadline: float) -> robust.Chances:
        return ((0.0, "accuracy with blur"),) if of[key] == first else ()

    monkeypatch.setattr(robust.Robustness, "chances", chances)
    expected = screened(found, ledger, math.inf, math.inf)
    lost = clean[first] - expected[first]
    assert lost > 0
    for trial in clean.keys() - {first}:
        assert expected[trial] == pytest.approx(clean[trial] - lost)


def test_of_heads_that_are_judged_once_more_those_not_looked_at_lose_what_the_others_lost() -> None:
    clean = [Worth(0.9, 0.8), Worth(0.9, 0.7), None, Worth(0.9, 0.6)]
    spoilt = [Worth(0.9, 0.7), None, None, Worth(0.9, 0.3)]
    found = alike(clean, spoilt)
    assert (found[0], found[2], found[3]) == (spoilt[0], None, spoilt[3])
    assert found[1] is not None and found[1].expected == pytest.approx(0.7 - 0.2)
    assert alike(clean, [None] * 4) == clean
