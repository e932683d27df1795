"""The controller is killed before and after every write of a full turn, and sleeps in each: every time the same end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autovision.testing.mortal import MortalStore
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


def undisturbed(world: LoopWorld) -> tuple[dict[str, object], list[str]]:
    store = world.fresh()
    counted = MortalStore(store)
    world.settle(counted)
    return world.end(store), counted.writes


@pytest.mark.timeout(3600)
def test_killed_before_or_after_any_write_it_converges_to_the_same_end(world: LoopWorld) -> None:
    expected, writes = undisturbed(world)
    for number, write in enumerate(writes):
        for before in (True, False):
            store = world.fresh()
            world.killed(store, number, before=before)
            world.settle(store)
            where = f"killed {'before' if before else 'after'} write {number} of {len(writes)}, {write}"
            assert world.end(store) == expected, where
            assert world.settle(store) == [], where
    print(f"\n{2 * len(writes)} kills at {len(writes)} writes")


@pytest.mark.timeout(3600)
def test_killed_twice_it_converges_to_the_same_end(world: LoopWorld) -> None:
    """The one that takes over is killed, too."""
    expected, writes = undisturbed(world)
    for number in range(0, len(writes), 3):
        store = world.fresh()
        world.killed(store, number, before=True)
        rest = MortalStore(store)
        copy = world.fresh()
        for key in list(copy.list()):
            copy.delete(key)
        for key in store.list():
            copy.put_new(key, store.get(key).data)
        world.settle(rest)
        world.killed(copy, len(rest.writes) // 2, before=number % 2 == 0)
        world.settle(copy)
        assert world.end(copy) == expected, (
            f"killed at write {number}, {writes[number]}, and in the middle of the rest"
        )


@pytest.mark.timeout(3600)
def test_a_leader_that_sleeps_in_any_write_does_nothing_that_counts(world: LoopWorld) -> None:
    expected, writes = undisturbed(world)
    for number, write in enumerate(writes):
        if "leases/" in write:
            continue  # it does not lead yet, or does not any more
        store = world.fresh()
        with world.sleeper(store, number):
            world.settle(store)
        assert world.end(store) == expected, f"slept in write {number} of {len(writes)}, {write}"
        assert world.settle(store) == []
