"""Networks as files say what the networks say."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from autovision.model import formats
from autovision.model.bundle import build_network
from autovision.model.formats import NotConvertible, PackageMissing
from autovision.model.inference import EagerModule
from autovision.model.network import Network
from autovision.space.config import TrialConfig

SIZE = (64, 64)
Run = Callable[[np.ndarray], list[np.ndarray]]


def network_of(backbone: str, **changes: object) -> Network:
    config = TrialConfig.model_validate(
        {
            "backbone": backbone,
            "weights": "random",
            "resolution": SIZE[0],
            "taps": 3,
            "head": "mlp",
            **changes,
        }
    )
    torch.manual_seed(0)
    network = build_network(config, 3)
    nn.init.normal_(network.head.out.weight)
    return network


def pytorch(network: Network, folder: Path) -> Run:
    formats.write_pytorch(network, SIZE, folder)
    loaded = torch.export.load(folder / formats.PROGRAM_FILE).module()
    loaded.load_state_dict(load_file(folder / formats.WEIGHTS_FILE), assign=True)
    return lambda pixels: [each.detach().numpy() for each in loaded(torch.from_numpy(pixels))]


def onnx(network: Network, folder: Path) -> Run:
    formats.write_onnx(network, SIZE, folder / formats.ONNX_FILE)
    session = onnxruntime.InferenceSession(folder / formats.ONNX_FILE, providers=["CPUExecutionProvider"])
    return lambda pixels: list(session.run(None, {session.get_inputs()[0].name: pixels}))


# OpenVINO's form, and ONNX of another network, are compared in test_inference.py and test_runtimes.py.
@pytest.mark.parametrize(
    ("write", "backbone", "changes"),
    [
        (pytorch, "test_resnet", {"pooling": "gem", "test_time_augmentation": "dihedral"}),
        (pytorch, "test_efficientnet", {"pooling": "avgmax", "head": "cosine"}),
        (pytorch, "test_vit", {"head": "attention"}),
        (onnx, "test_vit", {"head": "attention", "test_time_augmentation": "flip"}),
    ],
)
def test_files_say_what_the_network_says(
    write: Callable[[Network, Path], Run], backbone: str, changes: dict[str, object], tmp_path: Path
) -> None:
    network = network_of(backbone, **changes)
    run, eager = write(network, tmp_path), EagerModule(network)
    for n in (1, 2, 5):  # the batch size is free
        pixels = np.random.default_rng(n).integers(0, 256, (n, *SIZE, 3), dtype=np.uint8)
        for found, expected in zip(run(pixels), eager(pixels), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * float(abs(expected).max()))


def test_the_program_holds_no_weights_and_the_other_file_all_of_them(tmp_path: Path) -> None:
    network = network_of("test_resnet")
    formats.write_pytorch(network, SIZE, tmp_path)
    with zipfile.ZipFile(tmp_path / formats.PROGRAM_FILE) as archive:
        weights = [each for each in archive.infolist() if "/data/weights/weight" in each.filename]
    assert len(weights) > 10
    assert max(each.file_size for each in weights) <= 8
    tensors, own = load_file(tmp_path / formats.WEIGHTS_FILE), network.state_dict()
    assert tensors.keys() == own.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in own.items())
    assert EagerModule(network)(np.zeros((1, *SIZE, 3), np.uint8))[0].any(), "the network itself is as it was"


class Stubborn(nn.Module):
    """What it computes depends on what the image shows."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        means = pixels.float().mean((1, 2))
        return means if means.sum().item() > 100 else means * 2


@pytest.mark.parametrize("write", [formats.write_pytorch, formats.write_onnx])
def test_what_cannot_be_written_says_so(write: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(NotConvertible, match="choose another format"):
        write(Stubborn(), SIZE, tmp_path / "model")


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it() -> None:
    formats.require(("numpy",), what="nothing", extra="onnx")
    with pytest.raises(
        PackageMissing, match=r"int8 needs .*'no_such_package'.*pip install 'autovision\[int8\]'"
    ):
        formats.require(("numpy", "no_such_package"), what="int8", extra="int8")
