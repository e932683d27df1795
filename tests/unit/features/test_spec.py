"""What names a kind of feature."""

from __future__ import annotations

from typing import Any

from autovision.features.spec import FeatureSpec
from autovision.records.models import Preprocessing

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
    {"output": "pixels", "cut": None},
    {"computation": 1},
]


def test_everything_that_values_depend_on_takes_part_in_the_name() -> None:
    digests = {SPEC.with_(**other).digest for other in OTHERS}
    assert len(digests | {SPEC.digest}) == len(OTHERS) + 1


def test_the_name_is_that_of_any_other_process() -> None:
    assert FeatureSpec.model_validate_json(SPEC.to_json()).digest == SPEC.digest
