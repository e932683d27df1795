"""A network for several calls at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autovision.model.compiled import MOST_COPIES, Copies, OpenVinoModule
from autovision.model.inference import openvino_file


class Held:
    """A network that says which one it is, once it may."""

    runtime = "held"

    def __init__(self, number: int, may: threading.Event) -> None:
        self.number = number
        self.at_once = 0
        self._may = may

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        self.at_once += 1
        assert self.at_once == 1, "one call at a time"
        assert self._may.wait(20)
        self.at_once -= 1
        if not pixels.any():
            raise ValueError("nothing to see")
        return [np.array([self.number])]


def test_each_call_has_a_copy_to_itself_and_others_wait() -> None:
    may = threading.Event()
    held = [Held(number, may) for number in range(2)]
    copies = Copies(held)
    assert copies.runtime == "held"
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(copies, np.full((1, 2, 2, 3), number, np.uint8)) for number in range(5)]
        while sum(each.at_once for each in held) < 2:
            pass
        may.set()
        with pytest.raises(ValueError, match="nothing to see"):
            calls[0].result(20)
        assert {call.result(20)[0].item() for call in calls[1:]} <= {0, 1}
    assert {copies(np.ones((1, 2, 2, 3), np.uint8))[0].item() for _ in range(4)} == {0, 1}, "none is lost"


class Mean(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().mean(dim=(1, 2))


@pytest.mark.parametrize("calls", [2, MOST_COPIES + 1])
def test_side_by_side_it_answers_the_same(tmp_path: Path, calls: int) -> None:
    whole = OpenVinoModule(openvino_file(Mean(), (8, 8)), "f32", 2)
    several = whole.side_by_side(calls)
    assert isinstance(several, Copies) == (calls <= MOST_COPIES)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 8, 3), dtype=np.uint8)
    with ThreadPoolExecutor(calls) as pool:
        found = [each[0] for each in pool.map(several, pixels)]
    np.testing.assert_allclose(found, pixels.mean(axis=(2, 3)), rtol=1e-5)
