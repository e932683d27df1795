"""Figures of merit: what searches are ranked by, and what a model version reports of itself.

Probabilities are (N, C) floats whose columns follow the model's classes. Labels are (N,) integers below
C where an image has exactly one; where it may have any number of them, or none, labels are (N, C) zeros
and ones, and a model answers each class whose probability is above `THRESHOLD`. Every metric in `METRICS`
is higher-is-better, so that `max` always picks the better model. Where a model's decision rule is another one
than the most probable class or `THRESHOLD`, the metrics in `DECIDED` take the rule's scores in the place of
probabilities (see `autovision.decisions`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autovision.errors import InvalidInput, near

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Mask = NDArray[np.bool_]
Metric = Callable[[Floats, Ints, int | None], float]
"""(probabilities (N, C), labels (N,) or (N, C), index of the positive class or None) -> value; NaN where undefined"""

THRESHOLD = 0.5
"""a class among several is answered where its probability is above this"""
ECE_BINS = 15
_LEAST_PROBABILITY = float(np.finfo(np.float32).eps)


# ------------------------------------------------------------------------------------- single metrics


def accuracy(probabilities: Floats, labels: Ints, positive: int | None = None) -> float:
    """Share of images whose answer is right: see `right`. With several labels this is the exact match ratio."""
    return float(np.mean(right(probabilities, labels)))


def balanced_accuracy(probabilities: Floats, labels: Ints, positive: int | None = None) -> float:
    """Mean recall over the classes that occur in `labels`.

    With several labels each class is a question of its own: the mean over the classes of the mean of
    sensitivity and specificity, or of the one of them that is defined.
    """
    return float(Counts.of(probabilities, labels).balanced_accuracy(several=labels.ndim == 2))


def f1(probabilities: Floats, labels: Ints, positive: int | None = None) -> float:
    """F1 of the positive class for two classes; else the mean over the classes that occur or are predicted.

    NaN where none of these classes occurs or is predicted.
    """
    return float(Counts.of(probabilities, labels).overall_f1(positive))


def macro_f1(probabilities: Floats, labels: Ints, positive: int | None = None) -> float:
    """Mean F1 over the classes that occur or are predicted, whether or not one of two is the positive one."""
    return f1(probabilities, labels, None)


def auroc(probabilities: Floats, labels: Ints, positive: int | None = None) -> float:
    """Area under the ROC curve, ties counted half; more than two classes, or several labels: macro
    one-against-rest.

    NaN where a class is absent, or is on every image.
    """
    columns = ranked_columns(probabilities, labels, positive, binary=(1,))
    has = members(labels, probabilities.shape[1])
    return float(np.mean([auroc_parts(probabilities[:, c], has[:, c])[0] for c in columns]))


def average_precision(probabilities: Floats, labels: Ints, positive: int | None = None) -> float:
    """Average precision of the positive class; macro one-against-rest where there is none (mAP).

    NaN where a class is absent, or is on every image. Equal scores are one threshold, as in scikit-learn.
    """
    columns = ranked_columns(probabilities, labels, positive, binary=(0, 1))
    has = members(labels, probabilities.shape[1])
    return float(np.mean([_average_precision(probabilities[:, c], has[:, c]) for c in columns]))


def recall_at_precision(probabilities: Floats, labels: Ints, positive: int | None, precision: float) -> float:
    """The largest recall that a threshold on the positive class gives at this precision or a better one.

    The threshold is chosen on the very images: for ranking, not for what a chosen threshold does on new ones.
    0 where none does. Macro one-against-rest where there is no positive class; NaN where a class is absent, or is
    on every image. Equal scores are one threshold.
    """
    columns = ranked_columns(probabilities, labels, positive, binary=(0, 1))
    has = members(labels, probabilities.shape[1])
    return float(np.mean([_recall_at(probabilities[:, c], has[:, c], precision) for c in columns]))


def neg_log_loss(probabilities: Floats, labels: Ints, positive: int | None = None) -> float:
    """Mean log-probability of the label, in nats; with several labels, of each class's being there or not.

    A probability counts as at least the resolution of f32, in which models answer.
    """
    return -float(np.mean(log_losses(probabilities, labels)))


def log_losses(probabilities: Floats, labels: Ints) -> Floats:
    """(N,) of each image, in nats; with several labels the mean over the classes. See `neg_log_loss`."""
    if labels.ndim == 1:
        of_truth = probabilities[np.arange(len(labels)), labels][:, None]
    else:
        of_truth = np.where(labels == 1, probabilities, 1 - probabilities)
    losses: Floats = -np.log(np.maximum(of_truth, _LEAST_PROBABILITY)).mean(1)
    return losses


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "auroc": auroc,
    "average_precision": average_precision,
    "neg_log_loss": neg_log_loss,
}

DECIDED = ("accuracy", "balanced_accuracy", "f1", "macro_f1")
"""those that look at answers alone, not at how sure they are"""
RANKING = ("auroc", "average_precision")
"""those that, like `recall@precision=P`, need images with and without each class whose ranking counts"""
COST = "neg_mean_cost"
"""minus the mean cost of the answers, by a matrix that the user gives"""
_RECALL_AT_PRECISION = re.compile(r"recall@precision=(\d*\.?\d+)")


def check_metric(name: str) -> str:
    """`name` if there is such a metric; else an `InvalidInput` that offers the near ones."""
    if name in METRICS or name == COST:
        return name
    if name.startswith("recall@"):
        required_precision(name)
        return name
    known = [*METRICS, "recall@precision=P", COST]
    raise InvalidInput(f"the metrics are {', '.join(known)}; there is no {name!r}{near(name, known)}")


def required_precision(name: str) -> float | None:
    """P of `recall@precision=P`; None for another metric.

    Raises `InvalidInput` for one that begins so but whose P is no number above 0 and at most 1.
    """
    if not name.startswith("recall@"):
        return None
    match = _RECALL_AT_PRECISION.fullmatch(name)
    precision = float(match[1]) if match else 0.0
    if not 0 < precision <= 1:
        raise InvalidInput(
            f"metric {name!r}: a recall is asked for at a precision above 0 and at most 1, "
            "such as recall@precision=0.9"
        )
    return precision


def score(probabilities: ArrayLike, labels: ArrayLike, positive: int | None = None) -> dict[str, float]:
    """All metrics of probabilities (N, C) on labels (N,) or (N, C); those that are undefined here are left out.

    Raises `InvalidInput` for no rows, probabilities that are not finite, or labels outside the columns.
    """
    p, y = checked(probabilities, labels)
    values = {name: metric(p, y, positive) for name, metric in METRICS.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}


# ------------------------------------------------------------------------------------------- questions


def checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Ints]:
    """The arrays as float64 (N, C) and integers (N,) or (N, C).

    Raises `InvalidInput` where they cannot be scored.
    """
    p = np.asarray(probabilities, np.float64)
    given = np.asarray(labels)
    if p.ndim != 2 or given.shape not in (p.shape[:1], p.shape):
        raise InvalidInput(
            f"probabilities of shape {p.shape} do not go with labels of shape {given.shape}; "
            "give (N, C) and (N,), or (N, C) and (N, C) for several labels"
        )
    if not len(given):
        raise InvalidInput("there are no images to score; give a split or a selection that is not empty")
    if p.shape[1] < 2:
        raise InvalidInput(f"scoring needs at least two classes, but there is {p.shape[1]}")
    if not np.issubdtype(given.dtype, np.integer):
        what = "indices of classes" if given.ndim == 1 else "zeros and ones, in integers"
        raise InvalidInput(f"labels are {what}, but their type is {given.dtype}")
    y = given.astype(np.intp)
    if y.ndim == 2 and not np.isin(y, (0, 1)).all():
        raise InvalidInput(f"several labels are zeros and ones, but these go from {y.min()} to {y.max()}")
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


def members(labels: Ints, n_classes: int) -> Mask:
    """(N, C): which classes an image has."""
    mask: Mask = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(n_classes)
    return mask


def answers(probabilities: Floats, labels: Ints) -> Mask:
    """(N, C): which classes the model answers: the most probable one, or those above `THRESHOLD`."""
    if labels.ndim == 2:
        return probabilities > THRESHOLD
    return members(probabilities.argmax(1), probabilities.shape[1])


def right(probabilities: Floats, labels: Ints) -> Mask:
    """(N,): whether the most probable class is the label, or the classes above `THRESHOLD` are the labels."""
    if labels.ndim == 2:
        all_right: Mask = ((probabilities > THRESHOLD) == (labels == 1)).all(1)
        return all_right
    hit: Mask = probabilities.argmax(1) == labels
    return hit


@dataclass(frozen=True)
class Counts:
    """Of each class: its images, its answers, and those of them that are right; each (…, C).

    They may be sums of weights; `n` has the shape (…, 1) where they are of several samples.
    """

    n: int | NDArray[Any]
    actual: NDArray[Any]
    answered: NDArray[Any]
    hits: NDArray[Any]

    @classmethod
    def of(cls, probabilities: Floats, labels: Ints) -> Counts:
        has, said = members(labels, probabilities.shape[1]), answers(probabilities, labels)
        return cls(len(labels), has.sum(0), said.sum(0), (has & said).sum(0))

    @property
    def recall(self) -> Floats:
        """(C,); NaN for a class that no image has."""
        return share(self.hits, self.actual)

    @property
    def specificity(self) -> Floats:
        """(C,) shares of the images without a class that are answered so; NaN where there is none."""
        others = self.n - self.actual
        return share(others - (self.answered - self.hits), others)

    @property
    def f1(self) -> Floats:
        """(C,) 2 TP / (actual + answered); NaN for a class that neither occurs nor is answered."""
        return share(2 * self.hits, self.actual + self.answered)

    def balanced_accuracy(self, *, several: bool) -> Floats:
        """(…,): see the function `balanced_accuracy`; `several`: of several labels."""
        if not several:
            return _nanmean(self.recall)
        sides = np.stack([self.recall, self.specificity], axis=-1)
        return _nanmean(sides).mean(-1)  # type: ignore[no-any-return]

    def overall_f1(self, positive: int | None) -> Floats:
        """(…,): see the function `f1`."""
        scores = self.f1
        if positive is not None and scores.shape[-1] == 2:
            return scores[..., positive]
        return _nanmean(scores)


def _nanmean(values: Floats) -> Floats:
    """The mean over the last axis of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    return share(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))


