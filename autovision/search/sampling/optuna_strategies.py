"""Optuna's samplers as strategies: NSGA-II, the Gaussian process, and a user's own.

Each proposal has an Optuna study of its own, made of the trials that are known, and a sampler of its own, seeded by the
proposal: nothing that an Optuna sampler remembers has to survive, and what it sees is what the ledger holds. The
study stands on a storage that only points to trials which exist already, so that making one costs nothing.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autovision.search.sampling.coordinates import Coordinates, Row
from autovision.search.sampling.history import History, Told, by_merit
from autovision.space import Choice, Float, Integer, Space

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC).replace(tzinfo=None)

_GP_MOST, _GP_KEEP = 128, (32, 32, 32)
"""a Gaussian process costs the cube of what it knows"""

Make = Callable[[int], BaseSampler]
"""a sampler by its seed"""


class OptunaStrategy:
    """Asks an Optuna sampler. It sees all objectives as to be maximised, and the trials that `History` keeps.

    Failed trials are failed, and those that were cut are pruned with their intermediate values, or, where there are
    several objectives, for which Optuna knows no pruning, failed. What a sampler notes down with a trial or the study
    is kept until the process ends.
    """

    def __init__(self, space: Space, coordinates: Coordinates, objectives: int, make: Make) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space, self._coordinates, self._objectives, self._make = space, coordinates, objectives, make
        self._distributions = {axis.name: distribution_of(axis.parameter) for axis in coordinates.axes}
        self._history = History()
        self._study_notes: dict[str, Any] = {}
        self._frozen: dict[int, tuple[Told, FrozenTrial]] = {}

    def tell(self, told: Told) -> None:
        self._history.add(told)

    def propose(
        self, rng: np.random.Generator, given: Mapping[str, Any], pending: Sequence[Told]
    ) -> tuple[Row, Mapping[str, Any]]:
        known = self._known()
        trials = [self._trial(each) for each in known]
        first = 1 + max((each.number for each in known), default=-1)
        # Numbered anew, as draws that were refused have the number of the trial that they were meant for.
        for number, each in enumerate(pending, first):
            trials.append(self._made(replace(each, number=number), TrialState.RUNNING))
        number = first + len(pending)
        storage = _Trials([*trials, _running(number, dict(given))], self._objectives, self._study_notes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = self._make(int(rng.integers(2**31)))
            study = optuna.load_study(study_name=_Trials.NAME, storage=storage, sampler=sampler)
            trial = optuna.trial.Trial(study, number)
            point = self._space.suggest(trial)
        noted = {k: v for k, v in storage.get_trial(number).system_attrs.items() if k != "fixed_params"}
        return self._coordinates.encode(point), noted

    def _known(self) -> Sequence[Told]:
        return self._history.kept

    def _trial(self, told: Told) -> FrozenTrial:
        known, trial = self._frozen.get(told.number, (None, None))
        if known is not told or trial is None:
            trial = self._made(told, self._state(told))
            self._frozen[told.number] = told, trial
        return trial

    def _state(self, told: Told) -> TrialState:
        if not told.values:
            return TrialState.FAIL
        if told.whole:
            return TrialState.COMPLETE
        return TrialState.FAIL if self._objectives > 1 else TrialState.PRUNED

    def _params(self, told: Told) -> dict[str, Any]:
        return dict(told.point)

    def _attributes(self, told: Told) -> dict[str, Any]:
        return dict(told.attributes)

    def _made(self, told: Told, state: TrialState) -> FrozenTrial:
        params = self._params(told)
        return FrozenTrial(
            number=told.number,
            trial_id=told.number,
            state=state,
            value=None,
            values=list(told.values) if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
            datetime_start=_EPOCH,
            datetime_complete=None if state is TrialState.RUNNING else _EPOCH,
            params=params,
            distributions={name: self._distributions[name] for name in params},
            user_attrs={},
            system_attrs=self._attributes(told),
            intermediate_values=dict(told.steps) if self._objectives == 1 else {},
        )


class _Imputed(OptunaStrategy):
    """For samplers that draw jointly only what all trials have.

    A parameter that a trial does not have is at its default there (as SMAC has it, Hutter et al. 2011), so that
    conditional spaces are one space to them; what does not exist in the point that is drawn is dropped.
    """

    def _params(self, told: Told) -> dict[str, Any]:
        return {
            axis.name: told.point.get(axis.name, axis.parameter.start()) for axis in self._coordinates.axes
        }


class Gp(_Imputed):
    """Optuna's Gaussian process: seconds for each trial, so for searches of some hundred expensive ones."""

    def __init__(self, space: Space, coordinates: Coordinates, objectives: int, first: int) -> None:
        def make(seed: int) -> BaseSampler:
            return optuna.samplers.GPSampler(
                seed=seed, n_startup_trials=first, warn_independent_sampling=False
            )

        super().__init__(space, coordinates, objectives, make)
        self._history = History(_GP_MOST, keep=_GP_KEEP)


