"""Tests and bounds on paired predictions: two models' answers to the same images.

With right or wrong answers all evidence is in two counts: `gained`, images that only the challenger
gets right, and `lost`, those that only the champion does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from autovision.metrics import Floats, Ints, Mask

LEVEL = 0.05
"""one-sided error of every gate"""
POWER = 0.80
_RESAMPLES = 1000


def z_of(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


def sign_test(successes: int, failures: int) -> float:
    """P(X >= successes) for X ~ Binomial(successes + failures, 1/2): McNemar's exact test, one-sided."""
    n = successes + failures
    term, total = math.comb(n, successes), 0
    for k in range(successes, n + 1):
        total += term
        term = term * (n - k) // (k + 1)
    return total / (1 << n)


def paired_lower_bound(gained: float, lost: float, n: int, z: float) -> float:
    """Lower bound of (gained - lost) / n, the difference of two paired shares, by Tango's score (1998).

    It keeps its level on small sets, and unlike a bootstrap it does not shrink to a point where the two
    models never disagree. `z` is the normal quantile of the level.
    """
    low, high = -1.0, (gained - lost) / n
    for _ in range(50):
        middle = (low + high) / 2
        if _tango_score(gained, lost, n, middle) > z:
            low = middle
        else:
            high = middle
    return low


def _tango_score(gained: float, lost: float, n: int, difference: float) -> float:
    a, b = 2 * n, -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    share_lost = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * share_lost + difference * (1 - difference))
    return (gained - lost - n * difference) / math.sqrt(max(variance, 1e-12))


def can_bound(gained: int, lost: int, n: int, margin: float) -> bool:
    """Whether `n` images suffice to show, with 80 % power, that an equal model is within `margin`.

    Takes the models to disagree as often as they do here, half of the time in favour of each.
    """
    half = (gained + lost) / 2
    return paired_lower_bound(half, half, n, z_of(1 - LEVEL) + z_of(POWER)) > -margin


def bootstrap_difference(
    champion: Floats, challenger: Floats, labels: Ints, measure: Callable[[Floats, Ints], float]
) -> Floats:
    """Resampled differences, challenger minus champion, of a measure of what they say (N, C); (R,) sorted.

    Rows are drawn in pairs (Efron & Tibshirani 1993), from an order that does not depend on the
    input's. Resamples in which the metric is undefined are left out.
    """
    order = np.lexsort(np.column_stack([champion, challenger, labels]).T)
    champion, challenger, labels = champion[order], challenger[order], labels[order]
    rng = np.random.default_rng(0)
    differences = np.empty(_RESAMPLES)
    for i in range(_RESAMPLES):
        rows = rng.integers(0, len(labels), len(labels))
        drawn = labels[rows]
        differences[i] = measure(challenger[rows], drawn) - measure(champion[rows], drawn)
    kept: Floats = np.sort(differences[np.isfinite(differences)])
    return kept


def f1_gain_lower_bound(
    actual: NDArray[np.bool_], before: NDArray[np.bool_], after: NDArray[np.bool_]
) -> float:
    """Lower bound of the change of one class's F1, by a paired bootstrap of the eight cells.

    All arguments are (N,): whether the class is the label, the champion's answer, the challenger's.
    """
    return float(np.quantile(_f1_gains(actual, before, after), LEVEL))


def f1_change(
    actual: NDArray[np.bool_], before: NDArray[np.bool_], after: NDArray[np.bool_]
) -> tuple[float, float]:
    """The change of one class's F1, and its standard error, by the same bootstrap of the same arguments."""
    gains = _f1_gains(actual, before, after)
    return float(gains.mean()), float(gains.std())


def _f1_gains(actual: NDArray[np.bool_], before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Floats:
    cells = np.bincount(actual * 4 + before * 2 + after, minlength=8)
    drawn = (
        np.random.default_rng(0).multinomial(len(actual), cells / len(actual), _RESAMPLES).astype(np.float64)
    )
    in_class = drawn[:, 4:].sum(1)

    def f1(answered: list[int], right: list[int]) -> Floats:
        total = in_class + drawn[:, answered].sum(1)
        values: Floats = 2 * drawn[:, right].sum(1) / np.maximum(total, 1)
        return values

    gains: Floats = f1([1, 3, 5, 7], [5, 7]) - f1([2, 3, 6, 7], [6, 7])
    return gains


def independence_test(has: Mask, said: Mask, worth: Floats, resamples: int = 2000) -> float:
    """P-value of right answers worth this much from answers that know nothing of the labels.

    `has` and `said` are (N, C): the classes of an image, and those that are answered; `worth` is (C,), of a
    right answer. The labels are permuted between the images, so that the numbers of labels and of answers are
    kept, as in Fisher's exact test. A model that always gives one answer has the p-value 1.
    """
    order = np.lexsort(np.hstack([has, said]).T)
    value = np.where(has, worth, 0.0)[order]
    rows, columns = np.nonzero(said[order])
    observed = float(value[rows, columns].sum())
    rng = np.random.default_rng(0)
    above = 0
    for _ in range(resamples):
        dealt = rng.permutation(len(value))
        above += bool(value[dealt[rows], columns].sum() >= observed - 1e-12)
    return (1 + above) / (1 + resamples)


def chance_not_worse(difference: float, error: float, noise: float, margin: float) -> float:
    """Chance that a gate of not being worse lets a challenger pass, by what was seen of it on other images.

    Before anything is seen, its true difference from the champion is taken to be 0, give or take half the margin: what
    few images say is mostly noise, and moves that little. What is seen two standard errors away from 0 and more is
    believed. The gate is the easier of its two rules: a lower bound above -margin, or no significant worsening. So the
    chance has no step where the one takes the other's place.

    Args:
        difference: challenger minus champion, as it was seen.
        error: its standard error.
        noise: the standard error of the difference that the gate will see.
        margin: so much worse is still equal; above 0.
    """
    z = z_of(1 - LEVEL)
    return _chance_above(min(z * noise - margin, -z * noise), difference, error, noise, margin)


def chance_better(difference: float, error: float, noise: float, margin: float) -> float:
    """Chance that a gate finds a challenger better, its lower bound above 0; all else as in `chance_not_worse`."""
    return _chance_above(z_of(1 - LEVEL) * noise, difference, error, noise, margin)


def _chance_above(least: float, difference: float, error: float, noise: float, margin: float) -> float:
    """That a gate sees a difference of at least `least`."""
    known = (margin / 2) ** 2
    believed = known + max(0.0, difference**2 - (2 * error) ** 2)
    over = difference * believed / (believed + error**2) - least
    spread = math.hypot(error * math.sqrt(known / (known + error**2)), noise)
    return NormalDist().cdf(over / spread) if spread > 0 else float(over >= 0)
