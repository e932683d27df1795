"""Prediction, confidence and quality: whether the mean of any of several figures moved, and which did.

Each figure's mean in the window is compared with that of all rows, in units of what dealing rows at random makes of it;
the statistic is the largest square. Its permutation distribution allows for how many figures there are, and for how
they go together (Westfall & Young 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autovision.monitoring.detectors.permutation import Floats, Outcome, permutation_test

_FURTHEST = 6.0
"""in robust standard deviations: one image beyond does not stand for all"""
_TO_SD = 1.4826
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Column:
    """What is known of one figure after a test."""

    number: int
    """of the figure"""
    p_value: float
    """that allows for all figures of the test"""


def columns_test(
    normal: Floats, window: Floats, *, alpha: float, rng: np.random.Generator
) -> tuple[Outcome, list[Column]]:
    """Whether the means of `window` (m, F) differ from those of `normal` (n, F); the figures, the surest first."""
    rows = np.concatenate([normal, window])
    n, m, total = len(normal), len(window), len(rows)
    centred = rows - rows.mean(0)
    sd = centred.std(0)
    moving = sd > 1e-9 * np.maximum(np.abs(rows).max(0), 1e-12)
    z = np.where(moving, centred / np.where(moving, sd, 1.0), 0.0)
    variance = m * n / (total - 1)

    def each(members: Floats) -> Floats:
        values: Floats = (members @ z) ** 2 / variance
        return values

    outcome = permutation_test(lambda members: each(members).max(1), n, m, alpha=alpha, rng=rng)
    observed = np.zeros((1, total))
    observed[0, n:] = 1
    scores = each(observed)[0]
    null = np.sort(outcome.null)
    above = len(null) - np.searchsorted(null, scores, side="left")
    p_values = (1 + above) / (1 + len(null))
    order = np.argsort(-scores, kind="stable")
    found = [
        Column(int(c), outcome.p_value if c == order[0] else float(p_values[c])) for c in order if moving[c]
    ]
    return outcome, found


def robust(normal: Floats, window: Floats) -> tuple[Floats, Floats]:
    """Both (rows, F) as (rows, 2 F): distances from the median, and their squares, which tell of wider spread.

    Median and scale are of both together, so that neither part is treated otherwise than the other.
    """
    rows = np.concatenate([normal, window])
    middle = np.median(rows, axis=0)
    # What differs by rounding alone, such as the size of images that all have the same, does not move.
    least = _ROUNDING * np.maximum(np.abs(middle), 1.0)
    scale, sd = _TO_SD * np.median(np.abs(rows - middle), axis=0), rows.std(0)
    scale = np.where(scale > least, scale, np.where(sd > least, sd, np.inf))
    z = np.clip((rows - middle) / scale, -_FURTHEST, _FURTHEST)
    both = np.concatenate([z, z**2], axis=1)
    return both[: len(normal)], both[len(normal) :]


def with_spread(names: Sequence[str]) -> list[str]:
    """The names of what `robust` makes of figures of those names."""
    return [*names, *(f"spread of {name}" for name in names)]
