"""The decision rule that suits the user's metric best, chosen on validation and guarded against its noise.

Candidates, from the simplest: the default (the most probable class, or one half for each label); what decision theory
makes of calibrated probabilities for the metric, which has nothing to fit but class shares; a rule that is tuned
to the metric. A candidate takes the place of a simpler one only if it is better when it is fitted on one part of
validation and judged on another (five folds, dealt five times), and in at least nine of ten resamples of the images
that were judged so. Otherwise what looks better is noise as likely as not. Images of a group are in one fold, and are
drawn together: they are not as many witnesses.

Costs need no choice: the answer that costs the least on average follows from the probabilities, nothing is fitted, and
it is what trials were ranked by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autovision import metrics
from autovision.decisions import DEFAULT, Measure, scores, told
from autovision.metrics import Counts, Floats, Ints, Mask, answers, members
from autovision.records.models import DecisionRule
from autovision.search.finishing import tuning
from autovision.trial.folds import divided, kinds_of

_FOLDS = 5
_DEALS = 5
_RESAMPLES = 200
"""of each deal"""
_SURE = 0.9
_LEAST_IMAGES = 20
_LEAST_OF_CLASS = 2
"""images with a class, and of several labels without it, that something can be fitted to"""


def choose_rule(
    measure: Measure,
    probabilities: Floats,
    labels: Ints,
    positive: int | None,
    classes: Sequence[str],
    *,
    groups: Sequence[str] = (),
    seed: int = 0,
) -> DecisionRule:
    """The rule by which calibrated probabilities (N, C) of validation images should be answered.

    For two classes it is a threshold on the positive class, or the second one if none is positive; for more,
    offsets of the log-probabilities, found class by class; for several labels a threshold for each, one half for those
    that fewer than two images have, or lack; for costs always the Bayes rule. Recall at a precision asks for an
    operating point: the threshold with the largest recall at that precision, of two classes or several labels, which
    is taken unguarded as no other threshold can stand in for it.
    Metrics that do not depend on answers leave the default. The temperature was fitted on the same images; it is one
    number, and no fold is held out from it.

    Args:
        groups: (N,) of each image, those that are kept together; none: each is by itself.
    """
    precision = metrics.required_precision(measure.name)
    if precision is not None:
        return _operating_point(precision, probabilities, labels, positive, classes, seed)
    if measure.costs is not None:
        return _least_cost(measure, probabilities, labels)
    if not measure.decides:
        return DEFAULT
    deals = _deals(labels, groups, seed)
    if problem := _problem(labels, probabilities.shape[1], classes, deals):
        return DecisionRule(why=problem)
    trial = _Trial(
        measure, probabilities, labels, positive, classes, seed, deals, _numbered(groups, len(labels))
    )
    best, why = DEFAULT, "no other rule is known for this metric"
    for fitter in (trial.by_theory, trial.tuned):
        rule = fitter(probabilities, labels)
        if rule is None:
            continue
        better, figures = trial.compare(fitter, _by_default if best is DEFAULT else trial.by_theory)
        if better:
            best = rule
        if better or best is DEFAULT:
            why = f"{told(rule, classes)}: {figures}"
    if best is DEFAULT:
        return DecisionRule(why=f"not {why}")
    return best.with_(why=why + _left_at_half(labels, classes))


def _least_cost(measure: Measure, p: Floats, y: Ints) -> DecisionRule:
    assert measure.costs is not None
    rule = DecisionRule(kind="costs", costs=tuple(tuple(row) for row in measure.costs.tolist()))
    cost, plain = (-measure(p, y, None, said) for said in (scores(rule, p), p))
    return rule.with_(
        why=f"mean cost {cost:.4f} on {len(y)} validation images, of answering the most probable class {plain:.4f}"
    )


def _problem(y: Ints, n_classes: int, classes: Sequence[str], deals: Sequence[Ints]) -> str | None:
    """Why nothing can be chosen; None: something can."""
    nothing = "too few to choose another rule by"
    if len(y) < _LEAST_IMAGES:
        return f"{len(y)} validation images are {nothing}"
    if y.ndim == 2:
        if not _known(y).any():
            return (
                f"of each label fewer than {_LEAST_OF_CLASS} validation images have it, or lack it: {nothing}"
            )
    elif (counts := np.bincount(y, minlength=n_classes)).min() < _LEAST_OF_CLASS:
        rarest, count = int(counts.argmin()), int(counts.min())
        return f"{count or 'no'} validation image{'s' if not count else ''} of class {classes[rarest]}: {nothing}"
    if any(len(np.unique(fold)) < 2 for fold in deals):
        return (
            "validation images cannot be divided, as they are of too few groups: no rule could be judged on others "
            "than it was chosen on"
        )
    return None


def _known(y: Ints) -> Mask:
    """(C,) labels, of (N, C), that enough images have, and enough lack, to fit something to."""
    having = y.sum(0)
    known: Mask = (having >= _LEAST_OF_CLASS) & (len(y) - having >= _LEAST_OF_CLASS)
    return known


def _left_at_half(y: Ints, classes: Sequence[str]) -> str:
    """Which labels, of several, a rule does not speak of."""
    if y.ndim == 1 or _known(y).all():
        return ""
    names = ", ".join(classes[c] for c in np.flatnonzero(~_known(y)).tolist())
    return f"; left at one half, as fewer than {_LEAST_OF_CLASS} images have or lack it: {names}"


def _deals(y: Ints, groups: Sequence[str], seed: int) -> tuple[Ints, ...]:
    """(N,) the fold of each image, once for each deal."""
    return tuple(divided(kinds_of(y), groups, _FOLDS, _DEALS * seed + deal) for deal in range(_DEALS))


def _numbered(groups: Sequence[str], images: int) -> Ints:
    """(N,) the number of each image's group."""
    if not groups:
        return np.arange(images)
    return np.unique(np.array(groups), return_inverse=True)[1]


