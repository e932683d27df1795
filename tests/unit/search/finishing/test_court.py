"""What a champion says of images that it has not seen, beside which candidates are judged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.torch import load as load_tensors

from autovision.features.compute import OutOfTime
from autovision.records.searches import SearchRequest
from autovision.search import requests
from autovision.search.finishing import court as module
from autovision.search.finishing.chosen import screened
from autovision.search.finishing.court import Court, court_of
from autovision.trial import folds
from autovision.trial.tasting import Tasting
from autovision.trial.teaching import logits_of
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History


def court(tiny: History, *, beside_champion: bool = True, **changes: Any) -> Court:
    request: SearchRequest = tiny.searches[1].with_(**changes)
    bench = Workbench(tiny.copy(), 2)
    return court_of(bench, request, time.time() + 60, beside_champion=beside_champion)


def test_it_speaks_of_validation_and_of_nothing_that_it_was_trained_on(tiny: History) -> None:
    found = court(tiny)
    assert found.champion == tiny.models[0]
    said, train = found.everything.champion, found.splits.train
    assert said is not None and np.isnan(said[: len(train)]).all()
    logits = logits_of(found.bench, tiny.models[0], found.splits.validation)
    of_validation = found.validation.champion
    assert of_validation is not None
    np.testing.assert_array_equal(of_validation.argmax(1), logits.argmax(1))
    assert len(found.validation.truth) == len(found.splits.validation)


def test_cross_validated_it_speaks_of_old_images_by_heads_that_never_saw_anything_new(
    tiny: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = court(tiny)
    judge, seen = folds.cross_validated, []

    def watched(bench: Any, splits: Any, *rest: Any) -> Any:
        seen.append(splits.train)
        return judge(bench, splits, *rest)

    monkeypatch.setattr(folds, "cross_validated", watched)
    later = found.cross_validated(time.time() + 60)
    train = found.splits.train
    assert train.new is not None
    (used,) = seen
    assert used.images == tuple(i for i, new in zip(train.images, train.new.tolist(), strict=True) if not new)
    said = later.everything.champion
    assert said is not None and np.isfinite(said).all()
    new = train.new.numpy()
    right = said[: len(train)].argmax(1) == train.truth
    assert right[~new].mean() > 0.9 > right[new].mean()
    np.testing.assert_array_equal(later.validation.champion, found.validation.champion)


def test_where_time_is_short_validation_has_to_do(tiny: History, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*rest: Any) -> Any:
        raise OutOfTime

    found = court(tiny)
    monkeypatch.setattr(folds, "cross_validated", late)
    later = found.cross_validated(time.time() + 60)
    assert later.everything.champion is not None
    assert np.isnan(later.everything.champion[: len(found.splits.train)]).all()
    monkeypatch.setattr(module, "logits_of", lambda *rest, **more: late())
    nobody = court(tiny)
    even = np.full((len(nobody.splits.validation), 2), 0.5)
    assert nobody.champion is None and nobody.validation.worth(even).chance == 1.0


def test_the_parts_are_those_that_the_gates_look_at_with_the_sizes_of_the_test_split(tiny: History) -> None:
    found = court(tiny)
    test = found.splits.test
    parts = {part.name: part for part in found.everything.parts}
    assert set(parts) == {"all images", "blue", "red"}
    assert parts["all images"].held_out == len(test)
    assert (parts["red"].held_out, parts["red"].of_class) == (len(test), int((test.truth == 1).sum()))
    assert all(part.rows.all() for part in parts.values()), (
        "it knows all classes, of old and new images alike"
    )
    assert court(tiny, margin=0.1).everything.margin == 0.1


def test_images_of_a_class_that_the_champion_does_not_know_are_none_to_lose(
    tiny: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = module.champion_of

    def younger(*asked: Any) -> Any:
        found = read(*asked)
        return found.with_(classes=("blue", "yellow"))

    monkeypatch.setattr(module, "champion_of", younger)
    found = court(tiny)
    parts = {part.name: part for part in found.everything.parts}
    test = found.splits.test.truth
    np.testing.assert_array_equal(parts["all images"].rows, found.everything.truth == 0)
    assert parts["all images"].held_out == int((test == 0).sum())
    assert parts["red"].of_class == 0


@pytest.mark.parametrize("changes", [{"parent_model": None}, {"parent_model": "gone"}])
def test_without_a_champion_there_is_nobody_to_compare_with(tiny: History, changes: dict[str, Any]) -> None:
    found = court(tiny, **changes)
    assert found.champion is None and found.everything.champion is None
    assert court(tiny, beside_champion=False).champion is None


def test_trials_are_screened_by_what_is_expected_of_them(tiny: History) -> None:
    found = court(tiny)
    ledger = requests.trials(tiny.store, tiny.searches[1].id)
    expected = screened(found, ledger, time.time() + 60, time.time() + 60)
    assert expected.keys() == {result.trial for result in ledger}
    best = min(ledger, key=lambda result: (-(result.value or 0.0), result.number))
    assert list(screened(found, ledger, time.time() - 1, time.time() - 1)) == [best.trial], (
        "the very best in any case"
    )
    config = tiny.space.config(tiny.space.default()).model_validate(best.config)
    tensors = load_tensors(found.bench.store.get(best.weights_key or "").data)
    p = found.probabilities(Tasting(found.bench, found.splits.validation, config).logits(tensors))
    assert expected[best.trial] == found.validation.worth(p).expected
    assert found.validation.worth(p).value == pytest.approx(best.value, abs=1e-5)
