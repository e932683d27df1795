"""Figures of merit: what searches are ranked by, and what a model version reports of itself.

Probabilities are (N, C) floats whose columns follow the model's classes, labels are (N,) integers
below C. Every metric in `METRICS` is higher-is-better, so that `max` always picks the better model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autovision.errors import InvalidInput, near
from autovision.records import Evaluation, Interval, Split

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Metric = Callable[[Floats, Ints, int | None], float]
"""(probabilities (N, C), labels (N,), index of the positive class or None) -> value; NaN where undefined"""

Z95 = NormalDist().inv_cdf(0.975)
ECE_BINS = 15
_LEAST_PROBABILITY = float(np.finfo(np.float32).eps)
_DENSE_CLASSES = 32
_TEMPERATURES = (0.05, 20.0)


# ------------------------------------------------------------------------------------- single metrics


def accuracy(probabilities: Floats, labels: Ints, positive: int | None = None) -> float:
    """Share of rows whose most probable class is the label."""
    return float(np.mean(probabilities.argmax(1) == labels))


def balanced_accuracy(probabilities: Floats, labels: Ints, positive: int | None = None) -> float:
    """Mean recall over the classes that occur in `labels`."""
    recalls = _recalls(confusion_matrix(probabilities, labels))
    return float(np.nanmean(recalls))


def f1(probabilities: Floats, labels: Ints, positive: int | None = None) -> float:
    """F1 of the positive class for two classes; else the mean over the classes that occur or are predicted.

    NaN where the positive class neither occurs nor is predicted.
    """
    return float(_f1(confusion_matrix(probabilities, labels).astype(np.float64), positive))


def auroc(probabilities: Floats, labels: Ints, positive: int | None = None) -> float:
    """Area under the ROC curve, ties counted half; more than two classes: macro one-against-rest.

    NaN where a class is absent.
    """
    columns = _ranked_columns(probabilities.shape[1], positive, binary=(1,))
    return float(np.mean([_auroc_parts(probabilities[:, c], labels == c)[0] for c in columns]))


def average_precision(probabilities: Floats, labels: Ints, positive: int | None = None) -> float:
    """Average precision of the positive class; macro one-against-rest where there is none.

    NaN where a class is absent. Equal scores are one threshold, as in scikit-learn.
    """
    columns = _ranked_columns(probabilities.shape[1], positive, binary=(0, 1))
    return float(np.mean([_average_precision(probabilities[:, c], labels == c) for c in columns]))


def neg_log_loss(probabilities: Floats, labels: Ints, positive: int | None = None) -> float:
    """Mean log-probability of the label, in nats.

    A probability counts as at least the resolution of f32, in which models answer.
    """
    of_label = probabilities[np.arange(len(labels)), labels]
    return float(np.mean(np.log(np.maximum(of_label, _LEAST_PROBABILITY))))


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "f1": f1,
    "auroc": auroc,
    "average_precision": average_precision,
    "neg_log_loss": neg_log_loss,
}


def check_metric(name: str) -> str:
    """`name` if there is such a metric; else an `InvalidInput` that offers the near ones."""
    if name not in METRICS:
        raise InvalidInput(f"the metrics are {', '.join(METRICS)}; there is no {name!r}{near(name, METRICS)}")
    return name


def score(probabilities: ArrayLike, labels: ArrayLike, positive: int | None = None) -> dict[str, float]:
    """All metrics of probabilities (N, C) on labels (N,); those that are undefined here are left out.

    Raises `InvalidInput` for no rows, probabilities that are not finite, or labels outside the columns.
    """
    p, y = checked(probabilities, labels)
    values = {name: metric(p, y, positive) for name, metric in METRICS.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}


# ----------------------------------------------------------------------------------------- evaluation


def evaluate(
    probabilities: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    *,
    positive_class: str | None,
    dataset: str,
    split: Split,
    where: Mapping[str, str] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Evaluation:
    """How probabilities (N, C) do on labels (N,), with 95 % intervals.

    Accuracy has Wilson's interval (1927), AUROC Wilson's with the sample size that DeLong's variance
    (DeLong et al. 1988) amounts to, balanced accuracy and F1 the percentiles of a Bayesian bootstrap
    (Rubin 1981) of the confusion matrix with one prior observation in each row. None of them shrinks
    to a point on a small set without errors, as percentiles of plain resampling would. `seed` and
    `resamples` are the bootstrap's; the order of the rows has no influence.

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
    confusion = confusion_matrix(p, y)
    balanced, of_f1 = _bootstrapped(confusion, positive, seed=seed, resamples=resamples)
    recalls = _recalls(confusion)
    return Evaluation(
        dataset=dataset,
        split=split,
        where=dict(where or {}),
        n=len(y),
        accuracy=wilson(int(np.trace(confusion)), len(y)),
        balanced_accuracy=balanced,
        f1=of_f1,
        auroc=_auroc_interval(p, y, positive),
        log_loss=-neg_log_loss(p, y),
        ece=expected_calibration_error(p, y),
        majority_accuracy=float(confusion.sum(1).max() / len(y)),
        per_class_recall={
            name: float(recall) for name, recall in zip(classes, recalls, strict=True) if np.isfinite(recall)
        },
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
    )


def checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Ints]:
    """The arrays as float64 (N, C) and integers (N,). Raises `InvalidInput` where they cannot be scored."""
    p = np.asarray(probabilities, np.float64)
    given = np.asarray(labels)
    if p.ndim != 2 or given.shape != p.shape[:1]:
        raise InvalidInput(
            f"probabilities of shape {p.shape} do not go with labels of shape {given.shape}; "
            "give (N, C) and (N,)"
        )
    if not len(given):
        raise InvalidInput("there are no images to score; give a split or a selection that is not empty")
    if p.shape[1] < 2:
        raise InvalidInput(f"scoring needs at least two classes, but there is {p.shape[1]}")
    if not np.issubdtype(given.dtype, np.integer):
        raise InvalidInput(f"labels are indices of classes, but their type is {given.dtype}")
    y = given.astype(np.intp)
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise InvalidInput(
            f"labels go from {y.min()} to {y.max()}, but the classes from 0 to {p.shape[1] - 1}"
        )
    if not np.isfinite(p).all():
        bad = int((~np.isfinite(p)).any(1).sum())
        raise InvalidInput(
            f"{bad} of {len(y)} rows of probabilities are not finite; the model has diverged: "
            "lower its learning rate"
        )
    return p, y


def confusion_matrix(probabilities: Floats, labels: Ints) -> NDArray[np.int64]:
    """(C, C) counts; rows are true classes, columns predicted ones."""
    n_classes = probabilities.shape[1]
    cells = labels * n_classes + probabilities.argmax(1)
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.int64)


def expected_calibration_error(probabilities: Floats, labels: Ints, bins: int = ECE_BINS) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of confidence (Guo et al. 2017)."""
    confidence = probabilities.max(1)
    surplus = confidence - (probabilities.argmax(1) == labels)
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(bin_of, weights=surplus, minlength=bins)).sum() / len(labels))


def wilson(successes: float, n: float) -> Interval:
    """A share with Wilson's 95 % score interval (Wilson 1927). Both numbers may be effective ones."""
    share = successes / n
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    return Interval(
        value=share, low=max(0.0, min(share, centre - half)), high=min(1.0, max(share, centre + half))
    )


