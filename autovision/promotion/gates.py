"""Gates: what a challenger must show on held-out images before it may serve.

Each gate is a pure function of paired predictions and has a one-sided error of 5 %. The order of the
images has no influence on any of them.

The rule of not being worse, used for the whole set, for each subgroup and for each class's recall:
where there are enough images to show with 80 % power that an equal model is within the margin, the
challenger must show it: the lower bound of its difference (Tango 1998) must lie above -margin. On
fewer images even an equal model would often fail that, so there a challenger that cannot show it
fails only by a significant worsening (McNemar's exact test).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autovision.decisions import Measure
from autovision.errors import InvalidInput
from autovision.metrics import (
    Counts,
    Floats,
    Ints,
    Mask,
    answers,
    balanced_accuracy,
    checked,
    members,
    right,
)
from autovision.promotion.significance import (
    LEVEL,
    POWER,
    bootstrap_difference,
    can_bound,
    f1_gain_lower_bound,
    independence_test,
    paired_lower_bound,
    sign_test,
    z_of,
)
from autovision.records.datasets import spoken

MARGIN = 0.03


@dataclass(frozen=True)
class Paired:
    """Predictions of champion and challenger for the same held-out images, in the same columns.

    Raises `InvalidInput` where the arrays do not fit each other. A champion that does not know a class
    has zeros in its column.
    """

    labels: Ints
    """(N,), or (N, C) zeros and ones where an image may have any number of classes"""
    champion: Floats | None
    """(N, C) probabilities; None: nothing is served yet"""
    challenger: Floats
    """(N, C)"""
    groups: Mapping[str, Mask] = field(default_factory=dict)
    """subgroup -> (N,) which images belong to it"""
    classes: tuple[str, ...] = ()
    """names of the columns; empty: their numbers"""
    positive: int | None = None
    """column of the positive class, for the metrics that have one"""
    champion_scores: Floats | None = None
    """(N, C) by its decision rule (see `autovision.decisions`); None: the probabilities"""
    challenger_scores: Floats | None = None
    """the same"""
    costs: Floats | None = None
    """(C, C) of answering the column where the row is true, for the metric `neg_mean_cost`"""

    def __post_init__(self) -> None:
        challenger, labels = checked(self.challenger, self.labels)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "challenger", challenger)
        n_classes = challenger.shape[1]
        object.__setattr__(self, "classes", self.classes or tuple(str(c) for c in range(n_classes)))
        if len(self.classes) != n_classes:
            raise InvalidInput(f"{len(self.classes)} classes are named for {n_classes} columns")
        if self.champion is not None:
            champion, _ = checked(self.champion, labels)
            if champion.shape != challenger.shape:
                raise InvalidInput(
                    f"the champion's predictions are {champion.shape}, the challenger's {challenger.shape}; "
                    "bring both to the challenger's classes"
                )
            object.__setattr__(self, "champion", champion)
        for name in ("champion_scores", "challenger_scores"):
            if (decided := getattr(self, name)) is not None:
                object.__setattr__(self, name, checked(decided, labels)[0])
        for name, mask in self.groups.items():
            if np.shape(mask) != labels.shape[:1] or np.asarray(mask).dtype != np.bool_:
                raise InvalidInput(f"the subgroup {name!r} is not a mask over the {len(labels)} images")

    def only(self, mask: Mask) -> Paired:
        """The same for the images in `mask`."""
        champion, champion_scores, challenger_scores = (
            None if of is None else of[mask]
            for of in (self.champion, self.champion_scores, self.challenger_scores)
        )
        return Paired(
            self.labels[mask],
            champion,
            self.challenger[mask],
            classes=self.classes,
            positive=self.positive,
            champion_scores=champion_scores,
            challenger_scores=challenger_scores,
            costs=self.costs,
        )

    @property
    def said_by_challenger(self) -> Floats:
        """(N, C) scores of which its answers follow."""
        return self.challenger if self.challenger_scores is None else self.challenger_scores


@dataclass(frozen=True)
class GateResult:
    """One gate's verdict."""

    name: str
    passed: bool
    reason: str
    """a clause with numbers"""
    numbers: dict[str, Any]


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


def not_worse_overall(paired: Paired, *, metric: str = "accuracy", margin: float = MARGIN) -> GateResult:
    """Whether the challenger is not worse on all images, by the rule above.

    For metrics other than accuracy the bound is that of a paired bootstrap, `margin` in the metric's
    unit, and a worsening is significant where the upper bound lies below 0.
    """
    return _not_worse("not_worse_overall", paired, "on all images", metric, margin)


