"""From a ledger to a registered model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from autovision.dataset import manifest
from autovision.dataset.loader import load_pixels
from autovision.decisions import scores
from autovision.errors import AutoVisionError
from autovision.model import bundle
from autovision.model.inference import native_precision
from autovision.model.predictor import Prediction, Predictor
from autovision.provenance import code_version, package_versions
from autovision.records.datasets import Split
from autovision.records.models import DecisionRule, FinishRecord, ModelVersion
from autovision.records.trials import TrialResult, TrialState
from autovision.registry.evaluate import predictions
from autovision.search import requests
from autovision.search.finishing import finish as finishing
from autovision.search.finishing.finish import finish
from autovision.search.select import best_trial
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore, keys, records
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History, Scenes


def images(tiny: History, *splits: Split) -> list[list[str]]:
    rows = manifest.read(tiny.store, tiny.versions[1])
    return [sorted(row.image for row in rows if row.split is split) for split in splits]


def test_the_same_ledger_gives_the_same_model(tiny: History, store: MemoryStore, bench: Workbench) -> None:
    request, model = tiny.searches[1], tiny.models[1]
    ledger = requests.trials(store, request.id)
    before = {key: store.get(key).data for key in store.list()}
    assert finish(store, request, ledger, bench) == model
    assert finish(store, request, ledger[::-1], bench) == model
    assert {key: store.get(key).data for key in store.list()} == before

    for key in [*store.list(keys.MODELS), *store.list("evaluations/")]:
        store.delete(key)
    again = finish(store, request, ledger, bench)
    assert again.with_(created_at=model.created_at) == model, "on a store that lost it"


def test_the_winner_is_the_best_of_those_that_were_judged_once_more(tiny: History) -> None:
    for request, model in zip(tiny.searches, tiny.models, strict=True):
        (record,) = records.read_all(tiny.store, keys.finishes(request.id), FinishRecord)
        ledger = {result.trial: result for result in requests.trials(tiny.store, request.id)}
        assert {each.trial for each in record.confirmed} == set(ledger)
        assert model.lineage.trial == record.confirmed[0].trial
        assert model.lineage.config == ledger[model.lineage.trial].config


def test_the_winner_is_the_best_on_validation_where_nothing_is_judged_once_more(
    tiny: History, store: MemoryStore, bench: Workbench
) -> None:
    request = tiny.searches[1].with_(nonce="again", confirm=False)
    ledger = requests.trials(store, tiny.searches[1].id)
    best = best_trial(ledger)
    assert best is not None
    assert finish(store, request, ledger, bench).lineage.trial == best.trial


def test_another_winner_is_another_model(tiny: History, store: MemoryStore, bench: Workbench) -> None:
    request, model = tiny.searches[1], tiny.models[1]
    others = [r for r in requests.trials(store, request.id) if r.trial != model.lineage.trial]
    other = finish(store, request, others, bench)
    assert other.id != model.id
    assert other.lineage.trial == others[0].trial


def test_the_lineage_names_all_that_the_model_came_from(tiny: History) -> None:
    request, model, version = tiny.searches[1], tiny.models[1], tiny.versions[1]
    lineage = model.lineage
    assert (lineage.search, lineage.seed) == (request.id, request.seed)
    assert (lineage.dataset, lineage.dataset_digest) == (version.id, version.digest)
    assert lineage.space_fingerprint == tiny.space.fingerprint
    assert lineage.parents == (tiny.models[0].id,)
    assert tiny.models[0].lineage.parents == ()
    config = TrialConfig.model_validate(lineage.config)
    assert lineage.backbone == config.backbone == "test_resnet"
    assert lineage.backbone_weights_digest == Workbench(tiny.store, 1).source(config).loaded.info.digest
    assert lineage.backbone_weights_source.startswith("random")
    assert lineage.backbone_weights_license == "none"
    assert lineage.code_version == code_version()
    assert lineage.packages == package_versions()


def test_the_model_is_described_as_it_is_served(tiny: History) -> None:
    model = tiny.models[1]
    assert model.temperature > 0
    assert model.precision == native_precision()
    assert (model.classes, model.positive_class) == (
        tiny.versions[1].classes,
        tiny.versions[1].positive_class,
    )
    assert (model.preprocessing.height, model.preprocessing.width) == (64, 64)
    assert model.dataset == "colours"
    assert set(model.files) == {bundle.WEIGHTS_FILE, bundle.REFERENCE_FILE}


def test_the_reference_is_what_the_served_model_makes_of_validation_and_test(tiny: History) -> None:
    model = tiny.models[1]
    validation, test = images(tiny, Split.VALIDATION, Split.TEST)
    predictor = Predictor.load(tiny.store, model.id, threads=2)
    pixels = load_pixels(tiny.store, [*validation, *test], model.preprocessing, threads=2)
    reference = bundle.load_reference(tiny.store, model)
    assert len(reference) == len(validation) + len(test)
    np.testing.assert_allclose(reference, predictor.score(pixels)[1], rtol=1e-3, atol=1e-4)
    (training,) = images(tiny, Split.TRAIN)
    assert not set(training) & {*validation, *test}


def test_the_test_split_is_evaluated_and_its_predictions_are_kept(tiny: History) -> None:
    model, version = tiny.models[1], tiny.versions[1]
    kept = predictions(tiny.store, model.id, version, Split.TEST)
    right = float((kept.probabilities.argmax(1) == kept.labels).mean())
    test = model.metrics["test"]
    assert (test.n, test.dataset, test.split) == (len(kept), version.id, Split.TEST)
    assert test.accuracy.value == pytest.approx(right)
    assert tiny.store.exists(keys.evaluation(model.id, version.digest, Split.TEST))
    # What is kept is what the bundle answers.
    pixels = load_pixels(tiny.store, kept.images, model.preprocessing, threads=2)
    served = Predictor.load(tiny.store, model.id, threads=2).score(pixels)[0]
    np.testing.assert_allclose(kept.probabilities, served, atol=1e-5)


def test_a_search_without_any_trial_says_what_to_do(
    tiny: History, store: MemoryStore, bench: Workbench
) -> None:
    with pytest.raises(AutoVisionError, match="could not begin a single trial in its budget of 600 s"):
        finish(store, tiny.searches[0], [], bench)


def test_a_search_whose_trials_all_failed_names_their_errors(
    tiny: History, store: MemoryStore, bench: Workbench, line: Callable[..., TrialResult]
) -> None:
    failed = [line(i, None, error="Traceback\n  line\nValueError: no memory\n") for i in range(3)]
    stopped = line(3, None, state=TrialState.STOPPED, error=None)
    with pytest.raises(
        AutoVisionError, match=r"none of 4 trials .* \(3 x ValueError: no memory; 1 x no error given\)"
    ):
        finish(store, tiny.searches[0], [*failed, stopped], bench)
    before = set(store.list(keys.MODELS))
    assert before == set(tiny.store.list(keys.MODELS))


def test_a_model_of_several_classes_is_calibrated_and_evaluated_as_such(scenes: Scenes) -> None:
    model, test = scenes.model, scenes.model.metrics["test"]
    assert model.multi_label and model.positive_class is None
    assert model.temperature != 1.0
    assert test.accuracy.value > 0.8 > 2 * test.majority_accuracy
    assert test.average_precision is not None and test.average_precision > 0.95
    assert test.confusion == () and set(test.per_class_recall) == set(model.classes)


def test_the_rule_is_what_the_model_answers_by_wherever_it_is_asked(
    tiny: History, store: MemoryStore, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The classes of these images are told apart so well that validation would choose no rule.
    rule = DecisionRule(kind="costs", costs=((0.0, 1.0), (0.0, 1.0)), why="for the test")
    monkeypatch.setattr(finishing, "choose_rule", lambda *args, **options: rule)
    request = tiny.searches[1].with_(nonce="rule")
    model = finish(store, request, requests.trials(store, tiny.searches[1].id), bench)
    assert model.decision == rule
    assert records.read(store, keys.model(model.id), ModelVersion) == model
    version = tiny.versions[1]
    kept = predictions(store, model.id, version, Split.TEST)
    decided = scores(rule, kept.probabilities)
    assert (decided.argmax(1) != kept.probabilities.argmax(1)).any()
    assert model.metrics["test"].accuracy.value == pytest.approx(
        float((decided.argmax(1) == kept.labels).mean())
    )
    served = Predictor.load(store, model.id, threads=2).predict(
        [store.get(keys.image(image)).data for image in kept.images]
    )
    answered = [model.classes[column] for column in decided.argmax(1)]
    assert [said.label for said in served if isinstance(said, Prediction)] == answered


def test_models_of_before_decision_rules_read_as_they_were_meant(tiny: History) -> None:
    fields = json.loads(tiny.models[0].to_json())
    for later in ("decision", "metric", "costs"):
        fields.pop(later)
    assert ModelVersion.model_validate(fields).decision == DecisionRule()
