"""What several objectives leave to choose from: the front, its knee, and how much of the space it covers. Pure.

Points are rows of an array of shape (n, k) in which *more is better* in every column; whoever minimises negates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def points_of(rows: Sequence[Sequence[float]]) -> Points:
    """Rows as an array; NaN is the worst there is."""
    points = np.asarray(rows, float).reshape(len(rows), -1)
    return np.where(np.isnan(points), -np.inf, points)


def ranks(points: Points) -> NDArray[np.int64]:
    """Of each point: 0 if nothing is as good in all columns and better in one, 1 if only points of rank 0 are, …

    Non-dominated sorting (Deb et al. 2002).
    """
    rank = np.zeros(len(points), np.int64)
    if not len(points):
        return rank
    better = np.all(points[:, None] >= points[None], axis=2) & np.any(points[:, None] > points[None], axis=2)
    left = np.ones(len(points), bool)
    level = 0
    while left.any():
        front = left & ~better[left].any(axis=0)
        rank[front] = level
        left &= ~front
        level += 1
    return rank


def front(points: Points) -> list[int]:
    """The indices of the points that no other point dominates, in their order. Equal points are all on it."""
    if points.shape[1:] == (2,):
        return _front_of_two(points)
    chosen: list[int] = []
    for index, point in enumerate(points):
        rivals = points[chosen]
        if (np.all(rivals >= point, axis=1) & np.any(rivals > point, axis=1)).any():
            continue
        beaten = np.all(point >= rivals, axis=1) & np.any(point > rivals, axis=1)
        chosen = [each for each, lost in zip(chosen, beaten, strict=True) if not lost] + [index]
    return sorted(chosen)


def _front_of_two(points: Points) -> list[int]:
    """By one pass in the order of the first column: 10,000 points take milliseconds."""
    found: list[int] = []
    best, equal = -np.inf, np.nan
    for index in np.lexsort((-points[:, 1], -points[:, 0])):
        first, second = points[index]
        if second > best or not found or (second == best and first == equal):
            found.append(int(index))
            best, equal = second, first
    return sorted(found)


def crowding(points: Points) -> Points:
    """How alone each point is among the others: the distance between its neighbours, added up over the columns.

    Each column is scaled to its range; the ends of a column are infinitely alone (Deb et al. 2002).
    """
    distance = np.zeros(len(points))
    for column in np.where(np.isfinite(points), points, -1e300).T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]] if len(order) else 0.0
        if span > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
            distance[order[[0, -1]]] = np.inf
    return distance


def order(points: Points) -> list[int]:
    """All indices, the best first: by rank, within a rank the most alone first, then the earlier one."""
    rank = ranks(points)
    alone = np.zeros(len(points))
    for level in np.unique(rank):
        alone[rank == level] = crowding(points[rank == level])
    return [int(index) for index in np.lexsort((-alone, rank))]


def knee(points: Points) -> int | None:
    """The index of the front's knee: the point farthest above the plane through the front's ends.

    Columns are scaled to the front's range, and the distance is that to the plane on which the scaled columns add
    up to as much as at the ends: so the knee has the largest sum of scaled columns (Das 1999, for any number of
    objectives). The earlier of two equals; None without points.
    """
    on = front(points)
    if not on:
        return None
    chosen = points[on]
    finite = np.where(np.isfinite(chosen), chosen, np.nan)
    if np.isnan(finite).all(axis=0).any():
        return on[0]
    low, high = np.nanmin(finite, axis=0), np.nanmax(finite, axis=0)
    scaled = (finite - low) / np.where(high > low, high - low, 1.0)
    return on[int(np.argmax(np.nan_to_num(scaled, nan=-1.0).sum(axis=1)))]


def hypervolume(points: Points, reference: Sequence[float]) -> float:
    """The volume of what the points dominate above `reference`, the worst that counts (Zitzler and Thiele 1999).

    By slicing along the last column, which is fine for the dozens of points that a front has.
    """
    worst = np.asarray(reference, float)
    inside = points[np.all(points > worst, axis=1)]
    if not len(inside):
        return 0.0
    inside = inside[front(inside)] - worst
    if inside.shape[1] == 1:
        return float(inside.max())
    inside = inside[np.argsort(-inside[:, -1], kind="stable")]
    below = np.append(inside[1:, -1], 0.0)
    zeros = [0.0] * (inside.shape[1] - 1)
    return sum(
        float(height - next_height) * hypervolume(inside[: index + 1, :-1], zeros)
        for index, (height, next_height) in enumerate(zip(inside[:, -1], below, strict=True))
        if height > next_height
    )
