"""Cutting a timm model into stages changes nothing of what it computes, and loses nothing of what it is made of."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from autovision.errors import UnsupportedBackbone
from autovision.model.stages import StagedBackbone, channels_of, stages_of, verify

TINY_VIT = {"embed_dim": 48, "depth": 3, "num_heads": 2}
TINY_SWIN = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}

# Members of many families, with their images' size, made small by timm's own arguments where none is.
ARCHITECTURES: dict[str, tuple[int, dict[str, Any]]] = {
    "beit_base_patch16_224": (32, {"img_size": 32, **TINY_VIT}),
    "cait_xxs24_224": (32, {"img_size": 32, **TINY_VIT}),
    "convnextv2_atto": (64, {"depths": (1, 1, 2, 1), "dims": (16, 24, 32, 48)}),
    "deit3_small_patch16_224": (32, {"img_size": 32, **TINY_VIT}),
    "deit_tiny_distilled_patch16_224": (32, {"img_size": 32, **TINY_VIT}),
    "densenet121": (64, {"block_config": (2, 2, 2, 2)}),
    "eva02_tiny_patch14_224": (56, {"img_size": 56, **TINY_VIT}),
    "ghostnet_050": (64, {}),
    "hiera_tiny_224": (64, {"img_size": (64, 64), "embed_dim": 24, "stages": (1, 1, 2, 1)}),
    "levit_128s": (64, {"img_size": 64}),
    "mobilenetv2_035": (64, {}),
    "mobilenetv3_small_050": (64, {}),
    "mobilenetv4_conv_small_035": (64, {}),
    "mvitv2_tiny": (64, {"img_size": 64}),
    "regnetx_002": (64, {}),
    "regnety_002": (64, {}),
    "regnetz_005": (64, {}),
    "resnet10t": (64, {}),
    "resnext50_32x4d": (64, {"layers": (1, 1, 1, 1)}),
    "seresnext26d_32x4d": (64, {"layers": (1, 1, 1, 1)}),
    "swin_tiny_patch4_window7_224": (64, {"img_size": 64, "window_size": 2, **TINY_SWIN}),
    "swinv2_tiny_window8_256": (64, {"img_size": 64, "window_size": 2, **TINY_SWIN}),
    "test_byobnet": (64, {}),
    "test_coatnet": (64, {"img_size": 64}),
    "test_convnext": (64, {}),
    "test_efficientnet": (64, {}),
    "test_mambaout": (64, {}),
    "test_nfnet": (64, {}),
    "test_resnet": (64, {}),
    "test_vit": (64, {"img_size": 64}),
    "test_vit3": (64, {"img_size": 64}),
    "test_vit_relpos": (64, {"img_size": 64}),
    "vit_small_patch14_reg4_dinov2": (56, {"img_size": 56, **TINY_VIT}),
    "xcit_nano_12_p8_224": (32, {"depth": 4}),
}
over_architectures = pytest.mark.parametrize("name", ARCHITECTURES)


@dataclass(frozen=True)
class Cut:
    """A model, its stages, and what each of them gives for two images."""

    model: Any
    staged: StagedBackbone
    image: Tensor
    activations: list[Tensor]


def shaken(model: nn.Module) -> None:
    """Away from an initialisation in which many blocks do nothing, whatever is done with them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@functools.cache
def cut(name: str) -> Cut:
    resolution, arguments = ARCHITECTURES[name]
    model = timm.create_model(name, **arguments).eval()
    shaken(model)
    staged = stages_of(model, (resolution, resolution)).eval()
    image = torch.randn(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    activations = []
    with torch.no_grad():
        for stage in staged.stages:
            activations.append(stage(activations[-1] if activations else image))
    return Cut(model, staged, image, activations)


@over_architectures
def test_prefix_then_suffix_is_the_whole_model_at_every_cut(name: str) -> None:
    one = cut(name)
    with torch.no_grad():
        whole = one.model.forward_features(one.image)
        torch.testing.assert_close(one.activations[-1], whole)
        torch.testing.assert_close(one.staged(one.image), whole)
        for at in range(0, len(one.staged), max(1, len(one.staged) // 4)):
            # As it comes from a store: with the values alone, in a row.
            activation = torch.from_numpy(one.activations[at - 1].numpy().copy()) if at else one.image
            torch.testing.assert_close(one.staged.part(at, len(one.staged))(activation), whole)


@over_architectures
def test_every_stage_can_be_pooled_and_truncated_after(name: str) -> None:
    one = cut(name)
    widths = channels_of(one.staged, *one.image.shape[2:])
    for index, activation in enumerate(one.activations):
        positions = one.staged.spatial(activation, index)
        assert positions.shape[:2] == (2, widths[index]) and positions.shape[2] > 0
        short = one.staged.part(0, len(one.staged))
        short.truncate(index + 1)
        assert len(short.names) == len(short.layouts) == len(short) == index + 1
    with torch.no_grad():
        torch.testing.assert_close(short(one.image), one.activations[-1])
    assert len(set(one.staged.names)) == len(one.staged)


@over_architectures
def test_the_stages_own_every_feature_parameter_exactly_once(name: str) -> None:
    one = cut(name)
    one.model.forward_features(one.image).square().sum().backward()
    used = {id(parameter) for parameter in one.model.parameters() if parameter.grad is not None}
    one.model.zero_grad()
    own = [id(parameter) for stage in one.staged.stages for parameter in stage.parameters()]
    assert len(own) == len(set(own))
    assert used <= set(own)
    assert all(list(stage.parameters()) for stage in one.staged.stages)


@over_architectures
def test_a_copy_is_its_own_and_a_state_brings_everything_back(name: str) -> None:
    one = cut(name)
    other = copy.deepcopy(one.staged)
    other.train().eval()  # nothing stays of what attention layers derived from their parameters
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
        torch.testing.assert_close(one.staged(one.image), one.activations[-1])
        assert not torch.allclose(other(one.image), one.activations[-1])
        other.load_state_dict(one.staged.state_dict())
        torch.testing.assert_close(other(one.image), one.activations[-1])


@over_architectures
def test_training_above_a_cut_leaves_everything_below_it_as_it_was(name: str) -> None:
    staged = copy.deepcopy(cut(name).staged).eval()
    at = len(staged) // 2
    lower, upper = staged.part(0, at), staged.part(at, len(staged))
    lower.requires_grad_(False)
    before = {key: value.clone() for key, value in lower.state_dict().items()}
    trained = {key: value.clone() for key, value in upper.named_parameters()}
    upper.train()
    staged(cut(name).image).square().mean().backward()
    torch.optim.SGD(upper.parameters(), lr=0.1).step()
    for key, value in lower.state_dict().items():
        assert torch.equal(value, before[key]), key
    changed = [key for key, value in upper.named_parameters() if not torch.equal(value, trained[key])]
    assert len(changed) > 0.5 * len(trained)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("test_resnet", "stem layer1 layer2 layer3 layer4"),
        ("test_efficientnet", "stem blocks.0 blocks.1 blocks.2 blocks.3 blocks.4 conv_head"),
        ("mobilenetv3_small_050", "stem blocks.0 blocks.1 blocks.2 blocks.3 blocks.4 blocks.5"),
        ("test_vit", "stem blocks.0 blocks.1 blocks.2 blocks.3 blocks.4 blocks.5"),
        ("regnety_002", "stem s1 s2 s3 s4"),
        ("swin_tiny_patch4_window7_224", "stem layers.0 layers.1 layers.2 layers.3"),
    ],
)
def test_the_stages_are_those_that_the_family_is_known_by(name: str, names: str) -> None:
    assert cut(name).staged.names == tuple(names.split())


@pytest.mark.parametrize(
    ("name", "prefix_tokens"),
    [
        ("test_vit", 1),
        ("vit_small_patch14_reg4_dinov2", 5),
        ("test_vit3", 1),
        ("deit_tiny_distilled_patch16_224", 2),
        ("beit_base_patch16_224", 1),
        ("test_resnet", 0),
        ("cait_xxs24_224", 0),  # its class token comes in at the end, and is pooled there
    ],
)
def test_tokens_that_are_no_patches_are_counted(name: str, prefix_tokens: int) -> None:
    assert cut(name).staged.prefix_tokens == prefix_tokens


def test_plain_layers_are_one_stage_as_far_as_they_keep_their_resolution() -> None:
    with torch.device("meta"):
        staged = stages_of(timm.create_model("vgg11_bn"))
    pools = [[type(layer).__name__ for layer in stage].count("MaxPool2d") for stage in staged.stages]
    assert pools == [1, 1, 1, 1, 1]


def test_the_state_of_a_residual_stage_is_named_as_in_the_model() -> None:
    staged = stages_of(timm.create_model("test_resnet"))
    assert "stages.1.0.conv1.weight" in staged.state_dict()
    assert "stages.0.bn1.weight" in staged.state_dict()


def test_a_model_stays_in_the_modes_that_it_was_in() -> None:
    model = timm.create_model("test_vit")
    model.blocks[2].eval()
    modes = [module.training for module in model.modules()]
    stages_of(model)
    assert [module.training for module in model.modules()] == modes


def test_cutting_computes_nothing() -> None:
    with torch.device("meta"):
        staged = stages_of(timm.create_model("resnet18"))
    assert staged.names == ("stem", "layer1", "layer2", "layer3", "layer4")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("crossvit_tiny_240", r"its features are a tuple of 2"),
        ("efficientvim_m1", r"its features are a tuple of 4"),
        ("tnt_s_legacy_patch16_224", r"more than one tensor goes from each layer to the next"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_reason_and_the_way_out(name: str, fault: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(UnsupportedBackbone, match=rf"{name}.*{fault}.*choose a backbone.*EfficientNet.*ViT"):
        stages_of(model)


def test_a_resolution_that_a_model_was_not_made_for_is_named() -> None:
    with torch.device("meta"):
        model = timm.create_model("mixer_s32_224")
    with pytest.raises(UnsupportedBackbone, match=r"'mixer_s32_224'.*images of 100 by 100.*its own.*224"):
        stages_of(model, (100, 100))


def test_stages_that_differ_from_the_whole_are_refused() -> None:
    """As they would if a model did one thing when it is followed, and another when it runs."""
    model = timm.create_model("test_vit", img_size=32)
    staged = stages_of(model)
    other = copy.deepcopy(staged)
    with torch.no_grad():
        other.stages[0].pos_embed.mul_(9)
    with pytest.raises(UnsupportedBackbone, match=r"'test_vit'.*do not give what the whole model gives"):
        verify(model, other, (32, 32))
    verify(model, staged, (32, 32))
