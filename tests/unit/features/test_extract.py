"""The frozen part of a network as one module."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autovision.features.extract import FrozenPrefix, Shapes, shapes_of
from autovision.model import backbone as backbones
from autovision.model.heads import POOLS, pool
from autovision.model.network import Normalize
from autovision.model.stages import channels_of
from autovision.space.config import TrialConfig

BACKBONES = ["test_resnet", "test_vit"]


def loaded(backbone: str) -> tuple[backbones.StagedBackbone, backbones.Preprocessing]:
    config = TrialConfig(backbone=backbone, weights="random", resolution=64)
    return backbones.load(config).staged, backbones.preprocessing(config)


def pixels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_both_outputs_are_what_the_stages_give_one_after_the_other(backbone: str) -> None:
    staged, prep = loaded(backbone)
    shapes = shapes_of(staged, prep)
    with torch.inference_mode():
        outputs = [Normalize(prep)(pixels())]
        for stage in staged.stages:
            outputs.append(stage(outputs[-1]))
        positions = [staged.spatial(x, index) for index, x in enumerate(outputs[1:])]
        everything = torch.cat([pool(x, how) for x in positions for how in POOLS], 1)
        for cut, stages in [(2, [0, 1]), (2, [0, len(staged) - 1]), (0, [1]), (3, [])]:
            found = FrozenPrefix(staged, prep, cut, stages)(pixels())
            activation, pooled = found if stages else (found, None)
            torch.testing.assert_close(activation, outputs[cut])
            assert tuple(activation.shape[1:]) == shapes.activations[cut]
            if pooled is not None:
                torch.testing.assert_close(pooled, everything[:, shapes.columns_of(stages)])
        alone = FrozenPrefix(staged, prep, None, [2, 0])(pixels())
        torch.testing.assert_close(alone, everything[:, shapes.columns_of([0, 2])])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_more_stages_than_are_needed(backbone: str) -> None:
    staged, prep = loaded(backbone)
    assert len(FrozenPrefix(staged, prep, 2, []).backbone) == 2
    assert len(FrozenPrefix(staged, prep, 1, [2]).backbone) == 3
    assert len(FrozenPrefix(staged, prep, 0, []).backbone) == 0
    assert len(FrozenPrefix(staged, prep, None, [1]).backbone) == 2


def test_what_tells_two_prefixes_apart_is_in_their_text() -> None:
    staged, prep = loaded("test_resnet")
    made = [FrozenPrefix(staged, prep, *of) for of in [(2, [1]), (1, [1]), (None, [1]), (2, []), (2, [0, 1])]]
    assert len({repr(each) for each in made}) == len(made)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_shapes(backbone: str) -> None:
    staged, prep = loaded(backbone)
    shapes = shapes_of(staged, prep)
    assert list(shapes.channels) == channels_of(staged, 64, 64)
    assert shapes.activations[0] == (3, 64, 64)
    assert len(shapes.activations) == len(staged) + 1


def test_columns_and_stages() -> None:
    shapes = Shapes(((1,), (2,), (3,), (4,)), (2, 1, 3))
    assert shapes.columns == 18
    assert shapes.columns_of([1]).tolist() == [6, 7, 8]
    assert shapes.columns_of([2, 0]).tolist() == [*range(6), *range(9, 18)]
    assert shapes.stages_of(np.array([17, 0, 5])) == [0, 2]
    assert shapes.stages_of(np.array([6, 8])) == [1]
