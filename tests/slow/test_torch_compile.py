"""torch.compile as the runtime of a GPU, on the CPU: some ten seconds for the C++ compiler, which it needs."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from autovision.features.extract import FrozenPrefix
from autovision.model import backbone as backbones
from autovision.model.inference import EagerModule, TorchModule
from autovision.space.config import TrialConfig


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 1e-4), ("bf16", 3e-2)])
def test_the_compiled_prefix_is_the_prefix(precision: str, tolerance: float) -> None:
    config = TrialConfig(backbone="test_resnet", weights="random", resolution=64)
    staged, prep = backbones.load(config).staged, backbones.preprocessing(config)
    module = FrozenPrefix(staged, prep, 2, [0, 1]).eval()
    eager = EagerModule(module)
    sizes = (5, 64, 1)
    batches = [np.random.default_rng(n).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8) for n in sizes]
    expected = [eager(batch) for batch in batches]
    compiled = TorchModule(module, (64, 64), precision, torch.device("cpu"))  # type: ignore[arg-type]
    assert compiled.runtime == "cpu, compiled"
    for batch, outputs in zip(batches, expected, strict=True):
        for found, right in zip(compiled(batch), outputs, strict=True):
            assert found.dtype == np.float32
            assert found.shape == right.shape
            np.testing.assert_allclose(found, right, atol=tolerance * abs(right).max(), rtol=tolerance)