Fitter = Callable[[Floats, Ints], DecisionRule | None]
"""a rule from probabilities (N, C) and labels; None: there is none of this kind"""


def _by_default(p: Floats, y: Ints) -> DecisionRule:
    return DEFAULT


@dataclass(frozen=True)
class _Trial:
    """What rules are fitted to and compared by.

    Attributes:
        deals: (N,) folds, several times.
        groups: (N,) number of the group of each image.
    """

    measure: Measure
    probabilities: Floats
    labels: Ints
    positive: int | None
    classes: Sequence[str]
    seed: int
    deals: Sequence[Ints]
    groups: Ints

    @property
    def column(self) -> int:
        return 1 if self.positive is None else self.positive

    def by_theory(self, p: Floats, y: Ints) -> DecisionRule | None:
        """Balanced accuracy: each class against its share (Menon et al. 2021)."""
        if self.measure.name != "balanced_accuracy":
            return None
        shares = np.clip(members(y, p.shape[1]).mean(0), tuning.LEAST, tuning.MOST)
        if y.ndim == 2:
            values = np.where(_known(y), shares, metrics.THRESHOLD)
            return DecisionRule(kind="thresholds", values=tuple(values.tolist()))
        if p.shape[1] == 2:
            return DecisionRule(kind="threshold", values=(float(shares[self.column]),), column=self.column)
        offsets = -np.log(shares)
        return DecisionRule(kind="offsets", values=tuple((offsets - offsets.mean()).tolist()))

    def tuned(self, p: Floats, y: Ints) -> DecisionRule | None:
        """What does best on these very images."""
        name = self.measure.name
        if y.ndim == 2:
            # The exact match ratio is no sum over labels: each label's own accuracy stands in for it here.
            of_label = "f1" if name in ("f1", "macro_f1") else name
            values = [
                tuning.threshold(p[:, c], y[:, c] == 1, tuning.worth_of(of_label, 1), self.seed)
                if known
                else metrics.THRESHOLD
                for c, known in enumerate(_known(y))
            ]
            return DecisionRule(kind="thresholds", values=tuple(values))
        if p.shape[1] > 2:
            return DecisionRule(kind="offsets", values=tuning.offsets_of(p, y, name))
        positive = None if self.positive is None or name == "macro_f1" else 1
        value = tuning.threshold(
            p[:, self.column],
            y == self.column,
            tuning.worth_of("f1" if name == "macro_f1" else name, positive),
            self.seed,
        )
        return DecisionRule(kind="threshold", values=(value,), column=self.column)

    def compare(self, challenger: Fitter, incumbent: Fitter) -> tuple[bool, str]:
        """Whether rules that are fitted elsewhere are better than others, and by what figures."""
        values: list[tuple[float, float]] = []
        wins: list[float] = []
        rng = np.random.default_rng(self.seed)
        n_groups = int(self.groups.max()) + 1
        for folds in self.deals:
            after, before = (self._judged_elsewhere(fitter, folds) for fitter in (challenger, incumbent))
            drawn_groups = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), _RESAMPLES)
            weights = drawn_groups.astype(np.float64)[:, self.groups]
            drawn = self._worth_of(after, weights) - self._worth_of(before, weights)
            wins.append(float((drawn > 1e-12).mean()))
            once = np.ones((1, len(folds)))
            values.append((float(self._worth_of(before, once)[0]), float(self._worth_of(after, once)[0])))
        old, new = np.mean(values, axis=0)
        share = float(np.mean(wins))
        better = new > old and share >= _SURE
        of_groups = f" of {n_groups} groups" if n_groups < len(self.labels) else ""
        return better, (
            f"{self.measure.name} {new:.4f} against {old:.4f} by a simpler rule, cross-fitted on "
            f"{len(self.labels)} validation images{of_groups}; better in {share:.0%} of {_DEALS * _RESAMPLES} resamples"
            + ("" if better else f", {_SURE:.0%} are needed")
        )

    def _judged_elsewhere(self, fitter: Fitter, folds: Ints) -> Mask:
        """(N, C) the answers to each fold by a rule that was fitted on the others."""
        said = np.zeros(self.probabilities.shape, np.bool_)
        for fold in np.unique(folds):
            there, elsewhere = folds == fold, folds != fold
            rule = fitter(self.probabilities[elsewhere], self.labels[elsewhere])
            assert rule is not None
            said[there] = answers(scores(rule, self.probabilities[there]), self.labels[there])
        return said

    def _worth_of(self, said: Mask, weights: Floats) -> Floats:
        """(R,) the metric of answers (N, C), under weights (R, N) of the images."""
        name, y = self.measure.name, self.labels
        has = members(y, said.shape[1])
        if name == "accuracy":
            shares: Floats = weights @ (said == has).all(1) / weights.sum(1)
            return shares
        counts = Counts(weights.sum(1)[:, None], weights @ has, weights @ said, weights @ (has & said))
        if name == "balanced_accuracy":
            return counts.balanced_accuracy(several=y.ndim == 2)
        return counts.overall_f1(self.positive if name == "f1" else None)


