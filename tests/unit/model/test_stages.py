"""Cutting any supported timm model into stages changes nothing of what it computes."""

from __future__ import annotations

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autovision.errors import UnsupportedBackbone
from autovision.model.network import Normalize, pool
from autovision.model.stages import channels_of, stages_of
from autovision.records import Preprocessing

# One small member of each family: (name, input size).
FAMILIES = [
    ("tf_efficientnet_lite0", 64),
    ("mobilenetv2_100", 64),
    ("mobilenetv3_small_100", 64),
    ("mobilenetv4_conv_small", 64),
    ("resnet18", 64),
    ("resnext50_32x4d", 64),
    ("convnext_atto", 64),
    ("edgenext_xx_small", 64),
    ("regnetx_002", 64),
    ("densenet121", 64),
    ("vgg11_bn", 64),
    ("vit_tiny_patch16_224", 224),
    ("deit_tiny_distilled_patch16_224", 224),
    ("swin_tiny_patch4_window7_224", 224),
    ("test_vit", 160),
    ("test_efficientnet", 64),
]


@pytest.mark.parametrize(("name", "size"), FAMILIES)
def test_prefix_then_suffix_is_the_whole_model_at_every_cut(name: str, size: int) -> None:
    model = timm.create_model(name, pretrained=False).eval()
    image = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = model.forward_features(image)
        staged = stages_of(model).eval()
        activations = [image]
        for stage in staged.stages:
            activations.append(stage(activations[-1]))
        for cut in range(0, len(staged) + 1, max(1, len(staged) // 4)):
            x = activations[cut]
            for stage in staged.stages[cut:]:
                x = stage(x)
            torch.testing.assert_close(x, whole)
    widths = channels_of(staged, size, size)
    assert [staged.spatial(a, i).shape[1] for i, a in enumerate(activations[1:])] == widths


@pytest.mark.parametrize(("name", "size"), FAMILIES)
def test_the_stages_own_every_feature_parameter_once(name: str, size: int) -> None:
    model = timm.create_model(name, pretrained=False)
    staged = stages_of(model)
    own = {id(parameter) for parameter in staged.parameters()}
    assert len(own) == len(list(staged.parameters()))
    with torch.no_grad():
        before = staged.eval()(torch.ones(1, 3, size, size))
        for parameter in staged.parameters():
            parameter.mul_(0.5)
        after = model.eval().forward_features(torch.ones(1, 3, size, size))
    assert not torch.allclose(before, after), "the stages hold copies, not the model's own parameters"


def test_truncation_ends_the_network_early() -> None:
    staged = stages_of(timm.create_model("resnet18")).eval()
    with torch.inference_mode():
        expected = staged.stages[1](staged.stages[0](torch.ones(1, 3, 64, 64)))
        staged.truncate(2)
        torch.testing.assert_close(staged(torch.ones(1, 3, 64, 64)), expected)
    assert staged.names == ("stem", "layer1")


def test_a_family_that_cannot_be_cut_is_named_with_those_that_can() -> None:
    with pytest.raises(UnsupportedBackbone, match=r"MlpMixer.*EfficientNet.*ViT"):
        stages_of(timm.create_model("mixer_s32_224", pretrained=False))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 30), st.integers(0, 999))
def test_generalized_mean_lies_between_mean_and_maximum(
    batch: int, channels: int, positions: int, seed: int
) -> None:
    x = torch.rand(batch, channels, positions, generator=torch.Generator().manual_seed(seed)) + 0.01
    mean, gem, most = pool(x, "avg"), pool(x, "gem"), pool(x, "max")
    assert (mean <= gem + 1e-4).all()
    assert (gem <= most + 1e-4).all()
    torch.testing.assert_close(pool(x, "avgmax"), torch.cat([mean, most], 1))


def test_normalization_is_that_of_the_model() -> None:
    prep = Preprocessing(
        height=2, width=2, crop_pct=1, interpolation="bicubic", mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3)
    )
    pixels = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    expected = (1 - torch.tensor(prep.mean)) / torch.tensor(prep.std)
    torch.testing.assert_close(Normalize(prep)(pixels)[0, :, 0, 0], expected)
