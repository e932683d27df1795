"""What a search for several objectives has to offer: its front, its model and its best bargain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autovision.records.searches import SearchRequest
from autovision.records.trials import TrialResult
from autovision.search.multiobjective import pareto
from autovision.search.multiobjective.objectives import knee_of, pareto_front, values_of
from autovision.search.select import best_trial


@dataclass(frozen=True)
class Offer:
    """A member of the front.

    Attributes:
        value: the metric on validation.
        costs: each other objective.
        chosen: whether it is the search's model: the best in the metric, or, if the best were judged once more, the
            one that was better then.
        knee: whether it is the best bargain (see `autovision.search.multiobjective.pareto.knee`).
    """

    trial: str
    value: float
    costs: Mapping[str, float]
    config: Mapping[str, Any]
    chosen: bool
    knee: bool


@dataclass(frozen=True)
class Front:
    """All offers, the best in the metric first.

    Attributes:
        objectives: what is minimised beside the metric.
        others: value and costs of the trials that are on no front.
        hypervolume: the share of the box between the worst and the best of everything that the front dominates, 0 to 1.
    """

    objectives: Sequence[str]
    offers: Sequence[Offer]
    others: Sequence[tuple[float, Mapping[str, float]]]
    hypervolume: float


def front_of(request: SearchRequest, ledger: Sequence[TrialResult], model: str | None = None) -> Front | None:
    """The front of a ledger; None where there is one objective, or no trial left a model.

    Args:
        model: the trial of the registered model; None: there is none, and the best trial so far stands for it.
    """
    names = request.objectives
    members = pareto_front(names, ledger) if names else []
    if not members:
        return None
    knee = knee_of(names, members)
    if model is None:
        best = best_trial(ledger)
        model = best.trial if best else None
    trials = {member.trial for member in members}
    usable = [(result, values) for result in ledger if (values := values_of(names, result)) is not None]
    points = pareto.points_of([values for _, values in usable])
    return Front(
        names,
        [
            Offer(
                member.trial,
                member.metrics[request.metric],
                member.objectives,
                member.config,
                member.trial == model,
                knee is not None and member.trial == knee.trial,
            )
            for member in members
        ],
        [(r.metrics[request.metric], r.objectives) for r, _ in usable if r.trial not in trials],
        _covered(points),
    )


def _covered(points: pareto.Points) -> float:
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return 0.0
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = np.where(high > low, (points - low) / np.where(high > low, high - low, 1.0), 1.0)
    return pareto.hypervolume(scaled, [0.0] * points.shape[1])
