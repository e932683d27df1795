"""Where a computation can be cut, on networks that each do one awkward thing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autovision.model.flow import Flow, Glue


class Plain(nn.Module):
    """Three convolutions, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 4), (4, 4), (4, 4)))

    def forward_features(self, x: Tensor) -> Any:
        return self.c(self.b(self.a(x)))


class Skipping(Plain):
    def forward_features(self, x: Tensor) -> Any:
        y = self.a(x)
        return self.c(self.b(y) + y)


class Tied(Plain):
    """One layer twice, with another in between."""

    def forward_features(self, x: Tensor) -> Any:
        return self.b(self.c(self.b(self.a(x))))


class TiedParameter(Plain):
    """One parameter twice, outside of any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, 4, 1, 1), 1.5))

    def forward_features(self, x: Tensor) -> Any:
        return self.c(self.b(self.a(x) * self.scale) * self.scale)


class FromParameter(TiedParameter):
    """What comes of a parameter is used far behind."""

    def forward_features(self, x: Tensor) -> Any:
        scale = self.scale.exp()
        return self.c(self.b(self.a(x))) * scale


class Carried(Plain):
    """Batch size and height of the image are needed to the end, and so is what comes of a buffer alone."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.ones(1, 4, 1))
        self.shift: Tensor

    def forward_features(self, x: Tensor) -> Any:
        batch, height, shift = x.shape[0], x.shape[2], self.shift.exp()
        x = self.c(self.b(self.a(x)))
        return (x.reshape(batch, 4, height * height) + shift).transpose(1, 2)


class Pairs(Plain):
    def forward_features(self, x: Tensor) -> Any:
        y = self.a(x)
        return self.b(y), self.c(y)


class Deciding(Plain):
    def forward_features(self, x: Tensor) -> Any:
        return self.a(x) if x.sum() > 0 else self.a(-x)


def between(model: nn.Module) -> list[tuple[str, str]]:
    """The layers before and after each place where the flow can be cut; places with the same ones once."""
    flow = Flow(model, (8, 8))
    found: list[tuple[str, str]] = []
    for at in range(1, len(flow.steps)):
        if flow.crossing(at) is None:
            continue
        below = [str(node.target) for node in flow.steps[:at] if node.op == "call_module"]
        above = [str(node.target) for node in flow.steps[at:] if node.op == "call_module"]
        if below and above and (below[-1], above[0]) not in found:
            found.append((below[-1], above[0]))
    return found


@pytest.mark.parametrize(
    ("model", "cuts"),
    [
        (Plain, ["ab", "bc"]),
        (Skipping, ["ab", "bc"]),
        (Tied, ["ab"]),
        (TiedParameter, ["ab", "bc"]),
        (FromParameter, []),
        (Carried, ["ab", "bc"]),
    ],
)
def test_a_cut_is_where_one_tensor_crosses_and_no_parameter_is_on_both_sides(
    model: type[Plain], cuts: list[str]
) -> None:
    assert between(model()) == [(below, above) for below, above in cuts]


def test_a_parameter_that_is_used_twice_is_not_parted() -> None:
    flow = Flow(TiedParameter(), (8, 8))
    products = [index for index, node in enumerate(flow.steps) if node.op == "call_function"]
    assert len(products) == 2
    assert all(flow.crossing(at) is None for at in range(products[0] + 1, products[1] + 1))


@pytest.mark.parametrize("kind", [Plain, Skipping, Tied, TiedParameter, Carried])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_two_parts_are_the_whole_at_every_cut(kind: type[Plain], batch: int) -> None:
    model = kind().eval()
    flow, x = Flow(model, (8, 8)), torch.randn(batch, 3, 8, 8)
    expected = model.forward_features(x)
    cuts = [at for at in range(1, len(flow.steps)) if flow.crossing(at) is not None]
    assert cuts
    for at in cuts:
        below, above = flow.part(0, at), flow.part(at, len(flow.steps))
        torch.testing.assert_close(above(below(x)), expected)


def test_what_is_no_layer_is_part_of_what_tells_two_modules_apart() -> None:
    flow = Flow(Carried(), (8, 8))
    glue = flow.part(0, len(flow.steps))
    assert isinstance(glue, Glue)
    assert "transpose(1, 2)" in repr(glue)


def test_several_results_have_no_layout() -> None:
    flow = Flow(Pairs(), (8, 8))
    assert flow.layout(flow.result) is None
    assert flow.seen(flow.result).describe() == "a tuple of 2"


def test_what_decides_by_its_input_cannot_be_followed() -> None:
    with pytest.raises(torch.fx.proxy.TraceError):
        Flow(Deciding(), (8, 8))


def test_several_threads_look_at_models_at_once() -> None:
    """The API service checks what several people submit."""
    together = threading.Barrier(4)

    def look(_: int) -> list[int]:
        together.wait()
        return [len(Flow(Skipping(), (32, 32)).steps) for _ in range(10)]

    def compute() -> None:
        model, x = Skipping(), torch.zeros(1, 3, 8, 8)
        while not over.is_set():
            model.forward_features(x)

    over = threading.Event()
    with ThreadPoolExecutor(5) as pool:
        computing = pool.submit(compute)
        try:
            (steps,) = {tuple(each) for each in pool.map(look, range(4))}
        finally:
            over.set()
        computing.result()
    assert set(steps) == {4}
