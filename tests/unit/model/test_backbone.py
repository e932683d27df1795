"""Names, preprocessing and stages of backbones."""

from __future__ import annotations

import pytest

from autovision.errors import InvalidInput, UnknownBackbone
from autovision.model import backbone
from autovision.space.config import TrialConfig


def test_an_unknown_name_is_met_with_the_near_ones() -> None:
    with pytest.raises(UnknownBackbone, match=r"resnet81.*did you mean 'resnet18'"):
        backbone.load(TrialConfig(backbone="resnet81"))


def test_preprocessing_is_the_models_own() -> None:
    prep = backbone.preprocessing(TrialConfig(backbone="tf_efficientnet_lite0", resolution=160))
    assert (prep.height, prep.width, prep.interpolation, prep.mean) == (160, 160, "bicubic", (0.5, 0.5, 0.5))
    assert backbone.preprocessing(TrialConfig(backbone="resnet18")).mean == (0.485, 0.456, 0.406)


def test_random_weights_are_the_same_every_time() -> None:
    config = TrialConfig(backbone="test_resnet", weights="random")
    assert backbone.load(config).info.digest == backbone.load(config).info.digest


def test_more_stages_dropped_than_there_are() -> None:
    with pytest.raises(
        InvalidInput, match="drop_stages=5 leaves nothing of 'test_resnet', which has 5 stages"
    ):
        backbone.load(TrialConfig(backbone="test_resnet", weights="random", drop_stages=5))
