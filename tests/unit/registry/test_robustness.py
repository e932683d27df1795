"""What models say of corrupted images is computed once, from the same images for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from autovision import image
from autovision.dataset.loader import load_image
from autovision.model.predictor import Predictor
from autovision.records.datasets import Split
from autovision.registry import robustness
from autovision.registry.corruptions import KINDS, corrupted
from autovision.registry.evaluate import predictions
from autovision.registry.robustness import corrupted_predictions, images_for
from autovision.store import MemoryStore

if TYPE_CHECKING:
    from tests.unit.conftest import History


@pytest.fixture
def store(tiny: History) -> MemoryStore:
    return tiny.copy()


def test_they_are_computed_once_and_are_those_of_the_corrupted_images(
    tiny: History, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, version = tiny.models[0], tiny.versions[0]
    monkeypatch.setattr(robustness, "_AT_ONCE", 3)
    found = corrupted_predictions(store, model.id, version, Split.TEST, 7)
    plain = predictions(store, model.id, version, Split.TEST)
    assert list(found) == list(KINDS)
    predictor = Predictor.load(store, model.id)
    for kind, said in found.items():
        assert said.images == plain.images[:7] and list(said.labels) == list(plain.labels[:7])
        assert said.rule == model.decision
        forms = [corrupted(load_image(store, digest), digest, kind) for digest in said.images]
        pixels = np.stack([image.preprocess(each, model.preprocessing) for each in forms])
        np.testing.assert_allclose(said.probabilities, predictor.score(pixels)[0], atol=1e-5)
    monkeypatch.setattr(Predictor, "load", lambda *args, **options: pytest.fail("it was run again"))
    again = corrupted_predictions(store, model.id, version, Split.TEST, 7)
    for kind in KINDS:
        np.testing.assert_array_equal(again[kind].probabilities, found[kind].probabilities)


def test_models_that_look_at_many_views_get_fewer_images(tiny: History) -> None:
    plain = tiny.models[0]
    config = {**plain.lineage.config, "test_time_augmentation": "dihedral"}
    eightfold = plain.with_(lineage=plain.lineage.with_(config=config))
    assert images_for(800, plain, plain) == 800
    assert images_for(800, plain, eightfold) == 100
    assert images_for(100, eightfold, plain) == 32
    assert images_for(20, eightfold, plain) == 20
