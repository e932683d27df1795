"""Training the winner again on train and validation together."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load as load_tensors

from autovision.errors import AutoVisionError
from autovision.model import bundle
from autovision.model.version import read_file
from autovision.records.datasets import Split
from autovision.records.models import ModelVersion
from autovision.records.trials import CurvePoint
from autovision.search import requests
from autovision.search.costing.cost import CostModel
from autovision.search.finishing import chosen, refit
from autovision.search.finishing.finish import finish
from autovision.search.select import best_trial
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore, keys
from autovision.trial.trial import Trial
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History


def untried(tiny: History, store: MemoryStore, bench: Workbench, **changes: object) -> ModelVersion:
    """The second search's ledger, finished as if it were another search's."""
    request = tiny.searches[1].with_(nonce="again", **changes)
    return finish(store, request, requests.trials(store, tiny.searches[1].id), bench)


def test_it_learns_from_validation_images_under_the_views_of_training(
    tiny: History, bench: Workbench
) -> None:
    config = tiny.space.config(tiny.space.default()).with_(augmentation="flip", epochs=3)
    trial = Trial(bench, "colours@2", config, 0, math.inf)
    before = trial.splits
    data = trial.refit(2)
    learnt = trial.training.problem.train
    assert set(learnt.labelled.images) == {*before.train.images, *before.validation.images}
    assert learnt.prefix.views == 2
    target = dict(zip(before.validation.images, before.validation.targets.tolist(), strict=True))
    learnt_targets = dict(zip(learnt.labelled.images, learnt.labelled.targets.tolist(), strict=True))
    assert {image: learnt_targets[image] for image in target} == target
    assert trial.training.epoch == 2 and trial.training.config.epochs == 3
    assert data == Trial(bench, "colours@2", config, 0, math.inf).refit(2), "the same each time"
    assert data != Trial(bench, "colours@2", config, 1, math.inf).refit(2)


def test_unfrozen_stages_are_trained_again_too(tiny: History, bench: Workbench) -> None:
    config = tiny.space.config(tiny.space.default()).with_(unfreeze=1, epochs=2)
    trained = load_tensors(Trial(bench, "colours@1", config, 0, math.inf).refit(1))
    assert any(name.startswith("upper.") for name in trained)


def test_the_model_is_what_was_trained_again_and_says_so(tiny: History) -> None:
    request, model, version = tiny.searches[1], tiny.models[1], tiny.versions[1]
    images = sum(sum(version.counts[split].values()) for split in (Split.TRAIN, Split.VALIDATION))
    assert model.lineage.refit is not None
    assert model.lineage.refit.images == images
    won = next(r for r in requests.trials(tiny.store, request.id) if r.trial == model.lineage.trial)
    assert model.lineage.refit.epochs[won.trial] == refit.epochs_of(won, request.metric)
    assert list(tiny.store.list(keys.finishes(request.id)))


def test_without_it_the_weights_are_those_of_the_trial(
    tiny: History, store: MemoryStore, bench: Workbench
) -> None:
    plain, again = (untried(tiny, store, bench, refit=on, soup=False, confirm=False) for on in (False, True))
    assert plain.lineage.refit is None and plain.lineage.notes == ()
    assert plain.files != again.files and plain.id != again.id


def test_what_was_decided_once_stands(
    tiny: History, store: MemoryStore, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another time there might be no seconds left, or a refit might fail: the model is the same."""
    request = tiny.searches[1].with_(nonce="again")
    ledger = requests.trials(store, tiny.searches[1].id)
    first = finish(store, request, ledger, bench)
    monkeypatch.setattr(refit, "refit", None)
    assert finish(store, request, ledger, bench, deadline=time.time() - 5) == first


def test_it_is_left_out_where_the_budget_has_no_room(
    tiny: History, store: MemoryStore, bench: Workbench
) -> None:
    request = tiny.searches[1].with_(nonce="late", soup=False, confirm=False)
    model = finish(
        store, request, requests.trials(store, tiny.searches[1].id), bench, deadline=time.time() - 1
    )
    assert model.lineage.refit is None
    (note,) = model.lineage.notes
    assert note.startswith("no refit: it would take about") and note.endswith("0 s are left")
    best = best_trial(requests.trials(store, tiny.searches[1].id))
    assert best is not None
    record = chosen.choose(
        store,
        request,
        requests.trials(store, tiny.searches[1].id),
        bench,
        None,
        0.0,  # type: ignore[arg-type]
    )
    assert record.final_key == record.chosen_key == best.weights_key


