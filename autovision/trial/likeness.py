"""Near-duplicates by what a pretrained backbone sees: also mirrored ones, and such as a hash is too coarse for.

Embeddings of one domain all point nearly the same way, so they are whitened first: along each of their 128 main
components they then vary alike, and what is left in common is particular to two images. From a cosine of 0.85 on they
are near-duplicates. Of the 2,624 solar cells these are 160 pairs, of which 66 are near by hash, too; of mirrored copies
it finds 82 %, of darkened ones 62 %, of cropped ones 6 %, which are left to `group`. Fewer than 512 images tell too
little of how they vary, and are not compared.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autovision.duplicates import Pair, close, too_many
from autovision.errors import NotFound, WeightsUnavailable
from autovision.space.config import TrialConfig
from autovision.store.protocol import Store
from autovision.trial.held_out import embeddings
from autovision.trial.workbench import Workbench

COSINE = 0.85
COMPONENTS = 128
FEWEST = 4 * COMPONENTS


@dataclass(frozen=True)
class Likeness:
    """Tells near-duplicates, as `dataset.importer` asks for them.

    Attributes:
        config: whose backbone, weights and resolution are taken.
        compute_old: whether to compute embeddings of old images that the store lacks; otherwise these are not compared.
    """

    store: Store
    config: TrialConfig
    compute_old: bool = False

    def __call__(self, new: Sequence[str], old: Sequence[str]) -> list[Pair]:
        """Pairs among new images, and of a new and an old one; none where the weights cannot be had."""
        if not new or len(new) + len(old) < FEWEST:
            return []
        bench = Workbench(self.store, threads=len(os.sched_getaffinity(0)))
        try:
            seen = embeddings(bench, self.config, old, compute=self.compute_old)
            if len(new) + len(seen) < FEWEST:
                return []
            return alike_by_embedding(embeddings(bench, self.config, new), seen, self.config.backbone)
        except (WeightsUnavailable, NotFound):
            return []


def alike_by_embedding(new: dict[str, np.ndarray], old: dict[str, np.ndarray], backbone: str) -> list[Pair]:
    """Near-duplicates by embeddings, digest -> (D,); none of fewer than `FEWEST` images.

    Where nearly all look alike by nature, the cosine has to be closer to 1, by half each time.
    """
    names = [*sorted(new), *sorted(old)]
    if len(names) < FEWEST:
        return []
    x = _whitened(np.stack([new[name] if name in new else old[name] for name in names]).astype(np.float32))
    found = list(close(x[: len(new)], x[len(new) :], COSINE))
    apart = 1 - COSINE
    while apart > 1e-3 and too_many(
        [(names[i], names[j]) for i, j, c in found if 1 - c <= apart], len(names)
    ):
        apart /= 2
    return [
        Pair(names[i], names[j], f"{backbone} sees a likeness of {cosine:.2f}")
        for i, j, cosine in found
        if 1 - cosine <= apart
    ]


def _whitened(x: np.ndarray) -> np.ndarray:
    """(N, 128) float32 unit vectors."""
    centred = x - x.mean(0, dtype=np.float64).astype(np.float32)
    # By the covariance: N may be a hundred thousand, and D is a thousand.
    values, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64) / len(x))
    spread = np.sqrt(np.maximum(values[-COMPONENTS:], 1e-12))
    z = centred @ vectors[:, -COMPONENTS:] / spread
    return np.asarray(z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12), np.float32)
