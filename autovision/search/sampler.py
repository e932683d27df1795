"""Points of a space by Optuna's ask and tell; knows nothing of Ray, and is rebuilt from the ledger.

Pruned trials are told as pruned with their intermediate values and failed ones as failed, so that the
estimator learns from all of them, and none is left running for ever.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from autovision.records import TrialResult
from autovision.records import TrialState as Ended
from autovision.space import Space


@dataclass(frozen=True)
class Proposal:
    """A point to try, and Optuna's number for it."""

    number: int
    point: dict[str, Any]


class Sampler:
    """Draws points; the tree-structured Parzen estimator (Bergstra et al. 2011), with groups for conditions."""

    def __init__(self, space: Space, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        with warnings.catch_warnings():
            # Grouping and the constant liar are experimental in name; conditional, parallel searches need both.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                multivariate=True, group=True, constant_liar=True, seed=seed, n_startup_trials=8
            )
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._asked: dict[int, optuna.Trial] = {}

    def ask(self, fixed: Mapping[str, Any] | None = None) -> Proposal:
        """A point; the parameters in `fixed` have the values given there."""
        if fixed:
            self._study.enqueue_trial(dict(fixed))
        trial = self._study.ask()
        self._asked[trial.number] = trial
        return Proposal(trial.number, self._space.suggest(trial))

    def tell(self, number: int, state: Ended, values: Iterable[tuple[int, float]]) -> None:
        """How a proposal ended, with its value at each rung."""
        trial = self._asked.pop(number, None)
        if trial is None:
            return
        steps = list(values)
        for rung, value in steps:
            trial.report(value, rung)
        if state is Ended.FAILED or not steps:
            self._study.tell(trial, state=TrialState.FAIL)
        elif state is Ended.COMPLETE:
            self._study.tell(trial, max(value for _, value in steps))
        else:
            # Optuna takes the last intermediate value of a pruned trial as its value.
            self._study.tell(trial, state=TrialState.PRUNED)

    def replay(self, results: Iterable[tuple[TrialResult, list[tuple[int, float]]]]) -> None:
        """Add the trials of this search's ledger, as if they had been told here."""
        for result, steps in results:
            trial = frozen_trial(self._space, result.parameters, result.state, steps)
            if trial is not None:
                self._study.add_trial(trial)


def frozen_trial(
    space: Space, point: Mapping[str, Any], ended: Ended, steps: Sequence[tuple[int, float]]
) -> FrozenTrial | None:
    """A trial as Optuna keeps it; None where the space does not hold its point.

    Args:
        steps: each rung and the value there.
    """
    if not space.contains(point):
        return None
    recorder = _Recorder(point)
    space.suggest(recorder)
    complete = ended is Ended.COMPLETE and bool(steps)
    pruned = ended in (Ended.PRUNED, Ended.STOPPED) and bool(steps)
    return create_trial(
        state=TrialState.COMPLETE if complete else TrialState.PRUNED if pruned else TrialState.FAIL,
        params=recorder.params,
        distributions=recorder.distributions,
        value=max(value for _, value in steps) if complete else steps[-1][1] if pruned else None,
        intermediate_values=dict(steps),
    )


class _Recorder:
    """Stands in for an Optuna trial, to learn the distribution of each parameter of a known point."""

    def __init__(self, point: Mapping[str, Any]) -> None:
        self._point = point
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(self, name: str, low: float, high: float, **kwargs: Any) -> float:
        return float(self._keep(name, optuna.distributions.FloatDistribution(low, high, **kwargs)))

    def suggest_int(self, name: str, low: int, high: int, **kwargs: Any) -> int:
        return int(self._keep(name, optuna.distributions.IntDistribution(low, high, **kwargs)))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._keep(name, optuna.distributions.CategoricalDistribution(choices))

    def _keep(self, name: str, distribution: BaseDistribution) -> Any:
        self.distributions[name] = distribution
        self.params[name] = self._point[name]
        return self._point[name]
