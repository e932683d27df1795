"""Compiled functions say what the module says."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autovision.features.extract import FrozenPrefix
from autovision.model import backbone as backbones
from autovision.model import inference
from autovision.model.bundle import build_network
from autovision.model.inference import EagerModule, TorchModule, compile_module, openvino_module
from autovision.space.config import TrialConfig

BACKBONES = ("test_resnet", "test_efficientnet", "test_vit")


def module_of(kind: str, backbone: str) -> tuple[nn.Module, tuple[int, int]]:
    config = TrialConfig(
        backbone=backbone,
        weights="random",
        resolution=64,
        taps=3,
        pooling="gem",
        head="mlp",
        test_time_augmentation="dihedral",
    )
    prep, staged = backbones.preprocessing(config), backbones.load(config).staged
    made: nn.Module
    match kind:
        case "pooled":
            made = FrozenPrefix(staged, prep, None, range(len(staged)))
        case "cut":
            made = FrozenPrefix(staged, prep, len(staged) - 2, [])
        case _:
            torch.manual_seed(0)
            made = build_network(config, 3)
            nn.init.normal_(made.head.out.weight)
    return made.eval(), (prep.height, prep.width)


def pixels_of(n: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, *size, 3), dtype=np.uint8)


def assert_close(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * float(abs(other).max()))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", ["pooled", "cut", "network"])
def test_the_compiled_module_gives_what_the_module_gives(kind: str, backbone: str) -> None:
    module, size = module_of(kind, backbone)
    compiled, eager = openvino_module(module, size, "f32", 1), EagerModule(module)
    for n in (1, 5):  # the batch size is free
        assert_close(compiled(pixels_of(n, size)), eager(pixels_of(n, size)))


def test_an_answer_does_not_depend_on_the_rest_of_the_batch() -> None:
    module, size = module_of("network", "test_resnet")
    compiled, pixels = openvino_module(module, size, "f32", 1), pixels_of(9, size)
    together = compiled(pixels)
    alone = [np.concatenate(parts) for parts in zip(*(compiled(each[None]) for each in pixels), strict=True)]
    assert_close(alone, together)


def test_answers_stay_those_of_their_thread_and_are_not_overwritten() -> None:
    module, size = module_of("pooled", "test_resnet")
    compiled = openvino_module(module, size, "f32", 1)
    batches = [pixels_of(n, size) for n in (1, 2, 3, 4)]
    expected = [compiled(batch)[0] for batch in batches]
    wrong: list[int] = []

    def ask(which: int) -> None:
        for _ in range(40):
            kept = compiled(batches[which])[0]
            compiled(batches[(which + 1) % 4])
            if not np.array_equal(kept, expected[which]):
                wrong.append(which)

    threads = [threading.Thread(target=ask, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


class Stubborn(nn.Module):
    """Cannot be traced, as some networks cannot."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("data-dependent")
        return pixels.float().mean((1, 2))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_what_cannot_be_converted_runs_eagerly_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger=inference.__name__):
        compiled = compile_module(Stubborn(), (4, 4), precision="f32")
    assert compiled.runtime == "eager"
    assert "data-dependent" in caplog.text
    pixels = pixels_of(2, (4, 4))
    np.testing.assert_allclose(compiled(pixels)[0], pixels.mean((1, 2)), rtol=1e-6)


@pytest.mark.usefixtures("no_gpu")
def test_a_failed_conversion_leaves_everybodys_logging_as_it_was() -> None:
    root = logging.getLogger()
    before = root.level, root.filters[:], root.handlers[:]
    compile_module(Stubborn(), (4, 4), precision="f32")
    assert (root.level, root.filters, root.handlers) == before


@pytest.mark.usefixtures("no_gpu")
def test_a_module_is_compiled_as_it_is_in_evaluation() -> None:
    dropping: Any = nn.Sequential(Stubborn(), nn.Dropout(0.9)).train()
    compiled, pixels = compile_module(dropping, (4, 4), precision="f32"), pixels_of(2, (4, 4))
    np.testing.assert_allclose(compiled(pixels)[0], pixels.mean((1, 2)), rtol=1e-6)


@pytest.mark.usefixtures("no_gpu")
def test_what_torch_cannot_compile_runs_eagerly_and_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine without a C++ compiler."""
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(config, "force_disable_caches", True)
    with caplog.at_level(logging.WARNING, logger=inference.__name__):
        module = TorchModule(Mean(), (4, 4), "f32", torch.device("cpu"))
    assert module.runtime == "cpu, eager"
    assert "torch.compile cannot compile this network" in caplog.text
    pixels = pixels_of(2, (4, 4))
    np.testing.assert_allclose(module(pixels)[0], pixels.mean((1, 2)), rtol=1e-6)


class Mean(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().mean((1, 2))


FREED_IN_ORDER = """
import gc, signal, sys
import torch
from autovision.model.inference import openvino_module

class Doubled(torch.nn.Module):
    def forward(self, pixels):
        return pixels.float().mean((1, 2)) * 2

heard = []
signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
first, second = (openvino_module(Doubled(), (8, 8), "f32", 1) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
signal.raise_signal(signal.SIGTERM)
assert heard == [signal.SIGTERM]
told = [name for name in sys.modules if name.startswith("openvino_telemetry.")]
assert not told, told
"""


def test_a_process_that_has_let_networks_go_still_hears_signals_and_nobody_was_told_of_them() -> None:
    """OpenVINO's CPU plugin gives the thread a stack for signals, and takes it away again. Telemetry is left out."""
    ran = subprocess.run([sys.executable, "-c", FREED_IN_ORDER], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.returncode} {ran.stderr}"
