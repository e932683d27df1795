"""Class shares without labels: how often each class occurs now, if nothing but that has changed.

Where only the shares of the classes move (label shift), a calibrated model's probabilities tell the new shares, and are
put right by them (Saerens et al. 2002). Whether only that has moved is tested, too: then what the model says of new
images is distributed as what it said of held-out ones, drawn with the new shares (Lipton et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autovision.metrics import Floats, Ints

_STEPS = 500
_CLOSE = 1e-6
_LEAST_SHARE = 1e-4
_RESAMPLES = 200


@dataclass(frozen=True)
class ShiftEstimate:
    """What unlabelled images say of the shares of the classes.

    Attributes:
        before, after: (C,) shares among held-out images, and among the new ones.
        p_same: of so large a change by chance (likelihood ratio, by resampling held-out images).
        p_only_shares: of so large a distance between what is said of new images and of held-out ones with the new
            shares, if nothing but the shares had changed (parametric bootstrap of the Kolmogorov-Smirnov distance).
        gain: accuracy that the new shares are expected to add, by the corrected probabilities themselves.
        gain_low: its lower bound, one-sided at 95 %, by resampling the new images.
    """

    before: Floats
    after: Floats
    p_same: float
    p_only_shares: float
    gain: float
    gain_low: float


def shares_of(probabilities: Floats, before: Floats) -> Floats:
    """The shares (C,) of the classes among images of which these (N, C) are said, by expectation maximization.

    Args:
        before: (C,) shares that the probabilities assume.
    """
    after = before.copy()
    for _ in range(_STEPS):
        found = corrected(probabilities, before, after).mean(0)
        moved = float(np.abs(found - after).max())
        after = found
        if moved < _CLOSE:
            break
    after = np.maximum(after, _LEAST_SHARE)
    shares: Floats = after / after.sum()
    return shares


def corrected(probabilities: Floats, before: Floats, after: Floats) -> Floats:
    """(N, C) probabilities that assume some shares (C,), as they are with others."""
    weighed = probabilities * (after / before)
    posterior: Floats = weighed / weighed.sum(1, keepdims=True)
    return posterior


def estimate(new: Floats, held_out: Floats, labels: Ints, *, seed: int) -> ShiftEstimate:
    """What probabilities of new images (N, C) say, beside those of held-out ones (M, C) whose labels (M,) are known.

    Every class has held-out images.
    """
    rng = np.random.default_rng(seed)
    before = np.bincount(labels, minlength=held_out.shape[1]) / len(labels)
    after = shares_of(new, before)
    ratio = _ratio(new, before, after)
    distance = _distance(new, held_out, labels, before, after)
    rows = [np.flatnonzero(labels == c) for c in range(len(before))]
    ratios, drawn, gains = (np.empty(_RESAMPLES) for _ in range(3))
    for i in range(_RESAMPLES):
        # Both sides are samples: what is held out is no more than that of what might have been.
        unmoved = held_out[rng.choice(rng.integers(len(held_out), size=len(held_out)), len(new))]
        ratios[i] = _ratio(unmoved, before, shares_of(unmoved, before))
        again = np.concatenate([rng.choice(of, len(of)) for of in rows])
        picked = np.concatenate(
            [rng.choice(of, n) for of, n in zip(rows, rng.multinomial(len(new), after), strict=True) if n]
        )
        found = shares_of(held_out[picked], before)
        drawn[i] = _distance(held_out[picked], held_out[again], labels[again], before, found)
        resampled = new[rng.integers(len(new), size=len(new))]
        gains[i] = _gain(resampled, before, shares_of(resampled, before))
    return ShiftEstimate(
        before=before,
        after=after,
        p_same=float((1 + np.count_nonzero(ratios >= ratio)) / (1 + _RESAMPLES)),
        p_only_shares=float((1 + np.count_nonzero(drawn >= distance)) / (1 + _RESAMPLES)),
        gain=_gain(new, before, after),
        gain_low=float(np.quantile(gains, 0.05)),
    )


def _ratio(p: Floats, before: Floats, after: Floats) -> float:
    """The log likelihood ratio of new and old shares."""
    return float(np.log(p @ (after / before)).sum())


def _gain(p: Floats, before: Floats, after: Floats) -> float:
    """How much more often the corrected answers are expected to be right than the uncorrected ones."""
    right = corrected(p, before, after)
    return float(right.max(1).mean() - right[np.arange(len(p)), p.argmax(1)].mean())


def _distance(new: Floats, held_out: Floats, labels: Ints, before: Floats, after: Floats) -> float:
    """The largest Kolmogorov-Smirnov distance of any class's probability; held-out images weigh by the new shares."""
    weights = (after / before)[labels]
    weights = weights / weights.sum()
    return max(_ks(new[:, c], held_out[:, c], weights) for c in range(new.shape[1]))


def _ks(x: Floats, y: Floats, weights: Floats) -> float:
    values = np.concatenate([x, y])
    steps = np.concatenate([np.full(len(x), 1 / len(x)), -weights])
    order = np.argsort(values, kind="stable")
    values, heights = values[order], np.cumsum(steps[order])
    ends = np.append(np.flatnonzero(np.diff(values) > 0), len(values) - 1)
    return float(np.abs(heights[ends]).max())
