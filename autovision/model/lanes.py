"""Whether images are answered sooner in lanes: calls that are computed at once, each by one thread.

A batch that all threads compute is done for all of its images at the end; a device that computes a batch in little more
time than an image gains by that. A processor does not: what each image waits for the others is lost. Both are measured
where a network is made ready, on the node that serves it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from autovision.model.compiled import Compiled
from autovision.records.runtimes import TIMED_BATCH, Lanes, LaneTimings

SIZES = (1, 2, 4, 8)
"""images of a call that are tried"""
COSTS = 1.15
"""so many times as long as in a batch may an image take in lanes, for what it waits less"""
NEARLY = 1.05
"""a call of fewer images is taken where it is slower by no more than that, for each"""
HARDLY = 1.01
"""the same of a call under a load that keeps all lanes busy: what each takes is then what all wait for"""
QUICKER = 0.9
"""of the time on one thread: what all threads have to be below to compute an image that is alone"""

METHOD = 2
"""raised when what is timed changes: figures of before are not used then"""
MOST_S = 1.5
"""seconds after which no more rounds are begun"""

_ROUNDS, _LEAST_ROUNDS = 9, 3


def decided(timings: LaneTimings) -> Lanes | None:
    """How to answer in lanes; None: batches are better."""
    quickest = min(timings.lane_ms.values())
    if quickest > COSTS * timings.batch_ms:
        return None
    few, most = (
        min(images for images, ms in timings.lane_ms.items() if ms <= nearly * quickest)
        for nearly in (NEARLY, HARDLY)
    )
    wide = timings.wide_ms < QUICKER * timings.one_ms
    return Lanes(number=timings.lanes, few=few, most=most, wide=wide)


def timings(
    wide: Compiled,
    narrow: Compiled,
    lanes: int,
    size: tuple[int, int],
    *,
    most_s: float = MOST_S,
    clock: Callable[[], float] = time.perf_counter,
) -> LaneTimings:
    """The least of rounds, in each of which all take a turn: some two seconds. What others compute only adds to it.

    Args:
        wide: computes each call with all threads.
        narrow: the same network, each call of which one thread computes.
        size: height and width of the images.
    """
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (TIMED_BATCH, *size, 3), dtype=np.uint8)
    with ThreadPoolExecutor(lanes) as pool:

        def in_lanes(images: int) -> None:
            # Twice each, or it would be the slowest lane that is measured.
            list(pool.map(narrow, [batch[:images]] * 2 * lanes))

        calls: list[Callable[[], object]] = [
            lambda: wide(batch[:1]),
            lambda: narrow(batch[:1]),
            lambda: wide(batch),
            *(functools.partial(in_lanes, images) for images in SIZES),
        ]
        for call in calls:
            call()
        took: list[list[float]] = [[] for _ in calls]
        until = clock() + most_s
        for number in range(_ROUNDS):
            if number >= _LEAST_ROUNDS and clock() > until:
                break
            for call, seconds in zip(calls, took, strict=True):
                began = clock()
                call()
                seconds.append(clock() - began)
    wide_ms, one_ms, batch_ms, *lanes_ms = (1e3 * min(seconds) for seconds in took)
    return LaneTimings(
        lanes=lanes,
        wide_ms=wide_ms,
        one_ms=one_ms,
        lane_ms={images: ms / (2 * lanes * images) for images, ms in zip(SIZES, lanes_ms, strict=True)},
        batch_ms=batch_ms / TIMED_BATCH,
    )
