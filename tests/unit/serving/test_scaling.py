"""How many replicas there should be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autovision.errors import InvalidInput
from autovision.serving.batcher import Work
from autovision.serving.scaling import (
    BUSY,
    IMAGES,
    WAITED_MS,
    Load,
    Scaling,
    ScalingPolicy,
    scaling_of,
    wanted,
)


def load(busy: float = 0.0, waited_ms: float = 0.0, images: float = 1.0) -> dict[str, float]:
    return {BUSY: busy, WAITED_MS: waited_ms, IMAGES: images}


@pytest.mark.parametrize(
    ("now", "loads", "then"),
    [
        (1, [load(0.5)], 1),
        (1, [load(0.9)], 2),
        (1, [load(0.5, waited_ms=150)], 2),
        (2, [load(0.9), load(0.9)], 3),
        (2, [load(0.7), load(0.7)], 2),
        (2, [load(0.35), load(0.35)], 2),  # one alone would be at 0.7, too near to 0.8
        (2, [load(0.25), load(0.25)], 1),
        (4, [load(0.05)] * 4, 1),
        (2, [load(0.9)], 2),  # the second is still being loaded
        (1, [load(images=0)], 0),
        (2, [load(images=0), load()], 1),
        (0, [], 0),
        (1, [], 1),
    ],
)
def test_wanted(now: int, loads: list[dict[str, float]], then: int) -> None:
    assert wanted(Scaling(0, 8), now, loads) == then


def test_the_last_replica_stays_unless_it_may_sleep() -> None:
    assert wanted(Scaling(1, 8), 1, [load(images=0)]) == 1


@given(
    st.integers(1, 8), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e4), st.floats(0, 1e4)), max_size=8)
)
def test_what_is_wanted_does_not_swing(now: int, told: list[tuple[float, float, float]]) -> None:
    """With as much work, shared by as many as are wanted, no other number is wanted the other way."""
    scaling = Scaling(1, 8)
    busy = sum(busy for busy, _, _ in told)
    then = wanted(scaling, now, [load(each, 0, images) for each, _, images in told])
    if told and 0 < busy <= then:
        again = wanted(scaling, then, [load(busy / then)] * then)
        assert again <= then if then < now else again >= then or then == now


def test_a_replica_tells_its_load_since_it_was_asked_last() -> None:
    done = [Work()]
    told = Load(lambda: done[0])
    assert told.since_last(10.0) == load(images=0)
    done[0] = Work(images=20, busy_s=1.0, waited_s=4.0)
    assert told.since_last(12.0) == load(0.5, 200.0, 10.0)
    assert told.since_last(14.0) == load(images=0)


def test_the_policy_reads_what_running_replicas_told() -> None:
    told: dict[str, dict[str, float]] = {
        BUSY: {"a": 0.9, "gone": 1.0},
        WAITED_MS: {"a": 5.0},
        IMAGES: {"a": 3.0},
    }
    context: Any = SimpleNamespace(
        aggregated_metrics=told, running_replicas=["a", "new"], target_num_replicas=1
    )
    assert ScalingPolicy(least=1, most=4)(context) == (2, {})
    context.aggregated_metrics = None
    assert ScalingPolicy(least=1, most=4)(context) == (1, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, None, 100.0, None), "0 replicas cannot answer"),
        ((2, 1, 100.0, None), "at most 1 replicas are fewer than the 2"),
        ((1, None, 0.0, None), "wait_ms is 0.0"),
        ((1, None, 100.0, -1.0), "idle_s is -1.0"),
    ],
)
def test_what_is_no_range_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        scaling_of(*arguments)


def test_a_range_as_the_commands_say_it() -> None:
    assert scaling_of(2, None, 50.0, None) == Scaling(2, 2, 50.0)
    assert scaling_of(1, 3, 100.0, 60.0) == Scaling(0, 3, 100.0, idle_s=60.0)
