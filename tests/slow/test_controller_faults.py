"""The controller is killed before and after every write of a full turn, and sleeps in each: every time the same end.

A kill leaves nothing of a process but what it wrote. So one turn that nothing disturbs tells what a kill before any of
its writes would leave, which is also what one just after the write before leaves; whoever takes over begins with that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.unit.conftest import cache, one_thread, serve_images, tiny  # noqa: F401 - fixtures
from tests.unit.loops import LoopWorld, loop_world

if TYPE_CHECKING:
    from tests.unit.conftest import History


@pytest.fixture
def world(
    tiny: History,  # noqa: F811
    serve_images: Callable[..., list[tuple[str, str]]],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> LoopWorld:
    return loop_world(tiny, serve_images, tmp_path, monkeypatch)


@pytest.mark.timeout(1800)
def test_killed_before_or_after_any_write_it_converges_to_the_same_end(world: LoopWorld) -> None:
    turn = world.turn(world.fresh())
    expected = world.end(turn.left[-1])
    for number, found in enumerate(turn.left):
        store = found.copy()
        world.take_over(store)
        assert world.end(store) == expected, turn.told(number)
        assert world.settle(store) == [], turn.told(number)
    print(f"\n{2 * len(turn.writes)} kills at {len(turn.writes)} writes")


@pytest.mark.timeout(1800)
def test_killed_again_it_converges_to_the_same_end(world: LoopWorld) -> None:
    """The one that takes over is killed, too, each at another of its writes."""
    turn = world.turn(world.fresh())
    expected, kills = world.end(turn.left[-1]), 0
    rng = np.random.default_rng(0)
    for number, found in enumerate(turn.left):
        world.leases_end()
        rest = world.turn(found.copy())
        second = int(rng.integers(len(rest.left)))
        store = rest.left[second]
        world.take_over(store)
        assert world.end(store) == expected, f"{turn.told(number)}; then {rest.told(second)}"
        assert world.settle(store) == []
        kills += 2
    print(f"\n{kills} kills, two of each turn")


@pytest.mark.timeout(1800)
def test_a_leader_that_sleeps_in_any_write_does_nothing_that_counts(world: LoopWorld) -> None:
    turn = world.turn(world.fresh())
    expected, slept = world.end(turn.left[-1]), 0
    for number, write in enumerate(turn.writes):
        if "leases/" in write:
            continue  # it does not lead yet, or does not any more
        store = world.fresh()
        with world.sleeper(store, number):
            world.settle(store)
        assert world.end(store) == expected, f"slept in write {number} of {len(turn.writes)}, {write}"
        assert world.settle(store) == []
        slept += 1
    assert slept > len(turn.writes) / 2
    print(f"\n{slept} leaders slept")
