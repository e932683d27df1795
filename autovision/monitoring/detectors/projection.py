"""Embeddings in a few dimensions, fitted to rows that take no part in any test.

A projection is not neutral towards the rows that it was fitted on: with 1,280 dimensions and 500 rows, a test against
those same rows alarms on nearly every window without drift. The reference is therefore split: one part fits the
projection, and the other is what is normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load, save

from autovision.errors import InvalidInput

Floats = NDArray[np.float64]

VERSION = 1
"""grows when the same reference comes to be projected otherwise"""
MIN_REFERENCE = 40
_COMPONENTS = 31
_MOST_ROWS = 1000
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Projection:
    """(k, D) to (k, at most 32): the leading principal components, and the distance from their plane.

    The distance makes drift visible that leaves the plane, as inputs of a new kind do. It is brought to the scale of
    the first component on rows that did not fit the plane.
    """

    mean: Floats
    scale: Floats
    plane: Floats
    """(D, components)"""
    centre: float
    unit: float
    gamma: float
    """of the Gaussian kernel, by the median heuristic"""

    def __call__(self, rows: ArrayLike, *, name: str = "window") -> Floats:
        """Raises `InvalidInput` for rows of another width, or that are not finite."""
        checked = as_rows(rows, name)
        if checked.shape[1] != len(self.mean):
            raise InvalidInput(
                f"the reference's embeddings have {len(self.mean)} numbers and the {name}'s {checked.shape[1]}; "
                "compare embeddings of one model"
            )
        within, distance = _within(checked, self.mean, self.scale, self.plane)
        return np.column_stack([within, (distance - self.centre) * self.unit])

    def to_bytes(self) -> bytes:
        """As a safetensors file. Axes may turn from one processor to the next: all have to use the same."""
        rest = np.array([self.centre, self.unit, self.gamma])
        return bytes(save({"mean": self.mean, "scale": self.scale, "plane": self.plane, "rest": rest}))

    @classmethod
    def from_bytes(cls, data: bytes) -> Projection:
        found = load(data)
        centre, unit, gamma = found["rest"].tolist()
        return cls(found["mean"], found["scale"], found["plane"], centre, unit, gamma)


def split(reference: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers of the rows that fit the projection, and of those that windows are compared with; always the same."""
    rows = as_rows(reference, "reference")
    if len(rows) < MIN_REFERENCE:
        raise InvalidInput(f"the reference has {len(rows)} rows; give at least {MIN_REFERENCE}")
    order = np.random.default_rng(0).permutation(len(rows))
    half = len(rows) // 2
    return order[:half][:_MOST_ROWS], order[half:][:_MOST_ROWS]


def fit(fitted: ArrayLike) -> Projection:
    """Raises `InvalidInput` for rows that are not finite, or all the same."""
    rows = as_rows(fitted, "reference")
    basis, held_out = rows[: len(rows) * 3 // 4], rows[len(rows) * 3 // 4 :]
    mean, scale = basis.mean(0), basis.std(0)
    varying = scale > 1e-9 * max(1.0, float(np.abs(mean).max()))
    if not varying.any():
        raise InvalidInput("all embeddings of the reference are the same; capture some that a model computed")
    # A dimension that was still and begins to move shows up in the distance, in its neighbours' unit.
    scale = np.where(varying, scale, np.median(scale[varying]))
    _, _, axes = np.linalg.svd((basis - mean) / scale, full_matrices=False)
    plane = np.ascontiguousarray(axes[:_COMPONENTS].T)
    within, distance = _within(held_out, mean, scale, plane)
    unit = float(within[:, 0].std()) / max(float(distance.std()), 1e-9)
    unscaled = Projection(mean, scale, plane, float(distance.mean()), unit, 1.0)
    gamma = 1 / (2 * _median_squared_distance(unscaled(rows)))
    return Projection(mean, scale, plane, unscaled.centre, unit, gamma)


def squared_distances(rows: Floats) -> Floats:
    """(N, N) of all pairs."""
    norms = np.einsum("ij,ij->i", rows, rows)
    sums = norms[:, None] + norms
    squared: Floats = sums - 2 * rows @ rows.T
    # Of equal rows the difference leaves what was rounded, and how much depends on the processor.
    return np.where(squared > _ROUNDING * sums, squared, 0.0)


def as_rows(values: ArrayLike, name: str) -> Floats:
    """(N, D), finite. Raises `InvalidInput`."""
    try:
        rows = np.asarray(values, np.float64)
    except ValueError as error:
        raise InvalidInput(
            f"the {name}'s embeddings do not have the same length; compare those of one model"
        ) from error
    if rows.ndim != 2 or not rows.shape[1]:
        raise InvalidInput(f"the {name}'s embeddings have the shape {rows.shape}; give (rows, dimensions)")
    broken = int((~np.isfinite(rows)).any(1).sum())
    if broken:
        raise InvalidInput(f"{broken} of the {name}'s {len(rows)} embeddings are not finite; leave them out")
    return rows


def _within(rows: Floats, mean: Floats, scale: Floats, plane: Floats) -> tuple[Floats, Floats]:
    z = (rows - mean) / scale
    within: Floats = z @ plane
    return within, np.linalg.norm(z - within @ plane.T, axis=1)


def _median_squared_distance(rows: Floats) -> float:
    """Over pairs of different rows (the median heuristic)."""
    median = float(np.median(squared_distances(rows)[np.triu_indices(len(rows), 1)]))
    if median <= 0:
        raise InvalidInput("most embeddings of the reference are the same; capture some of different images")
    return median
