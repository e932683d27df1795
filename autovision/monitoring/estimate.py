"""Accuracy without labels, from confidences, with the error that chance makes.

ATC (Garg et al. 2022): as many held-out confidences are above a threshold as held-out answers are right; the estimate
is the share of the window's confidences above it. DoC (Guillory et al. 2021): held-out accuracy less the fall of the
mean confidence. Both believe that confidence means what it meant. Where a model is sure of what it has never seen they
promise too much, and no figure of theirs tells.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from autovision.monitoring.detectors.labelled import Answers
from autovision.monitoring.detectors.permutation import Floats
from autovision.records.deployments import AccuracyEstimate

_RESAMPLES = 500
_LEAST = 20


def estimate(
    held_out: Answers,
    confidence: Floats,
    rng: np.random.Generator,
    corrupted: Mapping[str, Answers] | None = None,
) -> AccuracyEstimate | None:
    """The accuracy of a window with those confidences (m,); None: too few to speak of.

    Args:
        corrupted: answers to corrupted held-out images, by kind, on which the estimate is tried.
    """
    n, m = len(held_out), len(confidence)
    if n < _LEAST or m < _LEAST:
        return None
    drawn = rng.integers(0, n, (_RESAMPLES, n))
    window = confidence[rng.integers(0, m, (_RESAMPLES, m))]
    resampled = _above(held_out.confidence[drawn], held_out.right[drawn].mean(1), window)
    whole = held_out.right.mean(keepdims=True)
    value = float(_above(held_out.confidence[None], whole, confidence[None])[0])
    # The 2.5th and 97.5th of the resampled errors, around the estimate.
    low, high = np.quantile(resampled, [0.025, 0.975])
    fall = float(held_out.confidence.mean() - confidence.mean())
    return AccuracyEstimate(
        value=value,
        low=float(min(low, value)),
        high=float(max(high, value)),
        by_difference=float(np.clip(whole[0] - fall, 0, 1)),
        tried={
            kind: float(
                _above(held_out.confidence[None], whole, each.confidence[None])[0] - each.right.mean()
            )
            for kind, each in (corrupted or {}).items()
            if len(each)
        },
        held_out=float(whole[0]),
        n=m,
        held_out_n=n,
    )


def _above(held_out: Floats, accuracy: Floats, window: Floats) -> Floats:
    """(R,) estimates of R pairs of samples (R, n) and (R, m).

    Of confidences that are equal to the threshold, as those of a model that is quite sure of nearly everything, that
    part counts which makes the held-out ones come to their accuracy.
    """
    ordered = np.sort(held_out, axis=1)
    wrong = np.rint((1 - accuracy) * ordered.shape[1]).astype(np.intp)
    padded = np.concatenate([ordered, np.full((len(ordered), 1), np.inf)], axis=1)
    threshold = np.take_along_axis(padded, wrong[:, None], axis=1)
    above, equal = (ordered > threshold).sum(1), (ordered == threshold).sum(1)
    part = (ordered.shape[1] - wrong - above) / np.maximum(equal, 1)
    share: Floats = (window > threshold).mean(1) + part * (window == threshold).mean(1)
    return share