def _operating_point(
    precision: float, p: Floats, y: Ints, positive: int | None, classes: Sequence[str], seed: int
) -> DecisionRule:
    several = y.ndim == 2
    if p.shape[1] > 2 and not several:
        return DecisionRule(
            why="a recall at a precision is of one class against the rest, and of more than two classes one is answered"
        )
    worth = tuning.at_precision(precision)
    columns = range(p.shape[1]) if several else (1 if positive is None else positive,)
    values, reached = [], []
    for c in columns:
        is_class = y[:, c] == 1 if several else y == c
        if several and not _known(y)[c]:
            values.append(metrics.THRESHOLD)
            continue
        best = metrics.recall_at_precision(
            np.c_[1 - p[:, c], p[:, c]], is_class.astype(np.intp), 1, precision
        )
        values.append(tuning.threshold(p[:, c], is_class, worth, seed) if best > 0 else metrics.THRESHOLD)
        said = p[:, c] > values[-1]
        share = (said & is_class).sum() / max(1, said.sum())
        reached.append(
            f"{classes[c]}: recall {(said & is_class).sum() / max(1, is_class.sum()):.3f} at precision {share:.3f}"
            if best > 0
            else f"{classes[c]}: no threshold has this precision"
        )
    why = f"on {len(y)} validation images, {'; '.join(reached) or 'no threshold'}"
    if not several:
        kind_is_known = values[0] != 0.5
        return (
            DecisionRule(kind="threshold", values=(values[0],), column=columns[0], why=why)
            if kind_is_known
            else DecisionRule(why=why)
        )
    return DecisionRule(kind="thresholds", values=tuple(values), why=why + _left_at_half(y, classes))
