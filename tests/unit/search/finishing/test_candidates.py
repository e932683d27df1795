"""The champion beside the best of a re-search's trials."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.torch import load as load_tensors

from autovision.dataset import catalog
from autovision.model import bundle
from autovision.model.predictor import Predictor
from autovision.model.version import read_file, read_version
from autovision.records.datasets import Split
from autovision.records.models import FinishRecord, ModelVersion
from autovision.records.searches import SearchRequest
from autovision.records.trials import TrialResult
from autovision.registry.evaluate import predictions
from autovision.search import requests, run
from autovision.search.explain import explain
from autovision.search.finishing.court import champion_of
from autovision.search.finishing.finish import finish
from autovision.search.finishing.judge import Judge, Worth
from autovision.store import MemoryStore, keys, records
from autovision.trial.teaching import learnt_tensors, logits_of, suffix_of
from autovision.trial.trial import weights_key
from autovision.trial.workbench import Workbench
from autovision.upkeep import references

if TYPE_CHECKING:
    from tests.unit.conftest import History


@pytest.fixture
def store(tiny: History) -> MemoryStore:
    return tiny.copy()


def re_search(tiny: History, store: MemoryStore, version: int, **changes: object) -> SearchRequest:
    """On a version, with the first model as its champion."""
    found = catalog.get(store, f"colours@{version}")
    request = tiny.searches[1].with_(
        dataset_version=version,
        dataset_digest=found.digest,
        parent_model=tiny.models[0].id,
        nonce="again",
        **changes,
    )
    requests.submit(store, request)
    return request


def untrained(tiny: History, store: MemoryStore, request: SearchRequest) -> list[TrialResult]:
    """A ledger whose only trial left a head that knows nothing."""
    best = requests.trials(store, tiny.searches[0].id)[0]
    assert best.weights_key is not None
    tensors = {
        name: tensor * 0 if name.startswith("head.out") else tensor
        for name, tensor in load_tensors(store.get(best.weights_key).data).items()
    }
    data = bundle.tensors_file(tensors)
    key = weights_key(request.id, "t", data)
    store.put_immutable(key, data)
    result = best.with_(search=request.id, trial="t", weights_key=key, value=0.5, origin="sampled")
    records.create(store, keys.trial(request.id, "t"), result)
    return [result]


def record(store: MemoryStore, request: SearchRequest) -> FinishRecord:
    (found,) = records.read_all(store, keys.finishes(request.id), FinishRecord)
    return found


def spoilt(tiny: History, store: MemoryStore) -> ModelVersion:
    """The first model, which says one class whatever it sees: before and after its refit."""
    champion = tiny.models[0]
    bench = Workbench(store, 1)
    logits = logits_of(bench, champion, bench.splits("colours@1").validation)
    move = 1.2 * float(np.abs(logits[:, 0] - logits[:, 1]).max())
    assert champion.lineage.refit is not None
    own = load_tensors(read_file(store, champion, bundle.WEIGHTS_FILE))
    before = load_tensors(store.get(champion.lineage.refit.before_key).data)
    for tensors in (own, before):
        tensors["head.out.bias"] = tensors["head.out.bias"].clone()
        tensors["head.out.bias"][0] += move
    key = weights_key(champion.lineage.search, "spoilt", bundle.tensors_file(before))
    store.put_immutable(key, bundle.tensors_file(before))
    files = {
        bundle.WEIGHTS_FILE: bundle.tensors_file(own),
        bundle.REFERENCE_FILE: read_file(store, champion, bundle.REFERENCE_FILE),
    }
    version = champion.with_(
        id="colours-m-spoilt",
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        lineage=champion.lineage.with_(refit=champion.lineage.refit.with_(before_key=key)),
    )
    bundle.publish(store, version, files)
    return version


def test_a_trial_that_learnt_the_new_images_is_better_than_what_the_champion_can_be_made(
    tiny: History,
) -> None:
    request, model = tiny.searches[1], tiny.models[1]
    found = record(tiny.store, request)
    assert found.candidates[0].candidate == found.candidate
    assert found.candidate in ("trained", "from_champion")
    assert {each.candidate for each in found.candidates} == {found.candidate, "recalibrated", "unchanged"}
    values = [each.value for each in found.candidates]
    assert values == sorted(values, reverse=True)
    assert model.lineage.search == request.id and model.lineage.trial in found.trials


def test_where_nothing_is_better_the_champion_stays_the_model(tiny: History, store: MemoryStore) -> None:
    request = re_search(tiny, store, 1)
    ledger = untrained(tiny, store, request)
    bench = Workbench(store, 2)
    models = set(store.list(keys.MODELS))
    model = finish(store, request, ledger, bench)
    found = record(store, request)
    assert found.candidate in ("unchanged", "recalibrated")
    assert found.candidates[-1].candidate == "trained"
    if found.candidate == "unchanged":
        assert model == tiny.models[0]
        assert set(store.list(keys.MODELS)) == models
    assert finish(store, request, ledger, bench, deadline=time.time() - 1) == model, "the same ever after"


def test_an_unchanged_champion_makes_no_other_model(
    tiny: History, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Judge, "worth", lambda self, p, decided=None, more=(): Worth(0.0, 0.0)
    )  # all are equal
    request = re_search(tiny, store, 1)
    models = {key for key in store.list(keys.MODELS) if key.endswith(".json")}
    model = finish(store, request, untrained(tiny, store, request), Workbench(store, 2))
    assert model == tiny.models[0]
    assert {key for key in store.list(keys.MODELS) if key.endswith(".json")} == models
    requests.set_state(store, request.id, model=model.id)
    told = requests.finished(store, request.id)
    assert told is not None and told.candidate == "unchanged"
    state = requests.get(store, request.id)[1]
    assert "no candidate is better than the champion" in requests.told(request, state)


def test_a_champion_that_says_one_class_too_often_is_recalibrated(tiny: History, store: MemoryStore) -> None:
    """It knows the images as well as before: a shift of its probabilities is all that it lacks."""
    champion = spoilt(tiny, store)
    request = re_search(tiny, store, 1).with_(parent_model=champion.id)
    requests.submit(store, request)
    bench = Workbench(store, 2)
    model = finish(store, request, untrained(tiny, store, request), bench)
    found = record(store, request)
    assert found.candidate == "recalibrated"
    assert (model.id, model.lineage.trial) != (champion.id, champion.lineage.trial)
    assert model.lineage.parents == (champion.id,)
    assert (model.lineage.search, model.lineage.trial) == (request.id, "recalibrated")
    assert model.lineage.config == champion.lineage.config
    version = catalog.get(store, "colours@1")
    before, after = (predictions(store, m.id, version, Split.TEST) for m in (champion, model))
    right = [float((p.decided.argmax(1) == p.labels).mean()) for p in (before, after)]
    assert right[0] < 0.7 and right[1] > 0.9
    # It is served as what was recorded, and a successor begins from what it was before it saw validation.
    assert Predictor.load(store, model.id).model.lineage.refit == model.lineage.refit
    assert model.lineage.refit is not None and model.lineage.refit.before_key == found.chosen_key
    split = bench.splits("colours@1").validation
    moved = logits_of(bench, model, split) - logits_of(bench, champion, split)
    assert np.ptp(moved, axis=0).max() < 1e-4 and moved[0, 0] < moved[0, 1]
    requests.set_state(store, request.id, model=model.id)
    assert requests.finished(store, request.id) == found
    assert not [key for key in references.read(store).wanted if not store.exists(key)]


def test_a_trial_that_is_registered_by_name_is_not_compared(tiny: History, store: MemoryStore) -> None:
    request = re_search(tiny, store, 1)
    untrained(tiny, store, request)
    model = run.register(store, request.id, "t")
    assert (model.lineage.search, model.lineage.trial) == (request.id, "t")
    assert record(store, request).candidates == ()


@pytest.mark.parametrize("missing", ["champion", "kind", "objectives"])
def test_there_is_nothing_to_compare_where_there_is_no_champion_that_can_answer(
    tiny: History, store: MemoryStore, missing: str
) -> None:
    splits = Workbench(store, 1).splits("colours@2", tiny.models[0].id)
    request = tiny.searches[1]
    match missing:
        case "champion":
            request = request.with_(parent_model="colours-m-gone")
        case "objectives":
            request = request.with_(objectives=("size_mb",))
        case _:
            key = keys.model(tiny.models[0].id)
            store.delete(key)
            records.create(store, key, tiny.models[0].with_(multi_label=True))
    assert champion_of(store, request, splits) is None
    assert champion_of(tiny.store, tiny.searches[1], splits) == tiny.models[0]


def test_what_a_champion_is_judged_by_has_not_seen_validation(tiny: History) -> None:
    champion = tiny.models[0]
    assert champion.lineage.refit is not None
    bench = Workbench(tiny.copy(), 1)
    suffix = suffix_of(bench, tiny.space.config(tiny.space.default()), 2)
    learnt = learnt_tensors(bench.store, champion, suffix)
    served = load_tensors(read_file(bench.store, champion, bundle.WEIGHTS_FILE))
    assert not np.allclose(learnt["head.out.weight"], served["head.out.weight"])


def test_it_is_told(tiny: History) -> None:
    request = tiny.searches[1]
    state = requests.get(tiny.store, request.id)[1]
    found = explain(
        request, state, requests.trials(tiny.store, request.id), requests.finished(tiny.store, request.id)
    )
    assert len(found.candidates) == 3
    assert found.candidates[0].told.startswith("the best trial")
    assert {each.told for each in found.candidates[1:]} == {
        "the champion as it is",
        "the champion, its probabilities and decisions fitted anew",
    }
    assert read_version(tiny.store, tiny.models[1].id).lineage.parents == (tiny.models[0].id,)
