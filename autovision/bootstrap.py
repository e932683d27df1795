"""Percentile bootstrap intervals of every figure of an evaluation, all from the same resamples.

Images are drawn with replacement from all of them (Efron & Tibshirani 1993). Drawing within each class would hold the
classes' shares, on which F1 and average precision depend: on 200 images of which 30 % were positive such intervals held
the truth in 88 and 89 % of sets, these in 93 %. A resample is a row of counts of how often each image was drawn, so
each figure of all resamples is a few matrix operations. Images of a group, such as one patient's, hang together: groups
are drawn whole (the cluster bootstrap, Davison & Hinkley 1997), unless there is only one.

On a small set without any error such an interval shrinks to a point, where the intervals of `evaluation` do not: both
are shown. The calibration error of a resample is larger than that of its images by chance alone, so its interval
reaches too high.

Of a model with an operating point, which is a threshold that validation chose, `recall@precision=P` is the recall of
its answers, and `precision` tells what precision they have: the best threshold on these very images, which the metric
itself looks for, is none that is served. Without one it is the metric itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autovision import metrics
from autovision.decisions import Measure
from autovision.metrics import Counts, Floats, Ints, Mask, share
from autovision.records.models import Interval

_AT_ONCE = 2**22
"""drawn images of as many resamples as are computed at once"""


@dataclass(frozen=True)
class Said:
    """What is to be judged. Rows are images.

    Attributes:
        probabilities: (N, C).
        decided: (N, C) scores of the decision rule.
        labels: (N,), or (N, C) zeros and ones.
        positive: the class that F1 and rankings speak of.
        groups: (N,) names of those that are kept together; None: each is by itself.
    """

    probabilities: Floats
    decided: Floats
    labels: Ints
    positive: int | None
    groups: NDArray[np.str_] | None = None

    @property
    def several(self) -> bool:
        return self.labels.ndim == 2

    @property
    def has_rule(self) -> bool:
        """Whether answers follow from another rule than the default one."""
        return not np.array_equal(self.decided, self.probabilities)

    @property
    def has(self) -> Mask:
        return metrics.members(self.labels, self.probabilities.shape[1])

    def in_order(self) -> Said:
        """With its rows in an order that does not depend on the one that they came in."""
        labels = self.labels if self.several else self.labels[:, None]
        keys = np.hstack([self.group_numbers[:, None], self.probabilities, self.decided, labels])
        order = np.lexsort(keys.T)
        groups = None if self.groups is None else self.groups[order]
        return Said(self.probabilities[order], self.decided[order], self.labels[order], self.positive, groups)

    @property
    def group_numbers(self) -> Ints:
        """(N,) by the names of the groups; all 0 where images are drawn one by one."""
        if self.groups is None:
            return np.zeros(len(self.labels), np.intp)
        return np.unique(self.groups, return_inverse=True)[1]


def intervals(
    said: Said, measure: Measure | None = None, *, seed: int = 0, resamples: int = 1000
) -> dict[str, Interval]:
    """95 % intervals: of the metrics, `log_loss`, `ece`, and the measure; what is undefined is left out.

    With an operating point for a recall at a precision, that recall and `precision` of the answers.

    Resamples in which a figure is undefined are left out of its interval.
    """
    said = said.in_order()
    parts = [_figures(said, measure, weights) for weights in _resampled(said, seed, resamples)]
    once = _figures(said, measure, np.ones((1, len(said.labels))))
    found = {}
    for name, (value,) in once.items():
        draws = np.concatenate([part[name] for part in parts])
        draws = draws[np.isfinite(draws)]
        if np.isfinite(value) and len(draws):
            low, high = np.quantile(draws, (0.025, 0.975))
            found[name] = Interval(
                value=float(value), low=min(float(value), float(low)), high=max(float(value), float(high))
            )
    return found


def _resampled(said: Said, seed: int, resamples: int) -> Iterator[Floats]:
    """(r, N) how often each image is drawn, some resamples at a time."""
    rng, n = np.random.default_rng(seed), len(said.labels)
    at_once = max(1, _AT_ONCE // n)
    of = said.group_numbers
    if of.max() == 0:
        of = np.arange(n)
    units = int(of.max()) + 1
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = rng.integers(0, units, (count, units)) + units * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units)
        yield times[:, of].astype(np.float64)


def _figures(said: Said, measure: Measure | None, weights: Floats) -> Mapping[str, Floats]:
    """Each figure (r,) under weights (r, N)."""
    p, y, has, n = said.probabilities, said.labels, said.has, weights.sum(1)
    answered = metrics.answers(said.decided, y)
    counts = Counts(n[:, None], weights @ has, weights @ answered, weights @ (has & answered))
    found = {
        "accuracy": weights @ (has == answered).all(1) / n,
        "balanced_accuracy": counts.balanced_accuracy(several=said.several),
        "f1": counts.overall_f1(said.positive),
        "macro_f1": counts.overall_f1(None),
        "auroc": _mean_of(_auroc, said, weights, binary=(1,)),
        "average_precision": _mean_of(_average_precision, said, weights, binary=(0, 1)),
        "log_loss": weights @ metrics.log_losses(p, y) / n,
        "ece": np.abs(weights @ metrics.calibration_surplus(p, y)).sum(1) / n,
    }
    if measure is None or measure.name in found or measure.name == "neg_log_loss":
        return found
    precision = metrics.required_precision(measure.name)
    if precision is not None and said.has_rule:
        found[measure.name], found["precision"] = _answered(said, counts)
    elif precision is not None:
        found[measure.name] = _mean_of(
            lambda inside, outside: _recall_at(inside, outside, precision), said, weights, binary=(0, 1)
        )
    elif measure.costs is not None:
        found[measure.name] = -(weights @ measure.costs[y, said.decided.argmax(1)]) / n
    return found


def _answered(said: Said, counts: Counts) -> tuple[Floats, Floats]:
    """(r,) recall and precision of the answers: of the class that the threshold is on, or means over the labels.

    The recall is NaN where one of them is absent; labels that are never answered have no say in the precision.
    """
    columns = list(metrics.ranked_columns(said.probabilities, said.labels, said.positive, binary=(1,)))
    precisions = share(counts.hits, counts.answered)[:, columns]
    defined = ~np.isnan(precisions)
    precision = share(np.where(defined, precisions, 0.0).sum(1), defined.sum(1))
    return counts.recall[:, columns].mean(1), precision


def _mean_of(of_class, said: Said, weights: Floats, *, binary: tuple[int, ...]) -> Floats:  # type: ignore[no-untyped-def]
    """(r,) mean over the classes that are ranked of a figure of (r, G) weights inside and outside of each.

    G are the different scores, ascending: images of equal scores are drawn together.
    """
    total = np.zeros(len(weights))
    columns = metrics.ranked_columns(said.probabilities, said.labels, said.positive, binary=binary)
    has = said.has
    for c in columns:
        order = np.argsort(said.probabilities[:, c], kind="stable")
        ranked, inside = said.probabilities[order, c], has[order, c]
        starts = np.flatnonzero(np.diff(ranked, prepend=-np.inf))
        drawn = weights[:, order]
        total += of_class(
            np.add.reduceat(drawn * inside, starts, axis=1), np.add.reduceat(drawn * ~inside, starts, axis=1)
        )
    return total / len(columns)


def _auroc(inside: Floats, outside: Floats) -> Floats:
    below = np.cumsum(outside, 1) - outside / 2
    return share((inside * below).sum(1), inside.sum(1) * outside.sum(1))


def _from_above(inside: Floats, outside: Floats) -> tuple[Floats, Floats, Floats]:
    """(r, G) weights inside the class at and above each score, and all of them there; (r,) all inside, or NaN."""
    true, false = (np.cumsum(each[:, ::-1], 1)[:, ::-1] for each in (inside, outside))
    both_sides = (true[:, 0] > 0) & (false[:, 0] > 0)
    return true, true + false, np.where(both_sides, true[:, 0], np.nan)


def _average_precision(inside: Floats, outside: Floats) -> Floats:
    true, answered, all_inside = _from_above(inside, outside)
    precision = np.nan_to_num(share(true, answered))
    found: Floats = (inside * precision).sum(1) / all_inside
    return found


def _recall_at(inside: Floats, outside: Floats, precision: float) -> Floats:
    true, answered, all_inside = _from_above(inside, outside)
    enough = true >= precision * answered - 1e-9
    found: Floats = np.where(enough, true, 0.0).max(1) / all_inside
    return found
