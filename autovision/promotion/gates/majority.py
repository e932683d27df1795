"""The first model of all has no champion to be compared with: it has to know more than the most frequent class."""

from __future__ import annotations

import numpy as np

from autovision.metrics import Counts, Floats, Ints, answers, balanced_accuracy, members, right
from autovision.promotion.gates.paired import GateResult, Paired
from autovision.records.datasets import spoken
from autovision.significance import LEVEL, independence_test, sign_test


def beats_majority(paired: Paired) -> GateResult:
    """Whether the challenger knows more than the most frequent class.

    Either way suffices, each at half of the 5 %: its accuracy is above that of always giving the most
    frequent answer (McNemar's exact test), or its balanced accuracy is above that of any answer that
    ignores the image (permutation test): 1 / C, or one half with any number of classes. The second is
    for rare classes, where a useful model may well have an accuracy below the majority's share.
    """
    p, y = paired.said_by_challenger, paired.labels
    frequent, count = _most_frequent(y)
    is_right, is_frequent = right(p, y), (y == frequent).reshape(len(y), -1).all(1)
    by_accuracy = sign_test(int((is_right & ~is_frequent).sum()), int((~is_right & is_frequent).sum()))
    worth, chance = _worth(p, y)
    has, said = members(y, p.shape[1]), answers(p, y)
    by_balance = independence_test(has, said, worth) if chance < 1 else 1.0
    passed = min(by_accuracy, by_balance) <= LEVEL / 2
    accuracy, share, n = float(is_right.mean()), count / len(y), len(y)
    balanced = balanced_accuracy(p, y)
    return GateResult(
        "beats_majority",
        passed,
        f"on {n} images its accuracy is {accuracy:.3f} against {share:.3f} for always answering "
        f"{_named(paired, frequent)} (p = {by_accuracy:.2g}), its balanced accuracy {balanced:.3f} against "
        f"{chance:.3f} (p = {by_balance:.2g}); one p must be at most {LEVEL / 2:g}",
        {
            "n": n,
            "accuracy": accuracy,
            "majority_accuracy": share,
            "p_accuracy": by_accuracy,
            "balanced_accuracy": balanced,
            "p_balanced_accuracy": by_balance,
        },
    )


def _most_frequent(labels: Ints) -> tuple[Ints, int]:
    """The label, or the set of labels, that most images have, and how many."""
    values, counts = np.unique(labels, axis=0, return_counts=True)
    return values[counts.argmax()], int(counts.max())


def _named(paired: Paired, label: Ints) -> str:
    if np.ndim(label) == 0:
        return spoken(paired.classes[int(label)])
    return spoken(tuple(paired.classes[c] for c in np.flatnonzero(label)))


def _worth(probabilities: Floats, labels: Ints) -> tuple[Floats, float]:
    """What each right answer of a class, (C,), adds to the balanced accuracy, and that of blind answers.

    With any number of classes an answer that is right costs none of the specificity, so its worth is the sum
    of its parts in both.
    """
    counts = Counts.of(probabilities, labels)
    occurs = counts.actual > 0
    if labels.ndim == 1:
        return np.where(occurs, 1 / np.maximum(counts.actual, 1), 0.0), 1 / float(occurs.sum())
    both = occurs & (counts.actual < counts.n)
    others = np.maximum(counts.n - counts.actual, 1)
    worth = np.where(both, 1 / np.maximum(counts.actual, 1) + 1 / others, 0.0)
    return worth, 0.5 if both.any() else 1.0