def share(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Elementwise part / whole; NaN where the whole is 0."""
    shape = np.broadcast_shapes(np.shape(part), np.shape(whole))
    shares: Floats = np.divide(part, whole, out=np.full(shape, np.nan), where=whole > 0)
    return shares


def confusion_matrix(probabilities: Floats, labels: Ints) -> NDArray[np.int64]:
    """(C, C) counts of labels (N,); rows are true classes, columns predicted ones."""
    n_classes = probabilities.shape[1]
    cells = labels * n_classes + probabilities.argmax(1)
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.int64)


def expected_calibration_error(probabilities: Floats, labels: Ints, bins: int = ECE_BINS) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of confidence (Guo et al. 2017).

    With several labels, over all decisions whether an image has a class.
    """
    return float(np.abs(calibration_surplus(probabilities, labels, bins).sum(0)).sum() / len(labels))


def calibration_surplus(probabilities: Floats, labels: Ints, bins: int = ECE_BINS) -> Floats:
    """(N, bins) by how much each image's confidence exceeds its being right, at the bin of that confidence.

    With several labels the mean over its decisions. The absolute sums over images, divided by N, are the calibration
    error's parts.
    """
    if labels.ndim == 1:
        confidence, is_right = probabilities.max(1)[:, None], right(probabilities, labels)[:, None]
    else:
        confidence = np.maximum(probabilities, 1 - probabilities)
        is_right = (probabilities > THRESHOLD) == (labels == 1)
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)
    n, decisions = confidence.shape
    cells = np.arange(n)[:, None] * bins + bin_of
    surplus = np.bincount(cells.ravel(), weights=(confidence - is_right).ravel(), minlength=n * bins)
    shares: Floats = surplus.reshape(n, bins) / decisions
    return shares


