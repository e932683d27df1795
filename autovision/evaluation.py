"""A model's figures on a set of labelled images, with 95 % intervals. Arrays are those of `metrics`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autovision.bootstrap import Said, intervals
from autovision.decisions import Measure
from autovision.errors import InvalidInput
from autovision.metrics import (
    Counts,
    Floats,
    Ints,
    Mask,
    answers,
    auroc_parts,
    average_precision,
    balanced_accuracy,
    checked,
    confusion_matrix,
    expected_calibration_error,
    f1,
    members,
    neg_log_loss,
    ranked_columns,
    right,
    share,
)
from autovision.records.datasets import Split
from autovision.records.models import Evaluation, Interval

Z95 = NormalDist().inv_cdf(0.975)
_DENSE_CLASSES = 32
_DRAWS_AT_ONCE = 2**22


def evaluate(
    probabilities: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    *,
    positive_class: str | None,
    dataset: str,
    split: Split,
    where: Mapping[str, str] | None = None,
    decided: ArrayLike | None = None,
    measure: Measure | None = None,
    groups: Sequence[str] = (),
    seed: int = 0,
    resamples: int = 1000,
) -> Evaluation:
    """How probabilities (N, C) do on labels (N,) or (N, C), with 95 % intervals.

    Accuracy has Wilson's interval (1927), AUROC Wilson's with the sample size that DeLong's variance
    (DeLong et al. 1988) amounts to, balanced accuracy and F1 the percentiles of a Bayesian bootstrap
    (Rubin 1981) of the confusion matrix with one prior observation in each row. None of them shrinks
    to a point on a small set without errors, as percentiles of plain resampling would. With several labels
    the bootstrap draws images, whose labels hang together, and the prior is one observation for each class's
    presence and one for its absence; there is no confusion matrix. `seed` and `resamples` are the bootstrap's;
    the order of the rows has no influence.

    `bootstrap` holds percentiles of plain resampling of every figure, `measure` included: see `autovision.bootstrap`.
    `groups` are (N,) names of images that are kept together, and drawn together there; none: each is by itself. The
    other intervals take images for independent.

    `decided` are the scores (N, C) of the model's decision rule, which its answers follow from; None: the
    probabilities. `measure` is the metric that the user asked for.

    A class that is absent has no recall and makes AUROC None. An F1 without any positive is
    0 in [0, 1]: nothing is known. Raises `InvalidInput` for arrays that do not fit.
    """
    p, y = checked(probabilities, labels)
    if p.shape[1] != len(classes):
        raise InvalidInput(
            f"{p.shape[1]} columns of probabilities for {len(classes)} classes {list(classes)}"
        )
    if positive_class is not None and positive_class not in classes:
        raise InvalidInput(f"the positive class {positive_class!r} is none of {list(classes)}")
    positive = None if positive_class is None else list(classes).index(positive_class)
    said = p if decided is None else checked(decided, y)[0]
    bootstrap = _Bootstrap(seed, resamples)
    if y.ndim == 1:
        confusion = confusion_matrix(said, y)
        balanced, of_f1 = bootstrap.of_table(confusion, positive)
    else:
        confusion = np.zeros((0, 0), np.int64)
        balanced, of_f1 = bootstrap.of_sets(members(y, len(classes)), answers(said, y))
    recalls, precision = Counts.of(said, y).recall, average_precision(p, y, positive)
    return Evaluation(
        dataset=dataset,
        split=split,
        where=dict(where or {}),
        n=len(y),
        accuracy=wilson(int(right(said, y).sum()), len(y)),
        balanced_accuracy=_percentiles(balanced_accuracy(said, y), balanced),
        f1=Interval(value=0.0, low=0.0, high=1.0)
        if of_f1 is None
        else _percentiles(f1(said, y, positive), of_f1),
        auroc=_auroc_interval(p, y, positive),
        average_precision=precision if math.isfinite(precision) else None,
        log_loss=-neg_log_loss(p, y),
        ece=expected_calibration_error(p, y),
        majority_accuracy=float(np.unique(y, axis=0, return_counts=True)[1].max() / len(y)),
        per_class_recall={
            name: float(recall) for name, recall in zip(classes, recalls, strict=True) if np.isfinite(recall)
        },
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
        bootstrap=intervals(
            Said(p, said, y, positive, np.array(groups) if len(groups) else None),
            measure,
            seed=seed,
            resamples=resamples,
        ),
        resamples=resamples,
    )


def wilson(successes: float, n: float) -> Interval:
    """A share with Wilson's 95 % score interval (Wilson 1927). Both numbers may be effective ones."""
    share = successes / n
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    return Interval(
        value=share, low=max(0.0, min(share, centre - half)), high=min(1.0, max(share, centre + half))
    )