def not_worse_on(
    paired: Paired, group: str, *, metric: str = "accuracy", margin: float = MARGIN
) -> GateResult:
    """The same for one subgroup. Where the metric is undefined in it, accuracy takes its place."""
    mask = paired.groups[group]
    name = f"not_worse_on[{group}]"
    if not mask.any():
        return GateResult(name, True, f"there are no {group} images to judge", {"n": 0})
    part = paired.only(mask)
    return _not_worse(name, part, f"on {group}", metric if _defined(part, metric) else "accuracy", margin)


def no_forgetting(paired: Paired, label: int, *, margin: float = MARGIN) -> GateResult:
    """Whether the recall of one class is not worse, by the rule above.

    A champion that gives an answer far too often has a high recall without knowing the class. A loss
    of recall is therefore forgiven where it buys more than it costs: where the class's F1 is better
    with 95 % confidence.
    """
    y, champion, class_name = paired.labels, _said_by_champion(paired), paired.classes[label]
    name = f"no_forgetting[{class_name}]"
    of_class = members(y, len(paired.classes))[:, label]
    if not of_class.any():
        return GateResult(name, True, f"there are no {class_name} images to judge", {"n": 0})
    before, after = (answers(said, y)[:, label] for said in (champion, paired.said_by_challenger))
    recall = _not_worse_share(
        name, before[of_class], after[of_class], f"in the recall of {class_name}", margin
    )
    if recall.passed:
        return recall
    gain = f1_gain_lower_bound(of_class, before, after)
    numbers = recall.numbers | {"f1_before": _f1(of_class, before), "f1_after": _f1(of_class, after)}
    change = f"its F1 goes from {numbers['f1_before']:.3f} to {numbers['f1_after']:.3f}"
    bound = f"a change of at least {gain:+.3f} with 95 % confidence"
    verdict = "it was answered too often before" if gain > 0 else "so precision does not make up for it"
    return GateResult(
        name, gain > 0, f"{recall.reason}; {change}, {bound}: {verdict}", numbers | {"f1_gain_low": gain}
    )


def better_somewhere(paired: Paired, *, metric: str = "accuracy") -> GateResult:
    """Whether the challenger is better on all images or on a subgroup.

    One-sided tests (McNemar's exact one for accuracy, a paired bootstrap otherwise) on the whole and
    on each subgroup, corrected for their number (Bonferroni), so that a challenger that equals the
    champion everywhere is promoted with a probability of 5 % at most.
    """
    parts = {"all images": paired} | {
        name: paired.only(mask)
        for name, mask in sorted(paired.groups.items())
        if mask.any() and not mask.all()
    }
    tested: dict[str, float] = {}
    for name, part in parts.items():
        if metric == "accuracy":
            before_right, after_right = _right(part)
            tested[name] = sign_test(
                int((after_right & ~before_right).sum()), int((before_right & ~after_right).sum())
            )
        elif _defined(part, metric):
            differences = _differences(part, metric)
            tested[name] = float((1 + np.count_nonzero(differences <= 0)) / (1 + len(differences)))
    if not tested:
        raise _undefined(paired, metric)
    best = min(tested, key=lambda name: tested[name])
    level = LEVEL / len(tested)
    before, after = _values(parts[best], metric)
    passed = tested[best] <= level
    comparison = f"on {best} the {_spoken(metric)} goes from {before:.3f} to {after:.3f}"
    return GateResult(
        "better_somewhere",
        passed,
        f"{comparison} (n = {len(parts[best].labels)}, p = {tested[best]:.2g}, "
        f"{'at most' if passed else 'needed is at most'} {level:.2g} with {len(tested)} tested)",
        {"where": best, "before": before, "after": after, "p_values": tested, "level": level},
    )


# ---------------------------------------------------------------------------------------------- parts


def _not_worse(name: str, paired: Paired, where: str, metric: str, margin: float) -> GateResult:
    if metric == "accuracy":
        before, after = _right(paired)
        return _not_worse_share(name, before, after, f"{where} accuracy", margin)
    differences = _differences(paired, metric)
    spread = float(differences.std())
    return _judged(
        name,
        f"{where} {_spoken(metric)}",
        _values(paired, metric),
        low=float(np.quantile(differences, LEVEL)),
        worsening=float((1 + np.count_nonzero(differences >= 0)) / (1 + len(differences))),
        enough=(z_of(1 - LEVEL) + z_of(POWER)) * spread <= margin,
        margin=margin,
        numbers={"n": len(paired.labels), "metric": metric},
    )


