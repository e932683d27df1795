"""Accuracy by labels that came late: labelled requests against held-out images.

Labels are rarely of requests drawn at random: reviews ask of what the model is unsure. So each label is compared with
held-out images of about the same confidence: within such a stratum, as long as confidence means what it meant, who is
right is dealt at random between the two, and the number of right answers has a hypergeometric distribution; over the
strata these add up (the exact test of Cochran, Mantel and Haenszel). That holds whatever was labelled by confidence.
Labels outside of reviews are compared as they are, too; each of the two tests has half of the level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from autovision.monitoring.detectors.permutation import Floats

Flags = NDArray[np.bool_]

_STRATA = 5
_PLAIN_LEAST = 2


@dataclass(frozen=True)
class Answers:
    """Labelled answers of one model."""

    right: Flags
    """(n,)"""
    confidence: Floats
    """(n,)"""
    reviewed: Flags
    """(n,) whether a review asked for the label"""

    def __len__(self) -> int:
        return len(self.right)


@dataclass(frozen=True)
class Fewer:
    """Whether fewer answers are right than among held-out images."""

    score: float
    """share of right answers that are missing"""
    threshold: float
    p_value: float
    expected: float
    """share of right answers among images of the same confidences"""

    def alarm(self, alpha: float) -> bool:
        return self.p_value <= alpha


def accuracy_test(held_out: Answers, labelled: Answers, alpha: float) -> Fewer:
    """One-sided: a better accuracy is no alarm. An alarm without change has probability `alpha` at most."""
    edges = np.unique(np.quantile(held_out.confidence, np.linspace(0, 1, _STRATA + 1)[1:-1]))
    stratified = _fewer(
        held_out,
        labelled,
        np.searchsorted(edges, held_out.confidence, side="right"),
        np.searchsorted(edges, labelled.confidence, side="right"),
        alpha / 2,
    )
    open_ = ~labelled.reviewed
    found = [stratified]
    if open_.sum() >= _PLAIN_LEAST:
        plain = Answers(labelled.right[open_], labelled.confidence[open_], labelled.reviewed[open_])
        zeros = np.zeros(len(held_out), np.intp), np.zeros(len(plain), np.intp)
        found.append(_fewer(held_out, plain, *zeros, alpha / 2))
    best = min(found, key=lambda each: each.p_value)
    return Fewer(best.score, best.threshold, min(1.0, 2 * best.p_value), stratified.expected)


def interval(right: int, n: int) -> tuple[float, float]:
    """95 % of a share (Clopper & Pearson 1934)."""
    low = float(stats.beta.ppf(0.025, right, n - right + 1)) if right else 0.0
    high = float(stats.beta.ppf(0.975, right + 1, n - right)) if right < n else 1.0
    return low, high


def _fewer(
    held_out: Answers, labelled: Answers, of_held_out: NDArray[np.intp], of: NDArray[np.intp], alpha: float
) -> Fewer:
    distribution = np.ones(1)
    expected = 0.0
    for stratum in np.unique(of):
        here, there = labelled.right[of == stratum], held_out.right[of_held_out == stratum]
        total, right = len(here) + len(there), int(here.sum() + there.sum())
        law = stats.hypergeom(total, right, len(here))
        distribution = np.convolve(distribution, law.pmf(np.arange(len(here) + 1)))
        expected += float(there.mean()) * len(here) if len(there) else float(here.sum())
    n, observed = len(labelled), int(labelled.right.sum())
    below = np.minimum(np.cumsum(distribution), 1.0)
    surprising = np.flatnonzero(below <= alpha)
    most = int(surprising[-1]) if len(surprising) else -1
    return Fewer(
        score=(expected - observed) / n,
        threshold=(expected - most) / n,
        p_value=float(below[observed]),
        expected=expected / n,
    )
