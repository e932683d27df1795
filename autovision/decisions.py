"""From probabilities to an answer: the one place where a model's decision rule is applied, and metrics that know it.

`scores` gives what stands in the place of probabilities wherever an answer is made or counted: its largest column,
or with several labels those above `metrics.THRESHOLD`, is the answer. By the default rule it gives the probabilities
themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autovision import metrics
from autovision.errors import InvalidInput, near
from autovision.metrics import Floats, Ints
from autovision.records.models import DecisionRule
from autovision.records.searches import Costs

DEFAULT = DecisionRule()
_LEAST = float(np.finfo(np.float64).tiny)


def scores(rule: DecisionRule, probabilities: Floats) -> Floats:
    """(N, C) in [0, 1], of calibrated probabilities (N, C): the higher, the sooner a class is the answer."""
    p = probabilities
    match rule.kind:
        case "threshold":
            assert rule.column is not None
            of_class = _moved(p[:, rule.column], rule.values[0])
            moved = np.empty_like(p)
            moved[:, rule.column], moved[:, 1 - rule.column] = of_class, 1 - of_class
            return moved
        case "thresholds":
            return _moved(p, np.array(rule.values))
        case "offsets":
            return _softmax(np.log(np.maximum(p, _LEAST)) + np.array(rule.values))
        case "costs":
            return by_costs(p, np.array(rule.costs))
        case _:
            return p


def by_costs(probabilities: Floats, costs: Floats) -> Floats:
    """Scores (N, C) of which the largest is the answer that costs the least on average (Elkan 2001).

    Args:
        costs: (C, C), of answering the column where the row is true.
    """
    return _softmax(-(probabilities @ costs) / costs.max())


def told(rule: DecisionRule, classes: Sequence[str], *, several: bool = False) -> str:
    """A rule in words; `several`: of any number of classes an image."""
    match rule.kind:
        case "threshold":
            assert rule.column is not None
            return f"{classes[rule.column]} above {rule.values[0]:.3f}"
        case "thresholds":
            return ", ".join(
                f"{name} above {value:.3f}" for name, value in zip(classes, rule.values, strict=True)
            )
        case "offsets":
            listed = zip(classes, rule.values, strict=True)
            return "largest log-probability with " + ", ".join(
                f"{name} {value:+.2f}" for name, value in listed
            )
        case "costs":
            return "least expected cost"
        case _:
            return f"each class above {metrics.THRESHOLD:g}" if several else "the most probable class"


def _moved(p: Floats, threshold: float | Floats) -> Floats:
    """Probabilities whose odds are such that what was at the threshold is at one half."""
    above, below = p * (1 - threshold), (1 - p) * threshold
    moved: Floats = above / (above + below)
    return moved


def _softmax(x: Floats) -> Floats:
    shifted = np.exp(x - x.max(1, keepdims=True))
    shares: Floats = shifted / shifted.sum(1, keepdims=True)
    return shares


@dataclass(frozen=True)
class Measure:
    """A metric that a user names, ready to be computed. Higher is better.

    Attributes:
        costs: (C, C), of answering the column where the row is true; for `metrics.COST` alone.
    """

    name: str
    costs: Floats | None = None

    @classmethod
    def of(cls, name: str, costs: Costs | None, classes: Sequence[str]) -> Measure:
        """Raises `InvalidInput` for an unknown metric, or costs that are missing or do not fit the classes."""
        check_measure(name, costs, classes, multi_label=False)
        return cls(name, None if costs is None else cost_matrix(costs, classes))

    @property
    def decides(self) -> bool:
        """Whether it depends on the answers, and so on a decision rule."""
        return self.name in metrics.DECIDED or self.name == metrics.COST

    def __call__(
        self, probabilities: Floats, labels: Ints, positive: int | None, decided: Floats | None = None
    ) -> float:
        """Of probabilities (N, C) on labels (N,) or (N, C); NaN where it is undefined.

        Args:
            decided: the decision rule's scores (N, C); None: the default rule, or of costs the answer that is cheapest.
                A recall at a precision does not look at them: it ranks models, each by the best threshold that it has
                on these images. What a served threshold comes to is told by `autovision.bootstrap`.
        """
        precision = metrics.required_precision(self.name)
        if precision is not None:
            return metrics.recall_at_precision(probabilities, labels, positive, precision)
        if self.name == metrics.COST:
            assert self.costs is not None
            answered = (by_costs(probabilities, self.costs) if decided is None else decided).argmax(1)
            return -float(self.costs[labels, answered].mean())
        said = probabilities if decided is None or not self.decides else decided
        return metrics.METRICS[self.name](said, labels, positive)


def check_measure(metric: str, costs: Costs | None, classes: Sequence[str], *, multi_label: bool) -> None:
    """Raises `InvalidInput` where a search cannot be ranked by this metric and these costs."""
    metrics.check_metric(metric)
    if metric != metrics.COST:
        if costs is not None:
            raise InvalidInput(
                f"costs are given, but the metric is {metric!r}; leave the costs out, or the metric: "
                f"with costs it is {metrics.COST}"
            )
        return
    if costs is None:
        raise InvalidInput(
            f"{metrics.COST} needs costs; give them as {{true class: {{answered class: cost}}}} "
            "(--costs FILE on the command line)"
        )
    if multi_label:
        raise InvalidInput(
            "costs are of answering one class where another is true, but images of this data set have any number "
            "of classes; rank by f1 or balanced_accuracy"
        )
    cost_matrix(costs, classes)


def cost_matrix(costs: Costs, classes: Sequence[str]) -> Floats:
    """(C, C) costs in the order of the classes; a right answer that is not named costs nothing.

    Raises `InvalidInput` for classes that are unknown or missing, and costs that are no finite numbers of 0 or more,
    or all below 1.
    """
    for name in (*costs, *(name for row in costs.values() for name in row)):
        if name not in classes:
            raise InvalidInput(
                f"costs name the class {name!r}; the classes are {', '.join(classes)}{near(name, classes)}"
            )
    matrix = np.array([[_cost(costs, true, said) for said in classes] for true in classes])
    if matrix.max() < 1:
        raise InvalidInput(
            f"the largest cost is {matrix.max():g}; only their ratios matter, so multiply all of them until the "
            "largest is 1 or more"
        )
    return matrix


def _cost(costs: Mapping[str, Mapping[str, float]], true: str, said: str) -> float:
    value = costs.get(true, {}).get(said, 0.0 if true == said else None)
    if value is None:
        raise InvalidInput(f"costs have no entry for answering {said!r} where {true!r} is true; add it")
    if not 0 <= value < float("inf"):
        raise InvalidInput(
            f"the cost of answering {said!r} where {true!r} is true is {value:g}; give a finite number of 0 or more"
        )
    return float(value)
