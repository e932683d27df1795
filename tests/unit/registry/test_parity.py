"""How close two runtimes' answers are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from autovision.dataset import manifest
from autovision.errors import NotFound
from autovision.model import bundle
from autovision.model.inference import compile_module
from autovision.records.datasets import Split
from autovision.records.models import DecisionRule
from autovision.records.runtimes import Bound
from autovision.registry import parity
from autovision.registry.parity import Answers, Sample
from autovision.store import keys

if TYPE_CHECKING:
    from tests.unit.conftest import History, Scenes

BOUND = Bound(max_difference=0.05, agreement=0.9)


def of(*shares: float) -> np.ndarray:
    return np.array([[share, 1 - share] for share in shares])


def sample_of(n: int) -> Sample:
    return Sample("colours@1", Split.TEST, tuple(map(str, range(n))))


def test_a_sample_is_of_test_and_never_larger_than_asked_for(tiny: History) -> None:
    model, version = tiny.models[1], tiny.versions[1]
    found = parity.sample(tiny.store, model, 7)
    test = {row.image for row in manifest.read(tiny.store, version) if row.split is Split.TEST}
    assert (found.dataset, found.split, len(found.images)) == (version.id, Split.TEST, 7)
    assert set(found.images) <= test
    assert len(parity.sample(tiny.store, model, 10_000).images) == len(test)
    many_views = {**model.lineage.config, "test_time_augmentation": "dihedral"}
    turned = model.with_(lineage=model.lineage.with_(config=many_views).model_dump())
    assert len(parity.sample(tiny.store, turned, 32).images) == 8


def test_a_data_set_that_is_gone_is_not_found(tiny: History) -> None:
    store = tiny.copy()
    for version in tiny.versions:
        store.delete(keys.dataset_version(version.name, version.version))
    with pytest.raises(NotFound):
        parity.sample(store, tiny.models[0], 7)


def test_the_evaluated_runtime_agrees_with_pytorch(tiny: History) -> None:
    model = tiny.models[1]
    network, sample = bundle.load_network(tiny.store, model), parity.sample(tiny.store, model, 16)
    pixels = parity.pixels_of(tiny.store, model, sample, 1)
    compiled = compile_module(network, pixels.shape[1:3], precision="f32", threads=1)
    found = parity.compare(
        model,
        sample,
        parity.eager(model, network, pixels),
        parity.answers(model, compiled, pixels),
        Bound(max_difference=1e-3, agreement=1.0, embedding_shift=1e-3),
    )
    assert found.within and found.images == 16
    assert found.embedding_shift is not None


def test_what_differs_is_told_and_bounded(tiny: History) -> None:
    model = tiny.models[1]
    reference = of(0.9, 0.8, 0.3, 0.51)
    found = parity.compare(
        model, sample_of(4), Answers(reference, None), Answers(of(0.9, 0.8, 0.33, 0.49), None), BOUND
    )
    assert found.max_difference == pytest.approx(0.03)
    assert found.agreement == 0.75
    assert not found.within
    assert found.with_(bound=Bound(max_difference=0.05, agreement=0.7)).within
    assert not found.with_(bound=Bound(max_difference=0.02, agreement=0.7)).within
    assert "75.0% of 4 images" in str(found) and "0.03" in str(found)


def test_answers_are_compared_by_the_decision_rule(tiny: History) -> None:
    model = tiny.models[1].with_(decision=DecisionRule(kind="threshold", values=(0.2,), column=0))
    found = parity.compare(model, sample_of(1), Answers(of(0.21), None), Answers(of(0.19), None), BOUND)
    assert found.agreement == 0.0


def test_with_several_labels_every_label_has_to_be_the_same(scenes: Scenes) -> None:
    reference = np.array([[0.9, 0.1, 0.2], [0.9, 0.6, 0.2]])
    changed = np.array([[0.9, 0.1, 0.2], [0.9, 0.4, 0.2]])
    found = parity.compare(
        scenes.model, sample_of(2), Answers(reference, None), Answers(changed, None), BOUND
    )
    assert found.agreement == 0.5


def test_what_is_no_number_agrees_with_nothing(tiny: History) -> None:
    broken = of(0.9, np.nan)
    found = parity.compare(
        tiny.models[1], sample_of(2), Answers(of(0.9, 0.5), None), Answers(broken, None), BOUND
    )
    assert (found.max_difference, found.agreement, found.within) == (1.0, 0.0, False)


def test_the_shift_of_embeddings_is_in_typical_distances(tiny: History) -> None:
    p, embeddings = of(0.9, 0.8, 0.7), np.array([[0.0], [10.0], [20.0]], np.float32)

    def shift(by: np.ndarray) -> float | None:
        return parity.compare(
            tiny.models[1], sample_of(3), Answers(p, embeddings), Answers(p, embeddings + by), BOUND
        ).embedding_shift

    assert shift(np.array([[1.0]])) == pytest.approx(0.1)
    assert shift(np.array([[5.0], [0.0], [-5.0]])) == pytest.approx(0.0), "noise without a direction"
    same = Answers(p, np.ones((3, 1), np.float32))
    assert parity.compare(tiny.models[1], sample_of(3), same, same, BOUND).embedding_shift is None
