"""Fronts, knees and volumes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autovision.search.multiobjective import pareto

rows = st.integers(1, 3).flatmap(
    lambda k: st.lists(st.tuples(*[st.integers(-3, 3)] * k), min_size=1, max_size=25)
)


def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and a != b


@given(rows)
def test_the_front_is_what_nothing_dominates(found: list[tuple[int, ...]]) -> None:
    expected = [i for i, a in enumerate(found) if not any(dominates(b, a) for b in found)]
    points = pareto.points_of(found)
    assert pareto.front(points) == expected
    assert [i for i, rank in enumerate(pareto.ranks(points)) if rank == 0] == expected


@given(rows)
def test_whoever_is_dominated_has_a_higher_rank_and_comes_later(found: list[tuple[int, ...]]) -> None:
    points = pareto.points_of(found)
    rank, order = pareto.ranks(points), pareto.order(points)
    assert sorted(order) == list(range(len(found)))
    for i, a in enumerate(found):
        for j, b in enumerate(found):
            if dominates(a, b):
                assert rank[i] < rank[j]
                assert order.index(i) < order.index(j)


@given(rows)
def test_the_volume_is_the_count_of_dominated_cells(found: list[tuple[int, ...]]) -> None:
    """All coordinates are whole, so that the volume above -4 is made of unit cells."""
    k = len(found[0])
    cells = np.stack(np.meshgrid(*[np.arange(-4, 3)] * k), axis=-1).reshape(-1, k)
    covered = sum(any(np.all(cell + 1 <= point) for point in np.array(found)) for cell in cells)
    assert pareto.hypervolume(pareto.points_of(found), [-4.0] * k) == pytest.approx(covered)


def test_the_knee_is_the_best_bargain_whatever_the_units() -> None:
    points = pareto.points_of([(0.90, -1000.0), (0.88, -200.0), (0.60, -100.0), (0.5, -900.0)])
    assert pareto.knee(points) == 1
    assert pareto.knee(points * [100.0, 1e-3]) == 1
    assert pareto.knee(pareto.points_of([(0.5, -3.0)])) == 0
    assert pareto.knee(np.empty((0, 2))) is None


def test_the_ends_of_a_front_are_the_most_alone() -> None:
    distance = pareto.crowding(pareto.points_of([(0, 4), (1, 3), (1.1, 2.9), (4, 0)]))
    assert np.isinf(distance[[0, 3]]).all()
    assert np.isfinite(distance[[1, 2]]).all()


def test_nan_is_the_worst() -> None:
    assert pareto.front(pareto.points_of([(float("nan"), 1.0), (0.1, 1.0)])) == [1]


def test_a_large_front_of_two_is_found_in_one_pass() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((20_000, 2))
    found = pareto.front(points)
    best = points[found]
    assert not any(np.all(points >= each, axis=1).sum() > 1 for each in best)
