"""Several objectives: what a model costs beside its quality, and how one search works for all of them.

The metric is maximised, every other objective minimised. With none beside the metric nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from autovision.errors import InvalidInput, near
from autovision.records.trials import TrialResult
from autovision.search.arms import Arm, ArmRecord
from autovision.search.multiobjective import pareto
from autovision.search.schedulers import Report
from autovision.search.select import rank

COSTS = {
    "latency_ms": "ms",
    "memory_mb": "MB",
    "size_mb": "MB",
    "gflops": "GFLOPs",
}
"""what can be minimised -> its unit: milliseconds to answer one image, memory of the process that serves, the file of
weights, arithmetic of one answer (without the head)"""
MEASURED = frozenset({"latency_ms", "memory_mb"})

_SPAN = 0.3
"""what `beliefs.choose` takes the range of all values for: ten times how far apart arms are as a rule"""
_SUM_SHARE = 0.05
"""of the weighted sum in the scalarisation, so that whoever is dominated is worth less than who dominates it"""


def check_objectives(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each once. Raises `InvalidInput` for one that cannot be minimised."""
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in COSTS:
            raise InvalidInput(
                f"objective {name!r} is none of {', '.join(COSTS)}, which are minimised; the metric is "
                f"what is maximised{near(name, COSTS)}"
            )
    return found


def vector(names: Sequence[str], costs: Mapping[str, float]) -> tuple[float, ...]:
    """Costs as values of which more is better; NaN where one is not known."""
    return tuple(-costs.get(name, float("nan")) for name in names)


def values_of(names: Sequence[str], result: TrialResult) -> tuple[float, ...] | None:
    """All values of a trial, more is better, the metric's first; None if it left no model."""
    if result.value is None or result.weights_key is None:
        return None
    return (result.value, *vector(names, result.objectives))


def pareto_front(names: Sequence[str], ledger: Sequence[TrialResult]) -> list[TrialResult]:
    """The trials that no other is as good as in everything and better in something, the best in the metric first.

    Of trials that are equal in everything, the earliest.
    """
    usable = [(result, values) for result in ledger if (values := values_of(names, result)) is not None]
    if not usable:
        return []
    points = pareto.points_of([values for _, values in usable])
    distinct = {usable[i][1]: usable[i][0] for i in reversed(pareto.front(points))}
    return sorted(distinct.values(), key=rank)


def knee_of(names: Sequence[str], front: Sequence[TrialResult]) -> TrialResult | None:
    """The member of a front that is the best bargain: see `pareto.knee`."""
    rows = [values for result in front if (values := values_of(names, result)) is not None]
    at = pareto.knee(pareto.points_of(rows)) if rows else None
    return None if at is None else front[at]


@dataclass
class Trade:
    """What a driver needs where several objectives are traded for each other."""

    names: Sequence[str]
    seed: int
    _by_arm: dict[Arm, list[list[tuple[float, ...]]]] = field(default_factory=dict)
    _fronts: dict[tuple[str, int], list[tuple[float, ...]]] = field(default_factory=dict)

    def learn(self, arm: Arm, unit: Sequence[TrialResult]) -> None:
        """A trial of an arm has ended, or heads that were trained together."""
        valued = [(r.value, *vector(self.names, r.objectives)) for r in unit if r.value is not None]
        if self.names and valued:
            self._by_arm.setdefault(arm, []).append(valued)

    def records(self, arms: Mapping[Arm, ArmRecord], number: int) -> Mapping[Arm, ArmRecord]:
        """What is known of the arms, as seen by one weighting of the objectives, drawn for each trial anew.

        A draw is for some part of the front; over many draws all parts have their turn (ParEGO, Knowles 2006). Weights
        are uniform over the simplex; each objective is scaled to the range of what was found; what a trial lacks is
        the most of its weighted distances to the best, and a little of their sum (augmented Tchebycheff).

        Args:
            number: of the trial that is drawn: the weights follow from it and the seed.
        """
        units = [(arm, unit) for arm, known in self._by_arm.items() for unit in known if arm in arms]
        if not units:
            return arms
        points = pareto.points_of([values for _, unit in units for values in unit])
        worth = iter(_SPAN * scalarised(points, weights_of(len(self.names) + 1, self.seed, number)))
        found = {arm: replace(record, values=[]) for arm, record in arms.items()}
        for arm, unit in units:
            found[arm].values.append(max(float(next(worth)) for _ in unit))
        return found

    def excels(self, report: Report, level: int, costs: Mapping[str, float]) -> bool:
        """A trial has reported; whether it goes on for being on the front of its kind at that level.

        What is cheaper than all that are better is no worse than they: ranked by the metric alone, it would be pruned
        (asynchronous successive halving by fronts: Schmucker et al. 2021).
        """
        if not self.names or np.isnan(report.value):
            return False
        values = (report.value, *vector(self.names, costs))
        peers = self._fronts.setdefault((report.kind, level), [])
        beaten = any(
            all(a >= b for a, b in zip(peer, values, strict=True)) and peer != values for peer in peers
        )
        if not beaten:
            peers[:] = [peer for peer in peers if not all(b >= a for a, b in zip(peer, values, strict=True))]
            peers.append(values)
        return not beaten


def weights_of(n: int, seed: int, number: int) -> pareto.Points:
    """Weights of n objectives for a trial, that add up to 1: uniform over the simplex."""
    drawn: pareto.Points = np.random.default_rng([seed, number, n]).dirichlet(np.ones(n))
    return drawn


def scalarised(points: pareto.Points, weights: pareto.Points) -> pareto.Points:
    """Of each point one figure, at most 1, more is better."""
    finite = np.where(np.isfinite(points), points, np.nan)
    low, high = np.nanmin(finite, axis=0), np.nanmax(finite, axis=0)
    # What each lacks to the best of it; who has no value lacks all.
    lacks = np.nan_to_num((high - finite) / np.where(high > low, high - low, 1.0), nan=1.0) * weights
    found: pareto.Points = 1.0 - lacks.max(axis=1) / weights.max() - _SUM_SHARE * lacks.sum(axis=1)
    return found
