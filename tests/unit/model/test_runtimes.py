"""What serves a network here, and how fast it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autovision.errors import InvalidInput
from autovision.model import runtimes
from autovision.model.bundle import build_network
from autovision.model.inference import native_precision
from autovision.records.runtimes import TIMED_BATCH, Timing, check_choice, named
from autovision.space.config import TrialConfig

SIZE = (64, 64)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_name_that_is_no_runtime_is_met_with_the_near_ones() -> None:
    assert named("onnx-f32") == "onnx-f32"
    with pytest.raises(InvalidInput, match="did you mean 'openvino-f32'"):
        named("openvino-f23")
    for choice in ("auto", "evaluated", "openvino-int8"):
        check_choice(choice)
    with pytest.raises(InvalidInput, match="no runtime 'fast'"):
        check_choice("fast")


@pytest.mark.usefixtures("no_gpu")
def test_the_evaluated_runtime_comes_first_and_bf16_only_where_it_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtimes, "native_precision", lambda: "f32")
    assert runtimes.candidates("f32") == ("openvino-f32", "onnx-f32", "eager-f32")
    assert runtimes.candidates("bf16")[0] == "openvino-bf16", "a model of another node"
    monkeypatch.setattr(runtimes, "native_precision", lambda: "bf16")
    assert runtimes.candidates("bf16") == ("openvino-bf16", "openvino-f32", "onnx-f32", "eager-f32")
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    assert "onnx-f32" not in runtimes.candidates("f32")


@pytest.mark.usefixtures("no_gpu")
def test_every_runtime_says_what_pytorch_says() -> None:
    config = TrialConfig(backbone="test_resnet", weights="random", resolution=64, taps=3)
    torch.manual_seed(0)
    network = build_network(config, 3)
    nn.init.normal_(network.head.out.weight)
    pixels = np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), dtype=np.uint8)
    expected = runtimes.build(network, SIZE, "eager-f32", 1)(pixels)
    for runtime in runtimes.candidates(native_precision()):
        tolerance = 1e-3 if runtime.endswith("f32") else 0.1
        for found, wanted in zip(runtimes.build(network, SIZE, runtime, 1)(pixels), expected, strict=True):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * abs(wanted).max())


@pytest.mark.usefixtures("no_gpu")
def test_a_runtime_of_other_nodes_is_refused() -> None:
    with pytest.raises(InvalidInput, match="needs a GPU"):
        runtimes.build(nn.Identity(), SIZE, "torch-bf16", 1)


class Slow:
    """Takes its time by a clock that only it moves: so much for each image, and so much for each call."""

    runtime = "slow"

    def __init__(self, clock: list[float], call_s: float, image_s: float) -> None:
        self.clock, self.call_s, self.image_s = clock, call_s, image_s
        self.seen: list[int] = []

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        assert pixels.dtype == np.uint8 and pixels.shape[1:] == (4, 8, 3)
        self.seen.append(len(pixels))
        self.clock[0] += self.call_s + self.image_s * len(pixels)
        return []


@pytest.mark.parametrize("unit", [0.001, 10.0])
def test_timings_are_of_one_image_and_of_a_batch_in_turn(unit: float) -> None:
    clock = [0.0]
    slow, slower = Slow(clock, unit, unit), Slow(clock, 4 * unit, unit)
    found = runtimes.timings({"openvino-f32": slow, "eager-f32": slower}, (4, 8), clock=lambda: clock[0])
    assert found["openvino-f32"].one_ms == pytest.approx(2000 * unit)
    assert found["openvino-f32"].batch_ms == pytest.approx(1000 * unit * (1 + TIMED_BATCH))
    assert found["eager-f32"].one_ms == pytest.approx(5000 * unit)
    assert len(slow.seen) == len(slower.seen) >= 2 * (1 + 3), "warmed, then at least three rounds"
    assert len(slow.seen) == (2 * 4 if unit > 1 else 2 * 16), "slow ones are not timed for long"


def test_speedup_weighs_one_image_and_a_batch_alike() -> None:
    before, after = Timing(one_ms=10, batch_ms=100), Timing(one_ms=5, batch_ms=50)
    assert runtimes.speedup(before, after) == pytest.approx(2)
    assert runtimes.speedup(before, Timing(one_ms=5, batch_ms=200)) == pytest.approx(1)


def test_structure_is_of_layers_and_size_and_not_of_weights() -> None:
    def of(classes: int = 3, size: tuple[int, int] = SIZE, **changes: object) -> str:
        config = {"backbone": "test_resnet", "weights": "random", "resolution": 64, **changes}
        network = build_network(TrialConfig.model_validate(config), classes)
        nn.init.normal_(network.head.out.weight)
        return runtimes.structure(network, size)

    assert of() == of()
    assert len({of(), of(classes=4), of(size=(96, 96)), of(pooling="max"), of(taps=2)}) == 5
