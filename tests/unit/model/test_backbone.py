"""Names, preprocessing and stages of backbones."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from autovision.errors import InvalidInput, UnknownBackbone, UnsupportedBackbone
from autovision.image import preprocess
from autovision.model import backbone
from autovision.model.network import Normalize
from autovision.space.config import TrialConfig


def test_an_unknown_name_is_met_with_the_near_ones() -> None:
    with pytest.raises(UnknownBackbone, match=r"resnet81.*did you mean 'resnet18'"):
        backbone.load(TrialConfig(backbone="resnet81"))


def test_preprocessing_is_the_models_own() -> None:
    prep = backbone.preprocessing(TrialConfig(backbone="tf_efficientnet_lite0", resolution=160))
    assert (prep.height, prep.width, prep.interpolation, prep.mean) == (160, 160, "bicubic", (0.5, 0.5, 0.5))
    assert backbone.preprocessing(TrialConfig(backbone="resnet18")).mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    "name",
    [
        "convnextv2_huge.fcmae_ft_in22k_in1k_512",  # squashed
        "densenet121",
        "mobilenetv4_conv_small",
        "regnetz_040",
        "swinv2_tiny_window8_256",
        "tf_efficientnetv2_m",  # squashed, mean 0.5
        "vgg16_bn",
        "vit_base_patch16_clip_384",  # squashed
    ],
)
def test_preprocessing_equals_timms_own_transform(name: str) -> None:
    prep = backbone.preprocessing(TrialConfig(backbone=name))
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    photo = np.random.default_rng(0).integers(0, 256, (300, 433, 3), dtype=np.uint8)
    picture = Image.fromarray(photo).resize((650, 450))
    expected = timm.data.create_transform(**config, is_training=False)(picture)
    pixels = torch.from_numpy(preprocess(picture, prep))[None]
    torch.testing.assert_close(Normalize(prep)(pixels)[0], expected)


def test_a_crop_that_is_not_known_here_is_refused() -> None:
    with pytest.raises(UnsupportedBackbone, match=r"'deepseek_vit_412m'.*'border'.*center, squash"):
        backbone.preprocessing(TrialConfig(backbone="deepseek_vit_412m"))


@pytest.mark.parametrize(
    "name",
    [
        "deit_tiny_distilled_patch16_224",
        "densenet121",
        "efficientvit_b0",
        "eva02_tiny_patch14_224",
        "levit_128s",
        "mixer_s32_224",
        "mvitv2_tiny",
        "pvt_v2_b0",
        "regnety_002",
        "resnet18",
        "swin_tiny_patch4_window7_224",
        "swinv2_tiny_window8_256",
        "test_vit",
        "test_vit_relpos",
        "vit_small_patch14_reg4_dinov2",
        "xcit_nano_12_p8_224",
    ],
)
def test_any_backbone_is_made_for_the_resolution_that_is_asked_for(name: str) -> None:
    """Whether a model must be told the size of its images is what the model itself says, not its name."""
    config = TrialConfig(backbone=name, weights="random", resolution=112)
    with torch.device("meta"):
        staged = backbone.structure_of(backbone.create(config), config).eval()
        with torch.inference_mode():
            features = staged(torch.empty(2, 3, 112, 112))
    assert len(staged) == backbone.count_stages(config)
    assert features.shape[0] == 2


def test_a_resolution_that_a_model_cannot_work_at_names_its_own() -> None:
    config = TrialConfig(backbone="test_coatnet", weights="random", resolution=100)
    with pytest.raises(UnsupportedBackbone, match=r"'test_coatnet'.*100.*its own resolution, 160"):
        backbone.structure_of(backbone.create(config), config)
    config = TrialConfig(backbone="nest_tiny", weights="random", resolution=100)
    with pytest.raises(InvalidInput, match=r"'nest_tiny'.*resolution=100.*its own is 224"):
        backbone.create(config)


def test_random_weights_are_the_same_every_time() -> None:
    config = TrialConfig(backbone="test_resnet", weights="random")
    assert backbone.load(config).info.digest == backbone.load(config).info.digest


def test_more_stages_dropped_than_there_are() -> None:
    with pytest.raises(
        InvalidInput, match="drop_stages=5 leaves nothing of 'test_resnet', which has 5 stages"
    ):
        backbone.load(TrialConfig(backbone="test_resnet", weights="random", drop_stages=5))
