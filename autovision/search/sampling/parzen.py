"""Where good points lie that were not tried yet: the tree-structured Parzen estimator, fitted once for many points.

Bergstra et al. 2011, with one joint density over all parameters (as BOHB has it, Falkner et al. 2018), and with the
weights and bandwidths that Optuna's multivariate form has. Three things are different here. A point lacks the
parameters whose condition does not hold: there its kernel is flat, so that points of all branches stay in one density.
Parameters that are given are conditioned on: a kernel counts for as much as it agrees with them, instead of being drawn
from and then overruled. And all kernels are rows of matrices: Optuna's walks every trial anew for every proposal, at
tens of milliseconds for a few hundred of them; here a proposal takes about one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from autovision.search.sampling.coordinates import Coordinates, Row

Floats = NDArray[np.float64]

_FULL_WEIGHT = 25
"""the latest points weigh fully, older ones less"""
_BANDWIDTH = 0.2
_PRIOR_WEIGHT = 1.0


def good_ones(n: int) -> int:
    """How many of n points count as good."""
    return min(int(np.ceil(0.1 * n)), 25)


class Density:
    """A mixture of a kernel at each point and a flat one, relative to the flat density over the space.

    Args:
        rows: the points, of shape (n, axes), oldest first, NaN where a parameter does not exist.
    """

    def __init__(self, coordinates: Coordinates, rows: Row, *, aged: bool = True) -> None:
        self._axes = coordinates.axes
        self._n = n = len(rows)
        self._rows = rows
        weights = np.append(_by_age(n) if aged else np.ones(n), _PRIOR_WEIGHT)
        self._log_weights = np.log(weights / weights.sum())
        self._width = max(_BANDWIDTH * max(n, 1) ** (-1.0 / (len(coordinates) + 4)), 1.0 / min(100, 2 + n))
        self._real = np.array([i for i, axis in enumerate(self._axes) if not axis.values], int)
        self._few = [i for i, axis in enumerate(self._axes) if axis.values]
        self._has = ~np.isnan(rows)
        self._fit_real()
        self._tables = {i: self._table(i) for i in self._few}

    def _fit_real(self) -> None:
        """Normal kernels, cut off at the ends of the unit interval."""
        h = self._width
        centre = np.nan_to_num(self._rows[:, self._real])
        has = self._has[:, self._real].astype(float)
        mass = ndtr((1 - centre) / h) - ndtr(-centre / h)
        constant = has * (-0.5 * (centre / h) ** 2 - np.log(h * np.sqrt(2 * np.pi) * mass))
        self._terms = has / (-2 * h * h), has * centre / (h * h), constant

    def _table(self, i: int) -> Floats:
        """Log of the relative mass of each value, of shape (points + 1, values)."""
        axis, codes, k = self._axes[i], self._rows[:, i], len(self._axes[i].values)
        has = self._has[:, i]
        chosen = np.nan_to_num(codes).astype(int)
        if axis.ordered:
            edges, h = np.array(axis.edges), self._width
            cut = ndtr((edges[None] - np.array(axis.centres)[:, None]) / h)
            mass = np.diff(cut, axis=1) / (cut[:, -1:] - cut[:, :1])
            share = (np.diff(edges))[None]
            rows = np.log(np.maximum(mass / share, 1e-12))[chosen]
        else:
            smooth = _PRIOR_WEIGHT / (self._n + 1)
            rows = np.full((self._n, k), smooth)
            rows[np.arange(self._n), chosen] += 1.0
            rows = np.log(rows * k / (1.0 + k * smooth))
        return np.vstack([np.where(has[:, None], rows, 0.0), np.zeros((1, k))])

    def log_kernels(self, rows: Row) -> Floats:
        """Log density of each row under each kernel, the flat one last: of shape (rows, points + 1)."""
        real = rows[:, self._real]
        active = (~np.isnan(real)).astype(float)
        u = np.nan_to_num(real)
        squared, linear, constant = self._terms
        found = np.zeros((len(rows), self._n + 1))
        found[:, :-1] = (active * u * u) @ squared.T + (active * u) @ linear.T + active @ constant.T
        for i in self._few:
            codes = rows[:, i]
            has = codes == codes
            found[has] += self._tables[i][:, codes[has].astype(int)].T
        return found

    def log(self, rows: Row) -> Floats:
        """Log density of each row."""
        return _log_sum(self.log_kernels(rows) + self._log_weights)

    def draw(self, rng: np.random.Generator, n: int, given: Row) -> Row:
        """Rows drawn from it; what `given` holds, where it is not NaN, is held."""
        weights = self._log_weights + self.log_kernels(given[None])[0]
        weights = np.exp(weights - weights.max())
        kernels = rng.choice(self._n + 1, size=n, p=weights / weights.sum())
        uniform = rng.random((n, len(self._axes)))
        rows = uniform.copy()
        flat = np.append(~self._has, np.ones((1, len(self._axes)), bool), axis=0)[kernels]
        if len(self._real):
            centre = np.append(np.nan_to_num(self._rows), np.zeros((1, len(self._axes))), axis=0)[kernels]
            low, high = ndtr(-centre / self._width), ndtr((1 - centre) / self._width)
            near = centre + self._width * ndtri(np.clip(low + uniform * (high - low), 1e-12, 1 - 1e-12))
            rows = np.where(flat, uniform, np.clip(near, 0.0, 1.0))
        for i in self._few:
            k = len(self._axes[i].values)
            base = np.diff(self._axes[i].edges) if self._axes[i].ordered else np.full(k, 1.0 / k)
            mass = np.cumsum(np.exp(self._tables[i][kernels]) * base, axis=1)
            rows[:, i] = np.minimum((uniform[:, [i]] * mass[:, -1:] > mass).sum(axis=1), k - 1)
        return np.where(np.isnan(given), rows, given)


class Parzen:
    """Two densities: of the good points, and of all others; proposals are where the first is large to the second.

    Args:
        good, rest: rows of points, oldest first.
    """

    def __init__(self, coordinates: Coordinates, good: Row, rest: Row) -> None:
        self._coordinates = coordinates
        self._good, self._rest = Density(coordinates, good), Density(coordinates, rest)
        self._n = len(rest) + 1

    def propose(
        self, rng: np.random.Generator, given: Row, pending: Sequence[Row] = (), candidates: int = 24
    ) -> Row:
        """A row.

        Args:
            given: a row with the places that are given; NaN elsewhere.
            pending: points that are being tried; they count as bad (the constant liar, Ginsbourger et al. 2010).
        """
        drawn = self._coordinates.hide_inactive(self._good.draw(rng, candidates, given))
        rest = self._rest.log(drawn)
        if pending:
            lies, n = Density(self._coordinates, np.vstack(pending), aged=False), self._n + len(pending)
            rest = np.logaddexp(rest + np.log(self._n / n), lies.log(drawn) + np.log(len(pending) / n))
        best: Row = drawn[int(np.argmax(self._good.log(drawn) - rest))]
        return best


def _by_age(n: int) -> Floats:
    if n < _FULL_WEIGHT:
        return np.ones(n)
    return np.append(np.linspace(1.0 / n, 1.0, n - _FULL_WEIGHT), np.ones(_FULL_WEIGHT))


def _log_sum(values: Floats) -> Floats:
    top = values.max(axis=1)
    total: Floats = top + np.log(np.exp(values - top[:, None]).sum(axis=1))
    return total
