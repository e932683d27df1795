"""Small images, small spaces, and a real Ray for the tests that need one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autovision import runtime
from autovision.space import Choice, Float, Integer, Space


class Tiny(Space):
    """A random network of a few thousand weights: a head on it learns colours within a second."""

    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    taps = Integer(1, 3)
    pooling = Choice("avg", "avgmax")
    lr = Float(1e-3, 1e-1, log=True)
    epochs = Integer(9, 20)
    batch_size = 16


Draw = Callable[[Path, int, int], None]


def draw(path: Path, label: int, seed: int, *, shifted: bool = False) -> None:
    """A square of noise: class 0 redder, class 1 bluer. Shifted: dark and without colour; class 0 has stripes."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 160, (72, 72, 3)).astype(np.int16)
    if not shifted:
        pixels[..., 0 if label == 0 else 2] += 70
    else:
        pixels //= 3
        if label == 0:
            pixels[::4, :, 1] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with 70 images each."""
    root = tmp_path_factory.mktemp("images")
    for label, name in enumerate(("red", "blue")):
        for i in range(70):
            draw(root / name / f"{i}.png", label, 1000 * label + i)
    return root


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """One embedded Ray for all tests of a module."""
    with runtime.connected():
        yield


@pytest.fixture(scope="session")
def tiny() -> Space:
    return Tiny()


@pytest.fixture(scope="session")
def draw_image() -> Callable[..., None]:
    return draw