# ---------------------------------------------------------------------------------------- calibration


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature that logits (N, C) are divided by to be calibrated on labels (N,) (Guo et al. 2017).

    Minimises the total negative log-likelihood plus (log T)² / 2, a log-normal prior around 1. With a
    hundred rows the prior is worth less than one of them; where the labels are separated perfectly it
    alone keeps T from going to 0. T lies in 0.05 … 20. Raises `InvalidInput` as `score` does.
    """
    z, y = checked(logits, labels)
    z = z - z.max(1, keepdims=True)
    of_label = z[np.arange(len(y)), y]

    def loss(log_t: float) -> float:
        scaled = z / math.exp(log_t)
        nll = np.log(np.exp(scaled).sum(1)).sum() - of_label.sum() / math.exp(log_t)
        return float(nll) + log_t**2 / 2

    grid = np.linspace(math.log(_TEMPERATURES[0]), math.log(_TEMPERATURES[1]), 41)
    best = int(np.argmin([loss(t) for t in grid]))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    return math.exp(_golden_section(loss, low, high))


def _golden_section(f: Callable[[float], float], low: float, high: float, steps: int = 30) -> float:
    """Where `f`, which has one minimum between `low` and `high`, is least (Kiefer 1953)."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = f(left), f(right)
    for _ in range(steps):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = f(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = f(right)
    return (low + high) / 2


# ---------------------------------------------------------------------------------------------- parts


def _recalls(confusion: NDArray[Any]) -> Floats:
    """(C,) recalls; NaN for a class without rows."""
    rows = confusion.sum(1).astype(np.float64)
    recalls: Floats = np.divide(np.diag(confusion), rows, out=np.full(len(rows), np.nan), where=rows > 0)
    return recalls


def _f1(confusion: Floats, positive: int | None) -> float:
    true = np.diag(confusion)
    scores = _f1_of(true, confusion.sum(1), confusion.sum(0))
    if positive is not None and len(true) == 2:
        return float(scores[positive])
    return float(np.nanmean(scores))


def _f1_of(true: Floats, actual: Floats, predicted: Floats) -> Floats:
    """2 TP / (actual + predicted); NaN where both are 0."""
    total = actual + predicted
    scores: Floats = np.divide(2 * true, total, out=np.full(total.shape, np.nan), where=total > 0)
    return scores


def _ranked_columns(n_classes: int, positive: int | None, *, binary: tuple[int, ...]) -> Sequence[int]:
    """The columns whose ranking counts: the positive one of two, `binary` if none is named, else all."""
    if n_classes > 2:
        return range(n_classes)
    return binary if positive is None else (positive,)


def _auroc_parts(scores: Floats, is_class: NDArray[np.bool_]) -> tuple[float, Floats]:
    """AUROC, and the (N,) shares of the other side that each row outranks (DeLong et al. 1988).

    NaN where there is only one side.
    """
    inside, outside = scores[is_class], scores[~is_class]
    share = np.full(len(scores), np.nan)
    if not len(inside) or not len(outside):
        return math.nan, share
    below = np.sort(outside)
    share[is_class] = (below.searchsorted(inside, "left") + below.searchsorted(inside, "right")) / (
        2 * len(outside)
    )
    above = np.sort(inside)
    share[~is_class] = 1 - (above.searchsorted(outside, "left") + above.searchsorted(outside, "right")) / (
        2 * len(inside)
    )
    return float(share[is_class].mean()), share


def _auroc_interval(p: Floats, y: Ints, positive: int | None) -> Interval | None:
    columns = _ranked_columns(p.shape[1], positive, binary=(1,))
    influence = np.zeros(len(y))
    areas = []
    for c in columns:
        is_class = y == c
        area, share = _auroc_parts(p[:, c], is_class)
        if math.isnan(area):
            return None
        prior = is_class.mean()
        influence += (share - area) / np.where(is_class, prior, 1 - prior) / len(columns)
        areas.append(area)
    value = float(np.mean(areas))
    variance = float(np.mean(influence**2)) / len(y)
    # Without a single misranked pair the variance says nothing; the rarest class is then what limits us.
    rarest = float(np.bincount(y, minlength=p.shape[1]).min())
    effective = min(value * (1 - value) / variance, len(y)) if variance > 0 else rarest
    return wilson(value * max(effective, 1.0), max(effective, 1.0))


def _average_precision(scores: Floats, is_class: NDArray[np.bool_]) -> float:
    n_inside = int(is_class.sum())
    if n_inside in (0, len(scores)):
        return math.nan
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    true = np.cumsum(is_class[order])[ends]
    return float(np.sum(np.diff(true, prepend=0) / n_inside * true / (ends + 1)))


def _bootstrapped(
    confusion: NDArray[np.int64], positive: int | None, *, seed: int, resamples: int
) -> tuple[Interval, Interval]:
    """Balanced accuracy and F1 with their intervals from (resamples, cells) Gamma draws."""
    n_classes = len(confusion)
    present = confusion.sum(1) > 0
    # With many classes the prior's mass per cell is next to nothing, and most cells are empty.
    kept = (confusion > 0) | np.eye(n_classes, dtype=bool) | (n_classes <= _DENSE_CLASSES)
    rows, columns = np.nonzero(kept & present[:, None])
    rng = np.random.default_rng(seed)
    draws = rng.standard_gamma(confusion[rows, columns] + 1 / n_classes, (resamples, len(rows)))
    per_row = draws @ np.eye(n_classes)[rows]
    # The rows' own masses must not hold the prior: class shares are as observed, recalls are smoothed.
    masses = np.zeros((resamples, n_classes))
    masses[:, present] = rng.standard_gamma(confusion.sum(1)[present], (resamples, int(present.sum())))
    draws *= masses[:, rows] / per_row[:, rows]
    true = np.zeros((resamples, n_classes))
    diagonal = rows == columns
    true[:, rows[diagonal]] = draws[:, diagonal]
    predicted = draws @ np.eye(n_classes)[columns]

    balanced = np.mean(true[:, present] / masses[:, present], axis=1)
    observed = float(np.nanmean(_recalls(confusion)))
    of_f1 = _f1(confusion.astype(np.float64), positive)
    binary = positive is not None and n_classes == 2
    if binary and not present[positive]:
        return _percentiles(observed, balanced), Interval(value=0.0, low=0.0, high=1.0)
    scores = _f1_of(true, masses, predicted)
    # The same classes as in the figure itself: those that occur or are predicted.
    drawn = scores[:, positive] if binary else scores[:, present | (confusion.sum(0) > 0)].mean(1)
    return _percentiles(observed, balanced), _percentiles(of_f1, drawn)


def _percentiles(value: float, draws: Floats) -> Interval:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(value=value, low=min(value, float(low)), high=max(value, float(high)))
