"""Rows out of many arrays are those of the arrays."""

from __future__ import annotations

import numpy as np
import pytest

from autovision.features.gather import RowMap, runs_of


def scattered(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> list[np.ndarray]:
    """Shards of several lengths, with other memory between them."""
    shards = []
    for n in (5, 1, 8, 3):
        padding = np.zeros(int(rng.integers(1, 1000)), np.uint8)
        shards += [rng.integers(0, 200, (n, *shape)).astype(dtype)]
        del padding
    return shards


@pytest.mark.parametrize("dtype", [np.float16, np.uint8])
@pytest.mark.parametrize("shape", [(7,), (1,), (3, 2, 5)])
def test_rows_are_those_of_the_shards(shape: tuple[int, ...], dtype: type) -> None:
    rng = np.random.default_rng(0)
    shards = scattered(rng, shape, dtype)
    places = [(shard, row) for shard, values in enumerate(shards) for row in range(len(values))]
    order = rng.permutation(len(places))[:16].reshape(2, 8)  # 2 views of 8 images, in any order
    shard, row = (np.array([places[at][part] for at in order.flat]).reshape(2, 8) for part in (0, 1))
    rows = RowMap(shards, shard, row)
    views, images = rng.integers(0, 2, 40), rng.integers(0, 8, 40)
    found = rows.take((views, images))
    expected = np.stack([shards[shard[v, i]][row[v, i]] for v, i in zip(views, images, strict=True)])
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)
    assert rows.shape == shape


def test_what_is_taken_is_a_copy_and_the_map_keeps_its_shards() -> None:
    shards = [np.full((2, 4), 3, np.float16)]
    rows = RowMap(shards, np.zeros((1, 2), np.int64), np.arange(2)[None])
    at = (np.zeros(1, np.int64), np.ones(1, np.int64))
    rows.take(at)[:] = 0
    shards.clear()
    assert (rows.take(at) == 3).all()


def test_columns_come_in_their_order() -> None:
    values = np.arange(60).reshape(5, 12).astype(np.float16)
    rows = RowMap(
        [values[:2].copy(), values[2:].copy()], np.array([[0, 0, 1, 1, 1]]), np.array([[0, 1, 0, 1, 2]])
    )
    columns = np.array([7, 8, 9, 0, 1, 4])
    found = rows.take_columns((np.zeros(3, np.int64), np.array([4, 0, 2])), runs_of(columns))
    np.testing.assert_array_equal(found, values[[4, 0, 2]][:, columns])


def test_runs() -> None:
    assert runs_of(np.array([3, 4, 5, 9, 0, 1])) == [(3, 6), (9, 10), (0, 2)]
    assert runs_of(np.array([5, 4])) == [(5, 6), (4, 5)]
    assert runs_of(np.array([], np.int64)) == []
