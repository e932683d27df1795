"""A data set of 24 small images, and what computes features of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autovision.dataset.importer import import_dataset
from autovision.store import MemoryStore
from autovision.trial.workbench import Workbench


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    for label, name in enumerate(("dark", "bright")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = np.random.default_rng(100 * label + i).integers(0, 120, (64, 64, 3)) + 100 * label
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / name / f"{i}.png")
    store = MemoryStore()
    import_dataset(store, tmp_path / "images", "shades", seed=0)
    return Workbench(store, threads=1)
