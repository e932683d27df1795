"""Several searches on one cluster, with a real Ray, and a controller that runs each in a process of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import ray

from autovision import runtime
from autovision.api import AutoVision
from autovision.errors import Interrupted
from autovision.records.searches import LiveSearch, SearchStatus
from autovision.records.trials import TrialState
from autovision.search.begun import Begun
from autovision.search.fleet import Fleet
from autovision.search.sharing import queue
from autovision.search.sharing.turn import Turn
from autovision.space import Choice, Float, Integer, Space
from autovision.store import keys, records

BUDGET_S = 600.0
"""not used up: so long even a busy machine does not take"""


class Slow(Space):
    """Trials of some seconds each: long enough to see who waits for whom."""

    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    unfreeze = 1
    lr = Float(1e-4, 1e-1, log=True)
    epochs = Integer(9, 12)
    batch_size = 8


class Slower(Slow):
    """Longer than a process takes to start."""

    epochs = Integer(100, 120)


class OneShort(Slow):
    """The first trial is short; those that are drawn go on until they are stopped."""

    epochs = Choice(*range(980, 1000), 2, default=2)


@dataclass
class Seen:
    """Which searches were live, look by look."""

    av: AutoVision
    looks: list[dict[str, LiveSearch]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        while not self.over.wait(0.2):
            self.looks.append({each.search: each for each in queue.live(self.av.store)})

    def of(self, search: str) -> list[LiveSearch]:
        return [live[search] for live in self.looks if search in live]


@pytest.fixture
def av(folder: Path, tmp_path: Path) -> AutoVision:
    av = AutoVision(tmp_path / "store")
    av.import_dataset(folder, "colours", seed=0)
    return av


@pytest.fixture
def watched(av: AutoVision) -> Iterator[Seen]:
    seen = Seen(av)
    thread = threading.Thread(target=seen.look)
    thread.start()
    yield seen
    seen.over.set()
    thread.join()


def small_ray(cpus: int) -> Iterator[None]:
    """A Ray of so many CPUs, whatever the machine has."""
    assert not ray.is_initialized()
    patch = pytest.MonkeyPatch()
    real = ray.init
    patch.setattr(ray, "init", lambda *args, **options: real(*args, num_cpus=cpus, **options))
    try:
        with runtime.connected():
            patch.undo()
            yield
    finally:
        patch.undo()


@pytest.fixture
def two_cpus() -> Iterator[None]:
    yield from small_ray(2)


@pytest.fixture
def one_cpu() -> Iterator[None]:
    yield from small_ray(1)


def submit(av: AutoVision, **options: object) -> str:
    options = {"space": Slow(), "budget_s": BUDGET_S} | options
    return av.search("colours", wait=False, **options).search  # type: ignore[arg-type]


def turn_until(av: AutoVision, done: Callable[[], object]) -> list[str]:
    """Turn a controller until something is so; what it told."""
    controller = av.controller(fleet=Fleet(av.store), should_stop=lambda: bool(done()))
    return [f"{event.stage}: {event.text}" for event in controller.run(interval_s=0.2)]


def status(av: AutoVision, search: str) -> SearchStatus:
    return av.search_of(search)[1].status


def at_work(live: LiveSearch) -> bool:
    return live.begun_at is not None and live.wants != 0


def test_two_searches_share_two_places(av: AutoVision, watched: Seen, two_cpus: None) -> None:
    first = submit(av, space=Slower(), max_trials=1000)  # on no machine over before it is stopped
    second: list[str] = []

    def join_in() -> None:
        while max((live.running for live in watched.of(first)), default=0) < 2:
            time.sleep(0.1)
        second.append(submit(av, max_trials=2, seed=1))

    joining = threading.Thread(target=join_in)
    joining.start()
    asked: list[str] = []

    def over() -> bool:
        if second and not asked and status(av, second[0]) is SearchStatus.FINISHED:
            asked.append(first)
            av.stop(first)
        return bool(second) and not queue.entries(av.store)

    told = turn_until(av, over)
    joining.join()
    assert not [line for line in told if line.startswith("error")], told
    ids = (first, second[0])
    assert [status(av, search) for search in ids] == [SearchStatus.STOPPED, SearchStatus.FINISHED], (
        "the second one did not wait for the end of the first"
    )
    assert len(av.trials(second[0])) == 2
    assert max(live.running for live in watched.of(first)) == 2, "alone it had both places"
    both = [
        (live[first], live[second[0]])
        for live in watched.looks
        if set(ids) <= set(live) and all(map(at_work, live.values()))
    ]
    # What each reads of the other is a second old, and so is what is seen here.
    settled = both[15:]
    assert len(settled) > 5
    assert {(one.share, other.share) for one, other in settled} == {(1, 1)}
    # A trial that runs is not cut off for the other search; but none is begun in its place.
    running = [one.running for one, _ in settled]
    assert running == sorted(running, reverse=True) and set(running) <= {1, 2}, running


def test_with_one_place_searches_take_turns_and_a_controller_that_is_stopped_is_followed_by_the_next(
    av: AutoVision, watched: Seen, one_cpu: None
) -> None:
    first, second = submit(av, max_trials=2), submit(av, max_trials=1, seed=1)
    why: list[str] = []

    def has_begun() -> bool:
        if queue.live(av.store) and not why:
            why.extend(entry.why for entry in queue.entries(av.store) if entry.request.id == second)
        return bool(av.trials(first))

    told, *more = turn_until(av, has_begun)
    assert not more, more
    assert told.startswith(f"search: search {first} begins on ")
    assert why == [f"needs 1 of 1 place; 1 is kept for {first}"]
    assert [status(av, search) for search in (first, second)] == [SearchStatus.QUEUED] * 2
    assert queue.live(av.store) == []
    told_again = turn_until(av, lambda: not queue.entries(av.store))
    assert not [line for line in told_again if line.startswith("error")], told_again
    assert [status(av, search) for search in (first, second)] == [SearchStatus.FINISHED] * 2
    assert [len(av.trials(search)) for search in (first, second)] == [2, 1]
    assert not [live for live in watched.looks if sum(map(at_work, live.values())) > 1]


def test_a_search_over_its_share_gives_back_the_place_of_a_trial_that_ended(
    av: AutoVision, two_cpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune would keep the worker for a next trial, and its CPU with it, for as long as the other trial goes on."""
    search = submit(av, space=OneShort(), max_trials=10)
    monkeypatch.setattr(Turn, "share", lambda turn: 1 if av.trials(search) else 2)
    free: list[float] = []

    def given_back() -> bool:
        if av.trials(search):
            free.append(ray.available_resources().get("CPU", 0.0))
        return len(free) > 600 or (bool(free) and free[-1] >= 1)

    with pytest.raises(Interrupted):
        av.resume(search, should_stop=given_back)
    (short,) = av.trials(search)
    assert (short.config["epochs"], short.state) == (2, TrialState.COMPLETE)
    (long,) = records.read_all(av.store, keys.begun(search), Begun)
    assert long.assignment.config.epochs > 900, "it ran to the end of this test"
    assert free[-1] == 1, "one of the two places is free"
