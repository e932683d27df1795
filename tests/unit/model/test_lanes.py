"""Whether images are answered in lanes is decided by what both ways took."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest

from autovision.model import lanes
from autovision.records.runtimes import Lanes, LaneTimings


def took(one: float, two: float, four: float, *, batch: float, wide: float = 4.0) -> LaneTimings:
    return LaneTimings(lanes=2, wide_ms=wide, one_ms=8.0, lane_ms={1: one, 2: two, 4: four}, batch_ms=batch)


@pytest.mark.parametrize(
    ("timings", "few", "most"),
    [
        (took(3.0, 3.0, 3.0, batch=3.0), 1, 1),
        (took(3.0, 2.9, 2.7, batch=2.7), 4, 4),
        (took(3.0, 2.8, 2.7, batch=2.7), 2, 4),
        (took(3.0, 2.9, 2.8, batch=2.5), 2, 4),
        (took(2.8, 2.7, 2.69, batch=2.7), 1, 2),
        (took(1.0, 1.2, 1.4, batch=3.0), 1, 1),
    ],
)
def test_a_call_takes_the_fewest_images_that_are_computed_nearly_as_quickly(
    timings: LaneTimings, few: int, most: int
) -> None:
    decided = lanes.decided(timings)
    assert decided is not None
    assert (decided.number, decided.few, decided.most) == (2, few, most)


def test_where_a_batch_gains_there_are_no_lanes() -> None:
    assert lanes.decided(took(3.0, 2.5, 2.2, batch=1.9)) is None
    assert lanes.decided(took(5.0, 2.6, 1.4, batch=0.3)) is None, "a device that computes batches"


def test_all_threads_compute_a_lone_image_where_they_are_quicker() -> None:
    assert lanes.decided(took(3, 3, 3, batch=3, wide=7.0)) == Lanes(number=2, few=1, most=1, wide=True)
    assert lanes.decided(took(3, 3, 3, batch=3, wide=7.3)) == Lanes(number=2, few=1, most=1, wide=False)


class Counting:
    """Counts images of calls, and how many calls were under way at once."""

    runtime = "counting"

    def __init__(self) -> None:
        self.sizes: Counter[int] = Counter()
        self.shapes: set[tuple[int, ...]] = set()
        self._lock = threading.Lock()

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        with self._lock:
            self.sizes[len(pixels)] += 1
            self.shapes.add(pixels.shape[1:])
        return []


def test_each_way_is_timed_in_turn_and_counted_per_image() -> None:
    # A second passes with every look, so that each measurement takes one.
    ticks: Any = itertools.count()
    wide, narrow = Counting(), Counting()
    found = lanes.timings(wide, narrow, 3, (8, 6), most_s=0, clock=lambda: float(next(ticks)))
    assert found == LaneTimings(
        lanes=3,
        wide_ms=1000,
        one_ms=1000,
        lane_ms={images: 1000 / (6 * images) for images in lanes.SIZES},
        batch_ms=1000 / 16,
    )
    # Once to begin with, and in each of three rounds.
    assert wide.sizes == {1: 4, 16: 4}
    assert narrow.sizes == {1: 4 + 4 * 6, 2: 4 * 6, 4: 4 * 6, 8: 4 * 6}
    assert wide.shapes | narrow.shapes == {(8, 6, 3)}
