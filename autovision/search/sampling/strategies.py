"""The samplers that a search can choose from, each as one that is told how trials ended and proposes the next.

What is proposed follows from what was told, what is pending, what is given and the generator that is passed in: there
is no other state, so that a search that was resumed proposes what it would have proposed undisturbed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from autovision.search.sampling.coordinates import Coordinates, Row, unconditional
from autovision.search.sampling.history import History, Told, by_merit
from autovision.search.sampling.parzen import Density, Parzen, good_ones

FIRST_AT_RANDOM = 8
"""trials with a value, before which an estimator knows nothing"""


class Strategy(Protocol):
    """A way to draw points."""

    def tell(self, told: Told) -> None:
        """A trial has ended."""

    def propose(
        self, rng: np.random.Generator, given: Mapping[str, Any], pending: Sequence[Told]
    ) -> tuple[Row, Mapping[str, Any]]:
        """A row, and what is to be kept with the trial until it is told.

        Args:
            given: parameters that are fixed.
            pending: points that are being tried, or were refused, oldest first.
        """


class Random:
    """Draws from the space, whatever was found."""

    def __init__(self, coordinates: Coordinates) -> None:
        self._coordinates = coordinates
        self._flat = Density(coordinates, np.empty((0, len(coordinates))))

    def tell(self, told: Told) -> None:
        """Nothing is learned."""

    def propose(
        self, rng: np.random.Generator, given: Mapping[str, Any], pending: Sequence[Told]
    ) -> tuple[Row, Mapping[str, Any]]:
        return self.given(rng, self._coordinates.encode(given)), {}

    def given(self, rng: np.random.Generator, row: Row) -> Row:
        drawn: Row = self._coordinates.hide_inactive(self._flat.draw(rng, 1, row))[0]
        return drawn


class Tpe:
    """The tree-structured Parzen estimator of `sampling.parzen`; with several objectives, over fronts.

    Good are the best tenth, at most 25: of several objectives the first fronts, thinned by crowding (as MOTPE, Ozaki et
    al. 2022, with crowding in place of hypervolume contributions).
    """

    def __init__(self, coordinates: Coordinates, most: int | None = None) -> None:
        self._coordinates = coordinates
        self._history = History() if most is None else History(most, (most, 0, 0))
        self._random = Random(coordinates)
        self._fit: Parzen | None = None

    def tell(self, told: Told) -> None:
        self._history.add(told)
        self._fit = None

    def propose(
        self, rng: np.random.Generator, given: Mapping[str, Any], pending: Sequence[Told]
    ) -> tuple[Row, Mapping[str, Any]]:
        return self.given(rng, self._coordinates.encode(given), pending), {}

    def given(self, rng: np.random.Generator, row: Row, pending: Sequence[Told]) -> Row:
        """With what `row` holds, where it is not NaN."""
        if self._fit is None:
            kept = self._history.kept
            ranked = by_merit(kept)
            if len(ranked) < FIRST_AT_RANDOM:
                return self._random.given(rng, row)
            good = {each.number for each in ranked[: good_ones(len(ranked))]}
            split: tuple[list[Row], list[Row]] = [], []
            for each in kept:
                if each.values:
                    split[each.number not in good].append(each.row)
            self._fit = Parzen(self._coordinates, np.vstack(split[0]), np.vstack(split[1]))
        return self._fit.propose(rng, row, [each.row for each in pending])


class Cmaes:
    """CMA-ES (Hansen 2016) by the package `cmaes`, for the numbers that every point has; the others by TPE.

    A generation is told as soon as so many trials have run to their end, in that order. Trials that were cut or failed
    are no part of one. Numbers that were given (as an arm gives the depth) are told as they were.
    """

    def __init__(self, coordinates: Coordinates) -> None:
        import cmaes

        self._coordinates = coordinates
        self._axes = unconditional(coordinates.axes)
        self._rest = Tpe(coordinates)
        n = len(self._axes)
        self._optimizer = cmaes.CMA(
            mean=np.full(n, 0.5),
            sigma=1 / 6,
            bounds=np.tile([0.0, 1.0], (n, 1)),
            seed=0,
            n_max_resampling=10 * n,
        )
        self._generation: list[Told] = []

    def tell(self, told: Told) -> None:
        self._rest.tell(told)
        if told.values and told.whole:
            self._generation.append(told)
        if len(self._generation) == self._optimizer.population_size:
            # Its generator repairs points out of bounds: seeded, so that the same trials lead to the same state.
            self._optimizer.reseed_rng(told.number)
            self._optimizer.tell([(self._place(each.row), -each.values[0]) for each in self._generation])
            self._generation = []

    def propose(
        self, rng: np.random.Generator, given: Mapping[str, Any], pending: Sequence[Told]
    ) -> tuple[Row, Mapping[str, Any]]:
        optimizer = copy.deepcopy(self._optimizer)
        optimizer.reseed_rng(int(rng.integers(2**31)))
        row = self._coordinates.encode(given)
        for i, at in zip(self._axes, optimizer.ask(), strict=True):
            if np.isnan(row[i]):
                axis = self._coordinates.axes[i]
                last = len(axis.values) - 1
                row[i] = (
                    min(np.searchsorted(axis.edges[1:], at), last) if axis.values else min(max(at, 0.0), 1.0)
                )
        return self._rest.given(rng, row, pending), {}

    def _place(self, row: Row) -> Row:
        axes = self._coordinates.axes
        return np.array([axes[i].centres[int(row[i])] if axes[i].values else row[i] for i in self._axes])
