"""Every family of models that timm has: cut and compared with the whole, made for another resolution, or refused.

And of the families that are used most, a member with OpenVINO. Random weights; about ten minutes on one core.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from autovision.errors import UnsupportedBackbone
from autovision.features.extract import FrozenPrefix
from autovision.model import backbone as backbones
from autovision.model.flops import stage_gflops
from autovision.model.inference import EagerModule, openvino_module
from autovision.model.stages import stages_of, verify
from autovision.space.config import TrialConfig

# Of each module of timm the member that takes the least.
SMALLEST = {
    "beit": "beit_base_patch16_224",
    "byoanet": "halonet_h1",
    "byobnet": "test_byobnet",
    "cait": "cait_xxs24_224",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "test_convnext",
    "cpubone": "cpubone_nano",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46x_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "test_efficientnet",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "eva02_tiny_patch14_224",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "hieradet_small",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "test_mambaout",
    "maxxvit": "test_coatnet",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "mobilenetv3_small_050",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_parfac_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "test_nfnet",
    "pit": "pit_ti_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2next50",
    "resnest": "resnest14d",
    "resnet": "test_resnet",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tresnet": "tresnet_m",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer": "test_vit",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "test_vit_relpos",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41p",
    "xcit": "xcit_nano_12_p8_224",
}
REFUSED = {
    "coat": ("coat_tiny", r"its features are a tuple of 3"),
    "crossvit": ("crossvit_tiny_240", r"its features are a tuple of 2"),
    "efficientvim": ("efficientvim_m1", r"its features are a tuple of 4"),
    "gemma4_vit": ("gemma4_vit_167m", r"TraceError"),
    "tnt": ("tnt_s_legacy_patch16_224", r"more than one tensor"),
    "twins": ("twins_svt_small", r"TraceError"),
}
HUGE = {"deepseek_vit"}
"""whose smallest member has 400 million parameters: cut, but not run"""
ANOTHER = {"byoanet": 512}
"""the resolution to try instead of 128, which its windows do not divide"""
ONE_SIZE = {"deepseek_vit", "efficientformer"}
"""made for no other resolution than their own, or for multiples of it, by timm itself"""
NAMED = {
    "ConvNeXt": ("test_convnext", 64),
    "ConvNeXt v2": ("convnextv2_atto", 64),
    "DeiT": ("deit_tiny_patch16_224", 64),
    "DeiT, distilled": ("deit_tiny_distilled_patch16_224", 64),
    "DenseNet": ("densenet121", 64),
    "EfficientNet": ("test_efficientnet", 64),
    "MobileNet v2": ("mobilenetv2_035", 64),
    "MobileNet v3": ("mobilenetv3_small_050", 64),
    "MobileNet v4": ("mobilenetv4_conv_small_035", 64),
    "RegNet X": ("regnetx_002", 64),
    "RegNet Y": ("regnety_002", 64),
    "RegNet Z": ("regnetz_005", 64),
    "ResNet": ("test_resnet", 64),
    "ResNet-D with squeeze and excitation": ("seresnext26d_32x4d", 64),
    "ResNeXt": ("resnext50_32x4d", 64),
    "Swin": ("swin_tiny_patch4_window7_224", 224),
    "Swin v2": ("swinv2_tiny_window8_256", 256),
    "VGG": ("vgg11_bn", 64),
    "ViT": ("test_vit", 64),
    "ViT with registers": ("vit_small_patch14_reg4_dinov2", 56),
    "ViT with rotary positions": ("eva02_tiny_patch14_224", 56),
}


def shaken(model: nn.Module) -> Any:
    """Away from an initialisation in which many blocks do nothing, whatever is done with them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def test_no_family_is_forgotten() -> None:
    assert {*SMALLEST, *REFUSED} == set(timm.list_modules())


@pytest.mark.parametrize("family", sorted(set(SMALLEST) - HUGE))
def test_the_stages_are_the_whole_model(family: str) -> None:
    config = TrialConfig(backbone=SMALLEST[family], weights="random")
    model, prep = shaken(backbones.create(config)), backbones.preprocessing(config)
    size = (prep.height, prep.width)
    staged = stages_of(model, size).eval()
    verify(model, staged, size)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, activations = model.forward_features(image), [image]
        for stage in staged.stages:
            activations.append(stage(activations[-1]))
        torch.testing.assert_close(activations[-1], whole, rtol=1e-4, atol=1e-4)
        for at in {len(staged) // 3, 2 * len(staged) // 3}:
            activation = torch.from_numpy(activations[at].numpy().copy())
            suffix = copy.deepcopy(staged.part(at, len(staged)))
            torch.testing.assert_close(suffix(activation), whole, rtol=1e-4, atol=1e-4)
    for index, activation in enumerate(activations[1:]):
        positions = staged.spatial(activation, index)
        assert positions.dim() == 3 and positions.shape[2] > 0
    own = [id(parameter) for stage in staged.stages for parameter in stage.parameters()]
    assert len(own) == len(set(own))
    assert all(list(stage.parameters()) for stage in staged.stages)


@pytest.mark.parametrize("family", sorted(SMALLEST))
def test_another_resolution_and_the_arithmetic_of_each_stage(family: str) -> None:
    resolution = ANOTHER.get(family, 128)
    config = TrialConfig(backbone=SMALLEST[family], weights="random", resolution=resolution)
    if family in ONE_SIZE:
        with pytest.raises(UnsupportedBackbone, match="use its own resolution"), torch.device("meta"):
            backbones.structure_of(backbones.create(config), config)
        return
    with torch.device("meta"), torch.inference_mode():
        staged = backbones.structure_of(backbones.create(config), config).eval()
        staged(torch.empty(2, 3, resolution, resolution))
    gflops = stage_gflops(config.backbone, resolution)
    assert len(gflops) == len(staged)
    assert min(gflops) > 0


@pytest.mark.parametrize("family", sorted(REFUSED))
def test_what_cannot_be_cut_is_refused_with_the_reason(family: str) -> None:
    name, reason = REFUSED[family]
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(UnsupportedBackbone, match=rf"'{name}'.*{reason}.*choose a backbone"):
        stages_of(model)


@pytest.mark.parametrize("family", sorted(NAMED))
def test_openvino_gives_what_the_stages_give(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    name, resolution = NAMED[family]
    config = TrialConfig(backbone=name, weights="random", resolution=resolution)
    staged = backbones.structure_of(shaken(backbones.create(config)), config)
    module = FrozenPrefix(staged, backbones.preprocessing(config), None, range(len(staged))).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (3, resolution, resolution, 3), dtype=np.uint8)
    (found,) = openvino_module(module, (resolution, resolution), "f32", 1)(pixels)
    (expected,) = EagerModule(module)(pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3 * float(np.abs(expected).max()))
