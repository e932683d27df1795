"""What names a kind of feature."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from autovision import image
from autovision.features.spec import FeatureSpec, view_names, view_of
from autovision.records import Preprocessing
from autovision.space.config import Augmentation

PREPROCESSING = Preprocessing(
    height=64, width=64, crop_pct=0.9, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
)
SPEC = FeatureSpec(
    backbone="test_resnet",
    weights_digest="a" * 64,
    preprocessing=PREPROCESSING,
    view="identity",
    output="cut",
    cut=3,
    precision="f32",
)
OTHERS: list[dict[str, Any]] = [
    {"backbone": "test_vit"},
    {"weights_digest": "b" * 64},
    {"preprocessing": PREPROCESSING.with_(height=96, width=96)},
    {"preprocessing": PREPROCESSING.with_(crop_pct=1.0)},
    {"preprocessing": PREPROCESSING.with_(interpolation="bilinear")},
    {"preprocessing": PREPROCESSING.with_(mean=(0.4, 0.5, 0.5))},
    {"preprocessing": PREPROCESSING.with_(std=(0.3, 0.2, 0.2))},
    {"view": "flip:1"},
    {"view": "dihedral:1"},
    {"output": "pooled", "cut": None},
    {"cut": 2},
    {"cut": 0},
    {"precision": "bf16"},
]


def test_everything_that_values_depend_on_takes_part_in_the_name() -> None:
    digests = {SPEC.with_(**other).digest for other in OTHERS}
    assert len(digests | {SPEC.digest}) == len(OTHERS) + 1


def test_the_name_is_that_of_any_other_process() -> None:
    assert FeatureSpec.model_validate_json(SPEC.to_json()).digest == SPEC.digest


@pytest.mark.parametrize("augmentation", get_args(Augmentation))
def test_views_have_names_and_the_image_itself_is_the_first_of_all(augmentation: Augmentation) -> None:
    names = view_names(augmentation)
    assert names[0] == "identity"
    assert len(set(names)) == len(names) == image.view_count(augmentation)
    assert view_of(names[0]) == ("none", 0)
    assert [view_of(name) for name in names[1:]] == [(augmentation, i) for i in range(1, len(names))]