class Nsga2(_Imputed):
    """NSGA-II (Deb et al. 2002) in its steady state (Durillo et al. 2009): parents are the elite of all that ended.

    Optuna keeps generations in notes beside its trials, and needs all of them. The elite says the same: it is replaced
    every ten trials, and is all that the study holds.
    """

    _POPULATION, _EVERY = 30, 10

    def __init__(self, space: Space, coordinates: Coordinates, objectives: int) -> None:
        def make(seed: int) -> BaseSampler:
            return optuna.samplers.NSGAIISampler(population_size=self._POPULATION, seed=seed)

        super().__init__(space, coordinates, objectives, make)
        self._elite: list[Told] = []
        self._since: list[Told] = []

    def tell(self, told: Told) -> None:
        if not told.values or not told.whole:
            return
        self._since.append(told)
        if len(self._since) == self._EVERY or len(self._elite) + len(self._since) == self._POPULATION:
            ranked = by_merit([*self._elite, *self._since])[: self._POPULATION]
            self._elite, self._since = sorted(ranked, key=lambda each: each.number), []

    def _known(self) -> Sequence[Told]:
        self._study_notes = {}  # who was whose parent, by numbers
        return self._elite if len(self._elite) == self._POPULATION else []

    def _attributes(self, told: Told) -> dict[str, Any]:
        return {"NSGAIISampler:generation": 0}


def distribution_of(parameter: Float | Integer | Choice) -> BaseDistribution:
    """What Optuna calls the values that a parameter may have."""
    match parameter:
        case Float(low=low, high=high, log=log, step=step):
            return FloatDistribution(low, high, log=log, step=step)
        case Integer(low=low, high=high, log=log):
            return IntDistribution(low, high, log=log)
        case Choice(values=values):
            return CategoricalDistribution(values)


def _running(number: int, fixed: dict[str, Any]) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=_EPOCH,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={"fixed_params": fixed} if fixed else {},
        intermediate_values={},
    )


class _Trials(BaseStorage):  # type: ignore[misc]
    """One study of trials that are known, of which only the one that is asked for may change."""

    NAME = "search"

    def __init__(self, trials: Sequence[FrozenTrial], objectives: int, notes: dict[str, Any]) -> None:
        self._trials = {trial.number: trial for trial in trials}
        self._directions = [StudyDirection.MAXIMIZE] * objectives
        self._system = notes
        self._user: dict[str, Any] = {}

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        raise NotImplementedError("there is one study")

    def delete_study(self, study_id: int) -> None:
        raise NotImplementedError("there is one study")

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._user[key] = value

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._system[key] = value

    def get_study_id_from_name(self, study_name: str) -> int:
        return 0

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.NAME

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self._user)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self._system)

    def get_all_studies(self) -> list[Any]:
        return []

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        raise NotImplementedError(
            "a sampler proposes parameters of the trial that it is asked for, and no others"
        )

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        trial = self._trials[trial_id]
        trial.params = {**trial.params, param_name: distribution.to_external_repr(param_value_internal)}
        trial.distributions = {**trial.distributions, param_name: distribution}

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return trial_number

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        raise NotImplementedError("a trial that is asked for ends elsewhere")

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        raise NotImplementedError("a trial that is asked for runs elsewhere")

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        trial = self._trials[trial_id]
        trial.user_attrs = {**trial.user_attrs, key: value}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        trial = self._trials[trial_id]
        trial.system_attrs = {**trial.system_attrs, key: value}

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._trials[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        chosen = [trial for trial in self._trials.values() if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen
