"""Points of a space, asked for and told about; knows nothing of Ray, and is rebuilt from the ledger.

Pruned trials are told as pruned with their intermediate values and failed ones as failed, so that the
estimator learns from all of them, and none is left running for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from autovision.records import TrialResult
from autovision.records import TrialState as Ended
from autovision.search.coordinates import Coordinates
from autovision.search.history import Told, valued
from autovision.search.samplers import proposer
from autovision.space import Space


@dataclass(frozen=True)
class Proposal:
    """A point to try, and the number of the trial that it is for."""

    number: int
    point: dict[str, Any]


class Sampler:
    """Draws points with one of `autovision.search.samplers`.

    A proposal follows from the seed, the number of its trial, how many draws for that number were refused, what was
    told, in that order, and what is pending: a sampler that is rebuilt from the ledger proposes what the first would
    have proposed. (Ledgers do not say what an Optuna sampler of a user's own noted down with its trials.)

    Args:
        sampler: a name of `SAMPLERS`, or MODULE:NAME.
        others: so many objectives besides the main one; of all of them, more is better.
    """

    def __init__(self, space: Space, seed: int, sampler: str = "tpe", *, others: int = 0) -> None:
        self._space, self._seed, self._others = space, seed, others
        self._coordinates = Coordinates(space)
        self._proposer = proposer(sampler, space, 1 + others)
        self._pending: dict[int, Told] = {}
        self._refused: list[Told] = []
        self._drawing = False
        """whether the latest proposal was refused"""
        self._next = 0

    def ask(self, fixed: Mapping[str, Any] | None = None) -> Proposal:
        """A point; the parameters in `fixed` have the values given there."""
        if not self._drawing:
            self._refused = []
        self._drawing = False
        number = self._next
        rng = np.random.default_rng([self._seed, number, len(self._refused)])
        row, noted = self._proposer.propose(rng, fixed or {}, [*self._pending.values(), *self._refused])
        point = self._space.check(self._coordinates.decode(row))
        # The row of the point, which may have been rounded: that is what the ledger will tell.
        self._pending[number] = Told(number, point, self._coordinates.encode(point), attributes=noted)
        self._next += 1
        return Proposal(number, point)

    def ask_many(self, n: int, fixed: Mapping[str, Any] | None = None) -> list[Proposal]:
        """So many points at once. Nothing is fitted between them, and each keeps away from those before it."""
        return [self.ask(fixed) for _ in range(n)]

    def refuse(self, number: int) -> None:
        """A proposal is not tried, as it breaks a limit or was tried before: the next one is for the same trial.

        The next draws keep away from there. Then it is forgotten, as no ledger knows of it.
        """
        told = self._pending.pop(number, None)
        if told is not None and number == self._next - 1:
            self._next = number
            self._refused.append(told)
            self._drawing = True

    def tell(
        self,
        number: int,
        state: Ended,
        values: Iterable[tuple[int, float]],
        others: Sequence[float] = (),
    ) -> None:
        """How a proposal ended, with its value at each rung.

        Args:
            others: its values of the other objectives, the more the better.
        """
        told = self._pending.pop(number, None)
        if told is not None:
            self._refused = []
            self._learn(told, state, list(values), others)

    def replay(
        self, results: Iterable[tuple[TrialResult, Sequence[tuple[int, float]], Sequence[float]]]
    ) -> None:
        """Take in the trials of this search's ledger, as if they had been told here.

        Args:
            results: each with its value at each rung, and its values of the other objectives.
        """
        for result, steps, others in sorted(results, key=lambda each: (each[0].created_at, each[0].number)):
            self._next = max(self._next, result.number + 1)
            # The ledger holds no points but of this space; it may have been written by hand.
            if self._space.contains(result.parameters):
                point = dict(result.parameters)
                told = Told(result.number, point, self._coordinates.encode(point))
                self._learn(told, result.state, steps, others)

    def _learn(
        self, told: Told, state: Ended, steps: Sequence[tuple[int, float]], others: Sequence[float]
    ) -> None:
        # A trial that ran to its end is worth its best rung, and one that was cut what it had come to.
        whole = state is Ended.COMPLETE
        value = [max(value for _, value in steps) if whole else steps[-1][1]] if steps else []
        values = (*value, *others)
        failed = state is Ended.FAILED or len(values) != 1 + self._others or not valued(values)
        self._proposer.tell(
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