def ranked_columns(
    probabilities: Floats, labels: Ints, positive: int | None, *, binary: tuple[int, ...]
) -> Sequence[int]:
    """The columns whose ranking counts: the positive one of two, `binary` if none is named, else all."""
    n_classes = probabilities.shape[1]
    if n_classes > 2 or (labels.ndim == 2 and positive is None):
        return range(n_classes)
    return binary if positive is None else (positive,)


def auroc_parts(scores: Floats, is_class: NDArray[np.bool_]) -> tuple[float, Floats]:
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


def _average_precision(scores: Floats, is_class: NDArray[np.bool_]) -> float:
    n_inside = int(is_class.sum())
    if n_inside in (0, len(scores)):
        return math.nan
    true, ends = _found(scores, is_class)
    return float(np.sum(np.diff(true, prepend=0) / n_inside * true / (ends + 1)))


def _recall_at(scores: Floats, is_class: Mask, precision: float) -> float:
    n_inside = int(is_class.sum())
    if n_inside in (0, len(scores)):
        return math.nan
    true, ends = _found(scores, is_class)
    enough = true >= precision * (ends + 1) - 1e-9
    return float(true[enough].max(initial=0) / n_inside)


def _found(scores: Floats, is_class: Mask) -> tuple[Ints, Ints]:
    """Of each threshold, from the highest: images of the class at or above it, and the rank of the last image."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return np.cumsum(is_class[order])[ends], ends
