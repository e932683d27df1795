"""A year of one deployment on a virtual clock: the shipped retraining policy beside three plain ones.

    python tests/benchmarks/bench_year.py --json bench-results/ --cache ~/.cache/bench-year --seeds 3

The real controller, monitor, retraining policy and promotion gate turn over a store in memory; see
`autovision.testing.year`. What arrives are embeddings of solar cells, recorded once: pooled features of
EfficientNet-Lite0 at 224 pixels, of mono and poly cells as they are, over-exposed (the glare of summer) and blurred (a
lens that gets dirty), reduced to 64 principal components of cells that nobody is judged by. A search is a logistic
regression on the labels of its data set version, and takes its whole budget on the virtual clock.

Accuracy is that of the model that serves, by the true labels of cells that no request ever shows, mixed as the traffic
of the day is; `best` is a regression on all cells that requests may show, with true labels.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from common import options, show, write_json
from PIL import Image

from autovision.records.base import digest_of

EXPOSURE, BLUR = 1.7, 0.012
"""severities, as in `autovision.registry.corruptions`"""
POLY = 900
CLASSES = ("defective", "functional")
COMPONENTS = 64


def compute(few: int | None) -> dict[str, np.ndarray]:
    """kind/embeddings, kind/labels and kind/cells (numbers of the package) of every kind of image."""
    import torch

    from autovision import image as images_
    from autovision.dataset.elpv import load_elpv
    from autovision.model import backbone as backbones
    from autovision.model.inference import native_precision
    from autovision.model.network import Network
    from autovision.model.predictor import Scorer
    from autovision.model.stages import channels_of
    from autovision.registry.corruptions import corrupted
    from autovision.space.config import TrialConfig

    config = TrialConfig(backbone="tf_efficientnet_lite0", resolution=224, taps=3, pooling="avgmax")
    prep, staged = backbones.preprocessing(config), backbones.load(config).staged
    network = Network(staged, config, prep, channels_of(staged, prep.height, prep.width), 2).eval()
    scorer = Scorer.as_evaluated(
        network, (prep.height, prep.width), native_precision(), torch.get_num_threads()
    )
    cells = load_elpv()
    rng = np.random.default_rng(0)
    by_type = {
        name: rng.permutation([i for i, cell in enumerate(cells) if cell.metadata["cell_type"] == name])
        for name in ("mono", "poly")
    }
    mono, poly = by_type["mono"][:few], by_type["poly"][: few or POLY]
    changes: dict[str, tuple[Sequence[int], Callable[[Image.Image, str], Image.Image]]] = {
        "mono": (mono, lambda image, key: image),
        "mono-glare": (mono, partial(corrupted, kind="exposure", severity=EXPOSURE)),
        "mono-blur": (mono, partial(corrupted, kind="blur", severity=BLUR)),
        "poly": (poly, lambda image, key: image),
        "poly-blur": (poly, partial(corrupted, kind="blur", severity=BLUR)),
    }
    found: dict[str, np.ndarray] = {}
    for kind, (chosen, change) in changes.items():
        parts = []
        for begin in range(0, len(chosen), 100):
            pixels = []
            for i in chosen[begin : begin + 100]:
                with Image.open(cells[i].path) as opened:
                    changed = change(opened.convert("RGB"), digest_of(cells[i].source))
                pixels.append(images_.preprocess(changed, prep))
            parts.append(scorer(np.stack(pixels))[1])
        found[f"{kind}/embeddings"] = np.concatenate(parts).astype(np.float32)
        found[f"{kind}/labels"] = np.array([CLASSES.index(cells[i].label) for i in chosen])
        found[f"{kind}/cells"] = np.asarray(chosen)
    return found


def recorded(folder: Path, few: int | None) -> Path:
    """Where the embeddings are; the first time they are computed, which takes minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"year-{digest_of([EXPOSURE, BLUR, POLY, few])[:16]}.npz"
    if not path.exists():
        scratch = folder / f".{path.name}"
        with scratch.open("wb") as file:
            np.savez(file, **compute(few))
        scratch.replace(path)
        print(f"embeddings are in {path}", flush=True)
    return path
