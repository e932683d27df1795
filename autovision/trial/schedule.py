"""What happens in which step of training: which rows under which views, mixed how, at which rate.

All of it is drawn from the seed and the epoch alone. Training that is resumed after an epoch, spread over workers,
split into parts or fused with others therefore goes on exactly as it would have gone alone.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from autovision.space.config import TrialConfig
from autovision.trial.data import Labelled
from autovision.trial.mixing import Mix, draw_mix

_FRESH = 2**31
"""so many views are as good as without limit"""


@dataclass(frozen=True)
class Step:
    """One step of the optimizer: B rows of the training split, a view of each, and how they are mixed."""

    rows: np.ndarray
    views: np.ndarray
    mix: Mix | None
    noise_seed: int

    def __len__(self) -> int:
        return len(self.rows)


def stream(seed: int, epoch: int, purpose: str) -> np.random.Generator:
    """Random numbers for one purpose in one epoch; independent of those for any other."""
    return np.random.default_rng([seed, epoch, zlib.crc32(purpose.encode())])


def steps_per_epoch(config: TrialConfig, images: int) -> int:
    return math.ceil(images / config.batch_size)


def epoch_steps(
    config: TrialConfig, split: Labelled, views: int | None, *, maps: bool, seed: int, epoch: int
) -> Iterator[Step]:
    """The steps of an epoch.

    Args:
        views: how many there are to draw from; None: without limit.
        maps: whether activation maps are trained on, into which CutMix can paste.
    """
    order = _order(config, split, stream(seed, epoch, "order"))
    drawn = stream(seed, epoch, "views").integers(views or _FRESH, size=len(order))
    mixing, noise = stream(seed, epoch, "mix"), stream(seed, epoch, "noise")
    for start in range(0, len(order), config.batch_size):
        rows = order[start : start + config.batch_size]
        yield Step(
            rows,
            drawn[start : start + config.batch_size],
            draw_mix(config, len(rows), maps, mixing),
            int(noise.integers(2**62)),
        )


def _order(config: TrialConfig, split: Labelled, rng: np.random.Generator) -> np.ndarray:
    """Each image once; or as many draws with replacement, every class equally likely."""
    if config.sampling == "shuffle":
        return rng.permutation(len(split))
    frequency = split.targets.sum(0).clamp(min=1)
    chances = (split.targets / frequency).sum(1).double().numpy()
    if not chances.any():
        return rng.permutation(len(split))
    return rng.choice(len(split), size=len(split), p=chances / chances.sum())
