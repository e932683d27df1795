"""Which data sets look alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from autovision.features.compute import FeatureSource
from autovision.search import similarity
from autovision.search.similarity import Sketch, distance, neighbours, remember, sketch_of
from autovision.space.config import TrialConfig
from autovision.store import keys
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History

SEEN = TrialConfig(backbone="test_resnet", weights="random", resolution=64)
"""what the searches of `tiny` have computed features of"""


def drawn(history: History, mean: float, spread: float = 1.0, *, seed: int = 0) -> Sketch:
    features = np.random.default_rng(seed).normal(mean, spread, (400, 48))
    return sketch_of(features, history.versions[0])


def test_the_distance_is_that_of_two_normal_distributions(tiny: History) -> None:
    rng = np.random.default_rng(1)
    a, b = (sketch_of(rng.normal(m, s, (4000, 48)), tiny.versions[0]) for m, s in ((0.0, 1.0), (0.3, 2.0)))
    # Of isotropic ones: (difference of the means)^2 + dimensions * (difference of the deviations)^2.
    frechet = 48 * 0.3**2 + 48 * (2.0 - 1.0) ** 2
    assert distance(a, b) == pytest.approx(math.sqrt(frechet / (48 * (1 + 4))), rel=0.25)


def test_alike_is_near_and_unlike_is_far(tiny: History) -> None:
    one, same = drawn(tiny, 0.0), drawn(tiny, 0.0, seed=1)
    assert distance(one, one) == pytest.approx(0.0, abs=1e-3)
    assert distance(one, same) < 0.3 * distance(one, drawn(tiny, 1.0, seed=2))
    assert distance(one, same) == pytest.approx(distance(same, one))
    assert distance(one, same.with_(classes=20)) > distance(one, same)
    assert distance(one, same.with_(images=9000)) > distance(one, same)


def test_a_sketch_comes_from_features_that_are_there(tiny: History, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tiny.copy()
    bench = Workbench(store, threads=2)
    splits = bench.splits("colours@1")

    def refuse(*args: object) -> None:
        raise AssertionError("features were computed for a sketch")

    monkeypatch.setattr(FeatureSource, "_values", refuse)
    assert remember(bench, splits, [SEEN.with_(resolution=96)]) == [], "nobody has computed these"
    (sketch,) = remember(bench, splits, [SEEN, SEEN.with_(lr=0.5)])
    assert (sketch.dataset, sketch.name, sketch.classes) == ("colours@1", "colours", 2)
    assert sketch.images == len(splits.train)
    assert len(sketch.mean) == len(sketch.covariance) == 32
    (stored,) = (key for key in store.list("sketches/"))
    assert stored.endswith("colours@1.json") and len(store.get(stored).data) < 40_000
    assert remember(bench, splits, [SEEN]) == [sketch]


def test_the_nearest_data_sets_come_first_each_once(tiny: History) -> None:
    store = tiny.copy()
    bench = Workbench(store, threads=2)
    splits = bench.splits("colours@1")
    assert neighbours(bench, splits, [SEEN]) == [], "a data set is not like itself"
    (own,) = remember(bench, splits, [SEEN])
    spec = similarity._spec(bench, SEEN)

    def other(name: str, version: int, shift: float, **changes: object) -> None:
        mean = tuple(
            value + shift * math.sqrt(row[i])
            for i, (value, row) in enumerate(zip(own.mean, own.covariance, strict=True))
        )
        sketch = own.with_(dataset=f"{name}@{version}", name=name, mean=mean, **changes)
        store.put_new(keys.sketch(spec, sketch.dataset), sketch.to_json())

    other("near", 1, 5.0)
    other("near", 2, 0.1)
    other("nearer", 1, 0.05)
    other("far", 1, 50.0)
    other("scenes", 1, 0.0, multi_label=True)
    found = neighbours(bench, splits, [SEEN])
    assert [(one.name, one.dataset) for one in found] == [("nearer", "nearer@1"), ("near", "near@2")]
    assert 0 < found[0].distance < found[1].distance < 0.3
