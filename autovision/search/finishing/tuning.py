"""What does best on given images: a threshold of one class, and offsets of the log-probabilities of many."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autovision import metrics
from autovision.metrics import Counts, Floats, Ints, Mask

_BAGS = 50
"""resamples that a threshold is the median over"""
_MOST_CUTS = 256
_STEPS = 25
"""offsets that are tried of a class, in each of two rounds"""
LEAST, MOST = 1e-3, 1 - 1e-3
"""thresholds are not taken nearer to 0 and 1: hardly an image would be there to choose them by"""

Worth = Callable[[Counts], Floats]
"""the worth (R, T) of each threshold from counts (R, T, 2): of the other class, and of the one in question"""


def worth_of(name: str, positive: int | None) -> Worth:
    """By a metric that depends on answers.

    Args:
        positive: 1: the F1 of the class in question, for `f1`; None: the mean over both sides.
    """
    match name:
        case "accuracy":
            return lambda counts: counts.hits.sum(-1)
        case "balanced_accuracy":
            return lambda counts: counts.balanced_accuracy(several=False)
        case _:
            return lambda counts: counts.overall_f1(positive)


def at_precision(precision: float) -> Worth:
    """The recall where a threshold has this precision; minus infinity where it has not."""

    def worth(counts: Counts) -> Floats:
        hits, answered, actual = (each[..., 1] for each in (counts.hits, counts.answered, counts.actual))
        reached = (hits > 0) & (hits >= precision * answered - 1e-9)
        return np.where(reached, hits / np.maximum(actual, 1), -np.inf)

    return worth


def threshold(p: Floats, is_class: Mask, worth: Worth, seed: int) -> float:
    """The threshold on probabilities (N,) of a class with the largest worth: the median over resamples.

    A single sample's best threshold jumps with each image; the median of many is steadier (bagging, Breiman 1996).
    Resamples in which no threshold is worth anything have no say; one half if all are such.
    """
    cuts, best = _sweep(p, is_class, worth, seed)
    if not len(best):
        return metrics.THRESHOLD
    places = np.log(cuts / (1 - cuts))
    middle = float(np.median(places[best]))
    return float(np.clip(1 / (1 + np.exp(-middle)), LEAST, MOST))


def _sweep(p: Floats, is_class: Mask, worth: Worth, seed: int) -> tuple[Floats, Ints]:
    """Thresholds (T,), ascending, and the best one (R,) of each resample in which one has a finite worth."""
    order = np.argsort(p, kind="stable")
    p, is_class = np.clip(p[order], LEAST, MOST), is_class[order]
    ends = np.flatnonzero(np.diff(p) > 0)  # a cut above the image at this place
    if len(ends) > _MOST_CUTS:
        ends = ends[np.linspace(0, len(ends) - 1, _MOST_CUTS).astype(int)]
    logits = np.log(p / (1 - p))
    cuts = 1 / (1 + np.exp(-(logits[ends] + logits[ends + 1]) / 2))
    if not len(cuts):
        return np.array([0.5]), np.zeros(1, np.intp)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(p), np.full(len(p), 1 / len(p)), _BAGS).astype(np.float64)
    inside = np.cumsum(weights * is_class, 1)
    outside = np.cumsum(weights * ~is_class, 1)
    total = np.stack([outside[:, -1:], inside[:, -1:]], -1)
    below = np.stack([outside[:, ends], inside[:, ends]], -1)
    above = total - below
    hits = np.stack([below[..., 0], above[..., 1]], -1)
    answered = np.stack([below.sum(-1), above.sum(-1)], -1)
    values = worth(Counts(total.sum(-1, keepdims=True), total, answered, hits))
    values = np.where(np.isnan(values), -np.inf, values)
    top = values.max(1, keepdims=True)
    values, top = values[np.isfinite(top[:, 0])], top[np.isfinite(top[:, 0])]
    is_top = values >= top - 1e-12
    # Of equal ones the middle, in between those that some image would suffer by.
    best = (is_top.argmax(1) + (is_top.shape[1] - 1 - is_top[:, ::-1].argmax(1))) // 2
    return cuts, np.where(is_top[np.arange(len(best)), best], best, is_top.argmax(1))


def offsets_of(p: Floats, y: Ints, name: str) -> tuple[float, ...]:
    """Offsets (C,) of log-probabilities, by two rounds over the classes; each is moved where the metric gains."""
    n_classes = p.shape[1]
    z = np.log(np.maximum(p, 1e-12))
    actual = np.bincount(y, minlength=n_classes)
    offsets = np.zeros(n_classes)

    def value(said: Ints) -> float:
        answered = np.bincount(said, minlength=n_classes)
        hits = np.bincount(y[said == y], minlength=n_classes)
        if name == "accuracy":
            return float(hits.sum() / len(y))
        counts = Counts(len(y), actual, answered, hits)
        if name == "balanced_accuracy":
            return float(counts.balanced_accuracy(several=False))
        return float(counts.overall_f1(None))

    best = value(z.argmax(1))
    for _ in range(2):
        for c in range(n_classes):
            others = z + offsets
            others[:, c] = -np.inf
            rival, said = others.max(1), others.argmax(1)
            for offset in np.unique(np.quantile(rival - z[:, c], np.linspace(0.01, 0.99, _STEPS))):
                reached = value(np.where(z[:, c] + offset > rival, c, said))
                if reached > best + 1e-12:
                    best, offsets[c] = reached, offset
    return tuple((offsets - offsets.mean()).tolist())
