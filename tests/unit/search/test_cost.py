"""Seconds that a trial will take."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from autovision.features.views import Views
from autovision.model.flops import stage_gflops
from autovision.search.arms import arms_of
from autovision.search.cost import CostModel, config_of
from autovision.space import Choice, Integer, Space
from autovision.space.config import TrialConfig
from autovision.trial.trial import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History


def config(**changes: object) -> TrialConfig:
    return TrialConfig.model_validate(
        {"backbone": "test_resnet", "weights": "random", "resolution": 64, **changes}
    )


@pytest.fixture
def cost(tiny: History) -> CostModel:
    """Of a store that has images and no features."""
    store = tiny.copy()
    for key in list(store.list("features/")):
        store.delete(key)
    bench = Workbench(store, threads=2)
    return CostModel(bench, bench.splits("colours@1"))


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"resolution": 64}, {"resolution": 96}),
        ({"augmentation": "none"}, {"augmentation": "flip"}),
        ({"augmentation": "flip"}, {"augmentation": "dihedral"}),
        ({"unfreeze": 0}, {"unfreeze": 1}),
        ({"test_time_augmentation": "none"}, {"test_time_augmentation": "dihedral"}),
        ({"unfreeze": 1, "epochs": 9}, {"unfreeze": 1, "epochs": 90}),
        ({"unfreeze": 1, "resolution": 64}, {"unfreeze": 1, "resolution": 128}),
        ({"backbone": "test_resnet"}, {"backbone": "resnet18"}),
    ],
)
def test_more_work_is_predicted_to_take_longer(
    cost: CostModel, less: dict[str, object], more: dict[str, object]
) -> None:
    assert cost.predicted_s(config(**less)) < cost.predicted_s(config(**more))


def test_the_arithmetic_is_that_of_the_images_that_are_needed(cost: CostModel) -> None:
    stages = stage_gflops("test_resnet", 64)
    training, validation = len(cost.splits.train), len(cost.splits.validation)
    whole, views = sum(stages), 2 * training + validation
    assert cost.feature_gflops(config()) == pytest.approx((training + validation) * whole)
    assert cost.feature_gflops(config(augmentation="flip")) == pytest.approx(views * whole)
    below = sum(stages[: len(stages) - 1 - 2])
    assert cost.feature_gflops(config(augmentation="flip", unfreeze=2, drop_stages=1)) == pytest.approx(
        views * (whole + below)
    )


def test_what_is_stored_costs_nothing(cost: CostModel) -> None:
    source, channels = cost.bench.source(config()), cost.bench.channels(config())
    import numpy as np

    columns = np.arange(3 * sum(channels))[:2]
    half = cost.splits.train.images[: len(cost.splits.train) // 2]
    everything = cost.feature_gflops(config())
    source.prefix(half, Views(), cut=None, columns=columns, deadline=math.inf)
    left = len(cost.splits.train) + len(cost.splits.validation) - len(half)
    assert cost.feature_gflops(config()) == pytest.approx(left * sum(stage_gflops("test_resnet", 64)))
    for split in (cost.splits.train, cost.splits.validation):
        source.prefix(split.images, Views(), cut=None, columns=columns, deadline=math.inf)
    assert cost.feature_gflops(config()) == 0 < everything
    assert cost.predicted_s(config()) == cost.training_s(config())
    assert 0 < cost.feature_gflops(config(augmentation="flip")) < everything, "the image itself is there"


def test_the_rate_is_learnt(cost: CostModel) -> None:
    before = cost.predicted_s(config(augmentation="dihedral", unfreeze=1))
    assert cost.gflops_s == 20.0
    cost.observe(100.0, 1000.0)
    assert cost.gflops_s == pytest.approx(0.1)
    assert cost.predicted_s(config(augmentation="dihedral", unfreeze=1)) > before
    for _ in range(9):
        cost.observe(30.0, 1.0)
    assert cost.gflops_s == pytest.approx(30.0), "what was measured long ago is forgotten"
    cost.observe(1e9, 1.0)
    assert cost.gflops_s == pytest.approx(30.0), "one odd measurement decides nothing"


@pytest.mark.parametrize(("gflops", "seconds"), [(0.0, 5.0), (5.0, 0.1), (-1.0, 5.0)])
def test_what_measures_nothing_is_not_learnt_from(cost: CostModel, gflops: float, seconds: float) -> None:
    cost.observe(gflops, seconds)
    assert cost.gflops_s == 20.0


def test_an_arm_stands_for_a_configuration_of_its_space() -> None:
    class Fixed(Space):
        backbone = "test_resnet"
        weights = "random"
        resolution = 64
        unfreeze = Integer(0, 2)
        augmentation = Choice("none", "flip")

    defaults = Fixed.config(Fixed.default()).model_dump()
    for arm in arms_of(Fixed()):
        made = config_of(arm, defaults)
        assert (made.backbone, made.weights, made.resolution) == ("test_resnet", "random", 64)
        assert all(getattr(made, name) == value for name, value in arm)