def _not_worse_share(name: str, before: Mask, after: Mask, what: str, margin: float) -> GateResult:
    """The rule for shares of right answers to the same questions, (N,) each."""
    gained, lost, n = int((after & ~before).sum()), int((before & ~after).sum()), len(before)
    return _judged(
        name,
        what,
        (float(before.mean()), float(after.mean())),
        low=paired_lower_bound(gained, lost, n, z_of(1 - LEVEL)),
        worsening=sign_test(lost, gained),
        enough=can_bound(gained, lost, n, margin),
        margin=margin,
        numbers={"gained": gained, "lost": lost, "n": n, "metric": "accuracy"},
    )


def _judged(
    name: str,
    what: str,
    values: tuple[float, float],
    *,
    low: float,
    worsening: float,
    enough: bool,
    margin: float,
    numbers: dict[str, Any],
) -> GateResult:
    """The rule itself: `low` bounds the difference from below, `worsening` is the p-value of one."""
    if not margin > 0:
        raise InvalidInput(f"the margin is {margin}; it says how much worse is still equal, so more than 0")
    bounded = enough or low > -margin
    passed = low > -margin if bounded else worsening > LEVEL
    before, after = values
    if bounded:
        rule = f"the difference is at least {low:+.3f} with 95 % confidence, allowed is {-margin:+.3f}"
    else:
        rule = f"p of a worsening {worsening:.2g}, too few images to bound it to {margin:g}"
    return GateResult(
        name,
        passed,
        f"{what} {before:.3f} became {after:.3f} (n = {numbers['n']}; {rule})",
        numbers
        | {
            "p_worse": worsening,
            "before": before,
            "after": after,
            "low": low,
            "margin": margin,
            "rule": "non-inferiority" if bounded else "no significant worsening",
        },
    )


def _champion(paired: Paired) -> Floats:
    if paired.champion is None:
        raise InvalidInput("there is no champion to compare with; ask beats_majority instead")
    return paired.champion


def _said_by_champion(paired: Paired) -> Floats:
    champion = _champion(paired)
    return champion if paired.champion_scores is None else paired.champion_scores


def _right(paired: Paired) -> tuple[Mask, Mask]:
    """(N,) each: which images champion and challenger get right."""
    return right(_said_by_champion(paired), paired.labels), right(paired.said_by_challenger, paired.labels)


def _values(paired: Paired, metric: str) -> tuple[float, float]:
    """The metric of champion and challenger."""
    measure = Measure(metric, paired.costs)
    before, after = (
        measure(probabilities, paired.labels, paired.positive, decided)
        for probabilities, decided in (
            (_champion(paired), _said_by_champion(paired)),
            (paired.challenger, paired.said_by_challenger),
        )
    )
    return before, after


def _defined(paired: Paired, metric: str) -> bool:
    return bool(np.isfinite(_values(paired, metric)).all())


def _differences(paired: Paired, metric: str) -> Floats:
    if not _defined(paired, metric):
        raise _undefined(paired, metric)
    measure = Measure(metric, paired.costs)
    champion, challenger = (
        (_said_by_champion(paired), paired.said_by_challenger)
        if measure.decides
        else (_champion(paired), paired.challenger)
    )
    return bootstrap_difference(
        champion,
        challenger,
        paired.labels,
        lambda said, labels: measure(said, labels, paired.positive, said),
    )


def _undefined(paired: Paired, metric: str) -> InvalidInput:
    has = members(paired.labels, len(paired.classes))
    seen = [paired.classes[label] for label in np.flatnonzero(has.any(0))]
    return InvalidInput(
        f"{metric} is undefined on the {len(paired.labels)} held-out images, which show only "
        f"{', '.join(seen)}; gate by accuracy, or hold out images of every class"
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


def _f1(actual: Mask, answered: Mask) -> float:
    total = int(actual.sum() + answered.sum())
    return 2 * int((actual & answered).sum()) / total if total else 0.0


def _spoken(metric: str) -> str:
    return metric.replace("_", " ").replace("@", " at ").replace("=", " ")