# ---------------------------------------------------------------------------------------------- parts


def _auroc_interval(p: Floats, y: Ints, positive: int | None) -> Interval | None:
    columns = ranked_columns(p, y, positive, binary=(1,))
    has = members(y, p.shape[1])
    influence = np.zeros(len(y))
    areas = []
    for c in columns:
        area, outranked = auroc_parts(p[:, c], has[:, c])
        if math.isnan(area):
            return None
        prior = has[:, c].mean()
        influence += (outranked - area) / np.where(has[:, c], prior, 1 - prior) / len(columns)
        areas.append(area)
    value = float(np.mean(areas))
    variance = float(np.mean(influence**2)) / len(y)
    # Without a single misranked pair the variance says nothing; the rarest side is then what limits us.
    counts = has[:, columns].sum(0)
    rarest = float(np.minimum(counts, len(y) - counts).min())
    effective = min(value * (1 - value) / variance, y.size) if variance > 0 else rarest
    return wilson(value * max(effective, 1.0), max(effective, 1.0))


@dataclass(frozen=True)
class _Bootstrap:
    """Draws, (R,) each, of balanced accuracy and of F1; None for an F1 of which nothing is known."""

    seed: int
    resamples: int

    def of_table(self, confusion: NDArray[np.int64], positive: int | None) -> tuple[Floats, Floats | None]:
        """From (R, cells) Gamma draws of a (C, C) confusion matrix."""
        n_classes = len(confusion)
        present = confusion.sum(1) > 0
        # With many classes the prior's mass per cell is next to nothing, and most cells are empty.
        kept = (confusion > 0) | np.eye(n_classes, dtype=bool) | (n_classes <= _DENSE_CLASSES)
        rows, columns = np.nonzero(kept & present[:, None])
        rng = np.random.default_rng(self.seed)
        draws = rng.standard_gamma(confusion[rows, columns] + 1 / n_classes, (self.resamples, len(rows)))
        per_row = draws @ np.eye(n_classes)[rows]
        # The rows' own masses must not hold the prior: class shares are as observed, recalls are smoothed.
        masses = np.zeros((self.resamples, n_classes))
        masses[:, present] = rng.standard_gamma(
            confusion.sum(1)[present], (self.resamples, int(present.sum()))
        )
        draws *= masses[:, rows] / per_row[:, rows]
        true = np.zeros((self.resamples, n_classes))
        diagonal = rows == columns
        true[:, rows[diagonal]] = draws[:, diagonal]
        predicted = draws @ np.eye(n_classes)[columns]

        balanced = np.mean(true[:, present] / masses[:, present], axis=1)
        scores = share(2 * true, masses + predicted)
        if positive is not None and n_classes == 2:
            return balanced, scores[:, positive] if present[positive] else None
        # The same classes as in the figure itself: those that occur or are predicted.
        return balanced, scores[:, present | (confusion.sum(0) > 0)].mean(1)

    def of_sets(self, has: Mask, said: Mask) -> tuple[Floats, Floats | None]:
        """From Gamma draws of the images' labels and answers, both (N, C).

        Images are drawn whole, since their labels hang together; those that are alike in all are one cell.
        """
        n_classes = has.shape[1]
        cells, images = np.unique(np.hstack([has, said]), axis=0, return_counts=True)
        has, said = cells[:, :n_classes], cells[:, n_classes:]
        rng = np.random.default_rng(self.seed)
        at_once = max(1, _DRAWS_AT_ONCE // len(cells))
        sums = []
        for start in range(0, self.resamples, at_once):
            draws = rng.standard_gamma(images, (min(at_once, self.resamples - start), len(cells)))
            sums.append([draws @ has, draws @ ~has, draws @ (has & said), draws @ (~has & said)])
        with_class, without, hits, false = np.concatenate(sums, axis=1)

        prior = rng.standard_gamma(0.5, (4, self.resamples, n_classes))
        recall = (hits + prior[0]) / (with_class + prior[0] + prior[1])
        fallout = (false + prior[2]) / (without + prior[2] + prior[3])
        sides = np.array([has.any(0), ~has.all(0)])
        balanced = ((recall * sides[0] + (1 - fallout) * sides[1]) / sides.sum(0)).mean(1)
        seen = has.any(0) | said.any(0)
        true = recall * with_class
        scores = share(2 * true, with_class + true + fallout * without)
        return balanced, scores[:, seen].mean(1) if has.any() else None


def _percentiles(value: float, draws: Floats) -> Interval:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(value=value, low=min(value, float(low)), high=max(value, float(high)))