@pytest.mark.parametrize("failure", ["diverged", "time"])
def test_one_that_fails_leaves_the_trials_own_weights(
    tiny: History, store: MemoryStore, bench: Workbench, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Trial.refit

    def fail(trial: Trial, epochs: int) -> bytes:
        if failure == "time":
            trial.deadline = time.time() - 1
            return trained(trial, epochs)
        trial.config = trial.config.with_(lr=10.0, clip_norm=0.0, optimizer="sgd", weight_decay=1.0)
        trained(trial, epochs)
        head = trial.suffix.head
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.fill_(math.nan)
        return trial.trained()

    monkeypatch.setattr(Trial, "refit", fail)
    model = untried(tiny, store, bench, soup=False, confirm=False)
    (note,) = model.lineage.notes
    assert model.lineage.refit is None
    assert ("diverged" if failure == "diverged" else "the budget ended before") in note


def test_epochs_are_those_of_the_best_rung_or_the_one_that_patience_went_back_to(tiny: History) -> None:
    best = best_trial(requests.trials(tiny.store, tiny.searches[0].id))
    assert best is not None
    values = {"accuracy": 0.9, "neg_log_loss": -0.3}
    worse = {"accuracy": 0.7, "neg_log_loss": -0.6}

    def point(epoch: int, metrics: dict[str, float], judged: int | None = None) -> CurvePoint:
        return CurvePoint(
            rung=0, epoch=epoch, seconds=1, search_s=1, train_loss=1, metrics=metrics, judged_epoch=judged
        )

    rungs = best.with_(curve=(point(1, worse), point(3, values), point(9, worse)))
    assert refit.epochs_of(rungs, "accuracy") == 3
    patient = best.with_(curve=(point(1, worse), point(8, values, judged=5)))
    assert refit.epochs_of(patient, "accuracy") == 5


def test_of_heads_that_were_trained_together_epochs_are_those_of_the_last_rung(tiny: History) -> None:
    """Their value and their weights are those that they ended with, whatever an earlier rung was."""
    request = tiny.searches[1]
    best = best_trial(requests.trials(tiny.store, request.id))
    assert best is not None

    def point(rung: int, epoch: int, accuracy: float, judged: int | None = None) -> CurvePoint:
        metrics = {"accuracy": accuracy, "neg_log_loss": -0.3}
        return CurvePoint(
            rung=rung, epoch=epoch, seconds=1, search_s=1, train_loss=1, metrics=metrics, judged_epoch=judged
        )

    curve = (point(0, 1, 0.7), point(1, 3, 0.9), point(2, 9, 0.8))
    assert refit.epochs_of(best.with_(curve=curve, batch="b"), "accuracy") == 9
    assert refit.epochs_of(best.with_(curve=curve, batch=None), "accuracy") == 3
    patient = (*curve[:2], point(2, 9, 0.8, judged=6))
    assert refit.epochs_of(best.with_(curve=patient, batch="b"), "accuracy") == 6


def test_patience_reports_the_epoch_that_it_went_back_to(tiny: History, bench: Workbench) -> None:
    config = tiny.space.config(tiny.space.default()).with_(epochs=40, patience=2, lr=0.3)
    trial = Trial(bench, "colours@1", config, 0, math.inf)
    last = list(trial.run())[-1]
    assert last.judged_epoch is not None and last.judged_epoch <= last.epoch
    if last.epoch < 40:
        assert last.epoch - last.judged_epoch == 2


def test_the_prediction_grows_with_what_is_missing(tiny: History, bench: Workbench) -> None:
    cost = CostModel(bench, bench.splits("colours@2"))
    request = tiny.searches[1]
    best = best_trial(requests.trials(tiny.store, request.id))
    assert best is not None
    stored = refit.predicted_s(cost, request, [best])
    views = TrialConfig.model_validate(best.config).with_(augmentation="dihedral", resolution=96)
    missing = refit.predicted_s(cost, request, [best.with_(config=views.model_dump(mode="json"))])
    assert 0 < stored < missing
    assert refit.predicted_s(cost, request, [best, best]) > stored


def test_a_failure_is_an_error_of_ours(tiny: History, bench: Workbench) -> None:
    best = best_trial(requests.trials(tiny.store, tiny.searches[1].id))
    assert best is not None
    with pytest.raises(AutoVisionError, match="the budget ended before it was trained"):
        refit.refit(bench, tiny.searches[1], best, deadline=0.0)
    assert keys.finish("s", "d") == "searches/s/finishes/d.json"


def test_a_later_trial_starts_from_the_head_that_has_not_seen_validation(tiny: History) -> None:
    model, config = tiny.models[1], TrialConfig.model_validate(tiny.models[1].lineage.config)
    assert model.lineage.refit is not None
    later = Trial(Workbench(tiny.store, 1), "colours@2", config, 0, math.inf, initial=model.id)
    head, before = later._initial(), load_tensors(tiny.store.get(model.lineage.refit.before_key).data)
    assert head is not None
    assert all(torch.equal(tensor, before[name]) for name, tensor in head.items())
    served = load_tensors(read_file(tiny.store, model, bundle.WEIGHTS_FILE))
    assert any(not torch.equal(tensor, served[name]) for name, tensor in head.items())
