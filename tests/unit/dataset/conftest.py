"""Real images on disk, and a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autovision.store.memory import MemoryStore

MakeImage = Callable[..., Path]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def make_image() -> MakeImage:
    """`make_image(path, seed)`: a small picture that no other seed gives."""

    def make(path: Path, seed: int = 0, size: tuple[int, int] = (12, 10)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return make


@pytest.fixture
def folder(tmp_path: Path, make_image: MakeImage) -> Path:
    """20 cats and 12 dogs."""
    for label, first, n in (("cat", 0, 20), ("dog", 100, 12)):
        for index in range(n):
            make_image(tmp_path / "pets" / label / f"{index:02}.png", first + index)
    return tmp_path / "pets"
