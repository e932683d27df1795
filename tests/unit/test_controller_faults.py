"""The controller is killed at writes of a full turn, or sleeps there: a sample; `tests/slow` has all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autovision.testing.mortal import MortalStore
from tests.unit.loops import LoopWorld, loop_world

if TYPE_CHECKING:
    from tests.unit.conftest import History


@pytest.fixture
def world(
    tiny: History,
    serve_images: Callable[..., list[tuple[str, str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> LoopWorld:
    return loop_world(tiny, serve_images, tmp_path, monkeypatch)


TELLING = (
    "retraining.json",
    "request.json",
    "versions/",
    "model.json",
    "deployment.json",
    "reports/",
    "decisions/",
)
"""parts of the keys of records: between their writes most can go wrong"""


def test_the_controller_goes_on_from_a_kill_at_any_record(world: LoopWorld) -> None:
    store = world.fresh()
    counted = MortalStore(store)
    events = world.settle(counted)
    assert [event.stage for event in events] == [
        *("monitoring", "retraining", "retention"),
        *("search", "promotion", "promotion", "promotion"),
    ]
    expected = world.end(store)
    assert len(expected["searches"]) == 1
    assert expected["champion of"] == [True]
    points = [
        number
        for number, write in enumerate(counted.writes)
        if any(part in write for part in TELLING) and "leases" not in write
    ]
    assert len(points) > 10
    for place, number in enumerate(points[::2]):
        store = world.fresh()
        world.killed(store, number, before=place % 2 == 0)
        world.settle(store)
        assert world.end(store) == expected, f"killed at {counted.writes[number]}"
        assert world.settle(store) == []


def test_a_leader_that_wakes_up_after_its_lease_ended_does_nothing_that_counts(world: LoopWorld) -> None:
    store = world.fresh()
    counted = MortalStore(store)
    world.settle(counted)
    expected = world.end(store)
    told = [
        next(number for number, write in enumerate(counted.writes) if part in write and "leases" not in write)
        for part in TELLING
    ]
    for number in sorted(set(told)):
        store = world.fresh()
        with world.sleeper(store, number):
            world.settle(store)
        assert world.end(store) == expected, f"slept at {counted.writes[number]}"
        assert world.settle(store) == []
