"""Points of a space, asked for and told about; knows nothing of Ray, and is rebuilt from the ledger.

Pruned trials are told as pruned with their intermediate values and failed ones as failed, so that the
estimator learns from all of them, and none is left running for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from autovision.records.trials import TrialResult
from autovision.records.trials import TrialState as Ended
from autovision.search.multiobjective.objectives import vector
from autovision.search.sampling.coordinates import Coordinates
from autovision.search.sampling.history import Told
from autovision.search.sampling.samplers import strategy_of
from autovision.search.sampling.strategies import Random
from autovision.space import Space

_PATIENCE = 8
"""after so many draws in a row that were refused, draws are at random: what a sampler thinks of is not to be had"""


@dataclass(frozen=True)
class Proposal:
    """A point to try, and the sampler's number for it."""

    number: int
    point: dict[str, Any]


class Sampler:
    """Draws points with one of `autovision.search.sampling.samplers`.

    A proposal follows from the seed, how many trials there are already, how many draws were refused since the last that
    was not, what was told, and what is pending: a sampler that is rebuilt from the ledger proposes what the first would
    have proposed. (Not so a user's own that notes things down with its trials: a ledger knows nothing of these.)

    Args:
        sampler: a name of `SAMPLERS`, or MODULE:NAME.
        objectives: what is minimised beside the value that is told.
    """

    def __init__(self, space: Space, seed: int, sampler: str = "tpe", objectives: Sequence[str] = ()) -> None:
        self._space, self._seed, self._objectives = space, seed, objectives
        self._coordinates = Coordinates(space)
        self._strategy = strategy_of(sampler, space, 1 + len(objectives))
        self._random = Random(self._coordinates)
        self._asked = 0
        self._pending: dict[int, Told] = {}
        self._ended: set[int] = set()
        self._refused: list[Told] = []
        self._again = False
        """whether the latest proposal was refused"""

    def ask(self, fixed: Mapping[str, Any] | None = None) -> Proposal:
        """A point; the parameters in `fixed` have the values given there."""
        fixed = fixed or {}
        if not self._again:
            self._refused = []
        self._again = False
        number = len(self._ended) + len(self._pending)
        rng = np.random.default_rng([self._seed, number, len(self._refused)])
        strategy = self._strategy if len(self._refused) < _PATIENCE else self._random
        row, noted = strategy.propose(rng, fixed, [*self._pending.values(), *self._refused])
        drawn = self._coordinates.decode(row)
        # What is given is not rounded on its way through rows.
        point = self._space.check({name: fixed.get(name, value) for name, value in drawn.items()})
        ticket = self._asked
        self._asked += 1
        self._pending[ticket] = Told(number, point, self._coordinates.encode(point), attributes=noted)
        return Proposal(ticket, point)

    def refuse(self, number: int) -> None:
        """A proposal is not tried, as it breaks a limit or was tried before.

        If it was the latest, the next draws keep away from there (as from points that are pending), until one is not
        refused. Then that is forgotten, as no ledger knows of it, and as it costs next to nothing to find out again.
        """
        told = self._pending.pop(number, None)
        if told is not None and number == self._asked - 1:
            self._refused.append(told)
            self._again = True

    def tell(
        self,
        number: int,
        state: Ended,
        values: Iterable[tuple[int, float]],
        result: TrialResult | None = None,
    ) -> None:
        """How a proposal ended, with its value at each rung.

        Args:
            result: its line of the ledger, which tells the number of the trial and its other objectives.
        """
        told = self._pending.pop(number, None)
        if told is None:
            return
        if result is not None:
            told = replace(told, number=result.number)
        self._learn(told, state, list(values), {} if result is None else result.objectives)

    def replay(self, results: Iterable[tuple[TrialResult, Sequence[tuple[int, float]]]]) -> None:
        """Take in trials of this search's ledger, in the order in which they ended, as if they were told here.

        Of a trial that was told before, as one that was paused, the last word counts.

        Args:
            results: each with its value at each rung.
        """
        for result, steps in sorted(results, key=lambda each: (each[0].created_at, each[0].number)):
            # A ledger holds no points but of its space, unless somebody wrote into it.
            if self._space.contains(result.parameters):
                point = dict(result.parameters)
                told = Told(result.number, point, self._coordinates.encode(point))
                self._learn(told, result.state, steps, result.objectives)
            self._ended.add(result.number)

    def _learn(
        self, told: Told, state: Ended, steps: Sequence[tuple[int, float]], costs: Mapping[str, float]
    ) -> None:
        self._refused, self._again = [], False
        self._ended.add(told.number)
        # A trial that ran to its end is worth its best rung, and one that was cut what it had come to.
        whole = state is Ended.COMPLETE
        value = [max(value for _, value in steps) if whole else steps[-1][1]] if steps else []
        values = (*value, *vector(self._objectives, costs))
        failed = state is Ended.FAILED or not value or any(map(math.isnan, values))
        self._strategy.tell(
            replace(told, values=() if failed else values, steps=() if failed else tuple(steps), whole=whole)
        )


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
