"""Searches that share a cluster: their order, their turns and their shares, all from the store. Without Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from autovision.errors import Interrupted, InvalidInput
from autovision.records.base import now
from autovision.records.searches import ClusterView, LiveSearch, SearchRequest, SearchStatus
from autovision.search import requests
from autovision.search.sharing import cluster, queue
from autovision.search.sharing import turn as turn_module
from autovision.search.sharing.shares import UNLIMITED
from autovision.search.sharing.turn import Turn
from autovision.store import MemoryStore, keys, lease, records
from autovision.store.protocol import Store

if TYPE_CHECKING:
    from tests.unit.conftest import History


def view(*cpus: int, name: str = "here") -> ClusterView:
    return ClusterView(name=name, nodes=tuple({"CPU": float(n)} for n in cpus), seen_at=now())


@pytest.fixture
def asked(tiny: History) -> SearchRequest:
    return tiny.searches[0].with_(max_trials=None, deployment=None)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def put(store: Store, asked: SearchRequest, nonce: str, **changes: object) -> SearchRequest:
    request = asked.with_(nonce=nonce, **changes)
    requests.submit(store, request)
    return request


@contextmanager
def process(
    store: Store, request: SearchRequest, places: int, *, name: str = "here", behind_queue: bool = False
) -> Iterator[Turn]:
    """What `run_search` holds while it works on a search."""
    held = lease.acquire(store, f"search-{request.id}", "a process", 30)
    assert held is not None
    submitted_at = requests.get(store, request.id)[1].created_at
    look = partial(view, places, name=name)
    with held, Turn(store, request, submitted_at, look=look, behind_queue=behind_queue) as turn:
        yield turn


def begin(turn: Turn) -> Turn:
    """Begin at once."""

    def must_not_wait() -> bool:
        raise AssertionError("it had to wait")

    turn.wait(must_not_wait, lambda text: None)
    return turn


def waits(turn: Turn) -> str:
    """Why it waits, found out without waiting for long."""
    told: list[str] = []
    with pytest.raises(Interrupted):
        turn.wait(lambda: bool(told), told.append)
    return told[0]


def until(check: object, *, seconds: float = 30.0) -> None:
    assert callable(check)
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# -------------------------------------------------------------------------------------------- turns and shares


def test_a_search_alone_is_not_limited(store: MemoryStore, asked: SearchRequest) -> None:
    with process(store, put(store, asked, "a"), 2) as turn:
        assert begin(turn).share() == UNLIMITED
        (seen,) = queue.live(store)
        assert (seen.cluster, seen.share, seen.begun_at is not None) == ("here", 2, True)
    assert queue.live(store) == []
    assert [key for key in store.list() if key.startswith(keys.LIVE)] == []


def test_a_second_search_halves_the_share_of_the_first_and_gives_it_back(
    store: MemoryStore, asked: SearchRequest
) -> None:
    with process(store, put(store, asked, "a"), 8) as first:
        begin(first)
        with process(store, put(store, asked, "b"), 8) as second:
            begin(second)
            first.refresh()
            assert (first.share(), second.share()) == (4, 4)
            with process(store, put(store, asked, "c", priority=1), 8) as third:
                begin(third)
                first.refresh()
                second.refresh()
                assert (first.share(), second.share(), third.share()) == (2, 2, 4)
            second.follow(lambda: (1, 1))
            second.refresh()
            first.refresh()
            assert (first.share(), second.share()) == (7, 1)
            second.finishing()
            first.refresh()
            assert first.share() == 8
        first.refresh()
        assert first.share() == UNLIMITED


def test_shares_are_looked_up_again_by_themselves(store: MemoryStore, asked: SearchRequest) -> None:
    with process(store, put(store, asked, "a"), 2) as first:
        begin(first)
        with process(store, put(store, asked, "b"), 2) as second:
            begin(second)
            until(lambda: first.share() == 1)
        until(lambda: first.share() == UNLIMITED)


def test_searches_on_other_clusters_do_not_count(store: MemoryStore, asked: SearchRequest) -> None:
    a, b = put(store, asked, "a"), put(store, asked, "b")
    with process(store, a, 1) as first, process(store, b, 1, name="elsewhere") as second:
        begin(first)
        assert begin(second).share() == UNLIMITED
        first.refresh()
        assert first.share() == UNLIMITED


def test_with_one_place_searches_take_turns(store: MemoryStore, asked: SearchRequest) -> None:
    first, second = put(store, asked, "a"), put(store, asked, "b", priority=10)
    told: list[str] = []
    begun = threading.Event()

    def work() -> None:
        with process(store, second, 1) as turn:
            turn.wait(lambda: False, told.append)
            begun.set()

    waiting = threading.Thread(target=work)
    with process(store, first, 1) as turn:
        begin(turn)
        requests.set_state(store, first.id, status=SearchStatus.RUNNING)
        waiting.start()
        until(lambda: told)
        assert told == [f"waits for its turn on here: needs 1 of 1 place; 1 is kept for {first.id}"]
        assert not begun.is_set(), "a search that runs is not driven out by one of a higher priority"
        assert requests.get(store, second.id)[1].status is SearchStatus.QUEUED
        turn.refresh()
        assert turn.share() == UNLIMITED, "who waits takes nothing"
        running, entry = queue.entries(store)
        assert (running.position, running.share, entry.position, entry.share) == (None, 1, 1, None)
        assert "kept for" in entry.why
        turn.finishing()
        waiting.join(30)
        assert begun.is_set(), "evaluating the winner takes no place"


def test_who_is_killed_gives_his_place_back(store: MemoryStore, asked: SearchRequest) -> None:
    gone = put(store, asked, "a")
    held = lease.acquire(store, f"search-{gone.id}", "a process that was killed", 0.5)
    assert held is not None
    left = LiveSearch(search=gone.id, cluster="here", submitted_at=now(), begun_at=now())
    records.create(store, keys.live_search(gone.id), left)
    with process(store, put(store, asked, "b"), 1) as turn:
        turn.wait(lambda: False, lambda text: None)
    until(lambda: not lease.is_held(store, f"search-{gone.id}"))
    with process(store, gone, 1) as again:
        assert begin(again).share() == UNLIMITED


def test_two_that_look_at_once_do_not_both_take_the_last_place(
    store: MemoryStore, asked: SearchRequest
) -> None:
    together = threading.Barrier(6)
    over = threading.Event()
    begun: list[str] = []

    def work(request: SearchRequest) -> None:
        with process(store, request, 2) as turn:
            together.wait()
            try:
                turn.wait(over.is_set, lambda text: None)
            except Interrupted:
                return
            begun.append(request.id)
            over.wait()

    threads = [threading.Thread(target=work, args=(put(store, asked, str(n)),)) for n in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: len(begun) == 2)
    time.sleep(2.5)
    assert len(begun) == 2
    over.set()
    for thread in threads:
        thread.join()


def test_who_waits_is_stopped_like_who_runs(store: MemoryStore, asked: SearchRequest) -> None:
    first, second, third = (put(store, asked, nonce) for nonce in "abc")
    with process(store, first, 1) as turn:
        begin(turn)
        with process(store, second, 1) as waiting:
            assert "kept for" in waits(waiting)
        assert requests.get(store, second.id)[1].status is SearchStatus.STOPPED
        with process(store, third, 1) as waiting, pytest.raises(Interrupted, match="before its turn"):
            waiting.wait(lambda: False, lambda text: requests.request_stop(store, third.id))


def test_what_can_never_fit_does_not_wait(store: MemoryStore, asked: SearchRequest) -> None:
    request = put(store, asked, "a", workers_per_trial=3)
    with process(store, request, 2) as turn, pytest.raises(InvalidInput, match="ask for at most 2"):
        begin(turn)


def test_a_trial_of_several_workers_waits_for_all_its_places(
    store: MemoryStore, asked: SearchRequest
) -> None:
    with process(store, put(store, asked, "a", workers_per_trial=3), 4) as first:
        begin(first)
        with process(store, put(store, asked, "b", workers_per_trial=2), 4) as second:
            assert "needs 2 of 4 places; 3 are kept for" in waits(second)
        with process(store, put(store, asked, "c"), 4) as third:
            begin(third)
            first.refresh()
            assert (first.share(), third.share()) == (1, 1)


# --------------------------------------------------------------------------- a person's search beside a controller


@pytest.fixture
def controller(store: MemoryStore) -> None:
    """One that runs; what it does is up to the test."""
    assert lease.acquire(store, "controller", "a controller", 300) is not None


def test_a_search_with_a_process_of_its_own_waits_for_those_of_the_queue_before_it(
    store: MemoryStore, asked: SearchRequest, controller: None
) -> None:
    before = put(store, asked, "b", priority=5)
    mine, later = put(store, asked, "c"), put(store, asked, "d", priority=-1)
    with process(store, mine, 1, behind_queue=True) as turn:
        assert waits(turn) == f"waits for its turn on here: needs 1 of 1 place; 1 is kept for {before.id}"
    requests.set_state(store, mine.id, status=SearchStatus.QUEUED)
    with process(store, mine, 2, behind_queue=True) as turn:
        begin(turn)
    requests.set_state(store, before.id, status=SearchStatus.FINISHED)
    with process(store, mine, 1, behind_queue=True) as turn:
        begin(turn)
        assert later.id in {request.id for request, _ in queue.waiting(store)}


def test_what_the_controller_has_taken_up_does_not_wait_for_what_it_cannot_start_meanwhile(
    store: MemoryStore, asked: SearchRequest, controller: None
) -> None:
    taken_up = put(store, asked, "b")
    put(store, asked, "c", priority=5)
    with process(store, taken_up, 1) as turn:
        begin(turn)


@pytest.mark.parametrize("why", ["no controller", "another cluster", "it never fits"])
def test_nobody_waits_for_a_queue_that_nobody_works_through_here(
    store: MemoryStore, asked: SearchRequest, why: str
) -> None:
    put(store, asked, "b", priority=5, workers_per_trial=2 if why == "it never fits" else 1)
    if why != "no controller":
        assert lease.acquire(store, "controller", "a controller", 300) is not None
    if why == "another cluster":
        cluster.note(store, view(8, name="elsewhere"))
    with process(store, put(store, asked, "c"), 1, behind_queue=True) as turn:
        begin(turn)


def test_a_place_is_left_for_no_longer_than_a_controller_takes(
    store: MemoryStore, asked: SearchRequest, controller: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may run as many as it may, or not reach its cluster."""
    monkeypatch.setattr(turn_module, "_TAKING_UP_S", 0.5)
    monkeypatch.setattr(turn_module, "_POLL_S", 0.1)
    before = put(store, asked, "b", priority=5)
    told: list[str] = []
    with process(store, put(store, asked, "c"), 1, behind_queue=True) as turn:
        turn.wait(lambda: False, told.append)
        assert [f"kept for {before.id}" in text for text in told] == [True]


def test_a_process_is_known_as_soon_as_it_has_taken_a_search_up(
    store: MemoryStore, asked: SearchRequest
) -> None:
    request = put(store, asked, "a")
    with process(store, request, 1):
        assert [(each.search, each.begun_at) for each in queue.live(store)] == [(request.id, None)]
        assert queue.waiting(store) == []


# ------------------------------------------------------------------------------------------------- the queue


def test_the_queue_is_ordered_by_priority_and_then_by_age(store: MemoryStore, asked: SearchRequest) -> None:
    old, middle, new = (put(store, asked, nonce) for nonce in "abc")
    urgent, idle = put(store, asked, "d", priority=2), put(store, asked, "e", priority=-1)
    found = [(entry.request.id, entry.position) for entry in queue.entries(store)]
    assert found == [(request.id, n) for n, request in enumerate((urgent, old, middle, new, idle), 1)]
    assert queue.ready(store, view(2)) == [urgent, old]
    assert queue.ready(store, view(2), started=[urgent.id]) == [old]
    assert queue.ready(store, view(2), started=[urgent.id, old.id]) == []
    with lease.acquire(store, f"search-{urgent.id}", "its process", 30):  # type: ignore[union-attr]
        # It has its lease, and has not yet said that it lives.
        assert queue.ready(store, view(1), started=[urgent.id]) == []
    requests.request_stop(store, urgent.id)
    assert [request.id for request, _ in queue.waiting(store)] == [r.id for r in (old, middle, new, idle)]


def test_what_never_fits_is_taken_up_at_once_to_be_told_so(store: MemoryStore, asked: SearchRequest) -> None:
    small, large = put(store, asked, "a"), put(store, asked, "b", workers_per_trial=9)
    assert queue.ready(store, view(2)) == [large, small]


def test_a_search_that_lost_its_process_waits_again(store: MemoryStore, asked: SearchRequest) -> None:
    request = put(store, asked, "a")
    requests.set_state(store, request.id, status=SearchStatus.RUNNING)
    (entry,) = queue.entries(store)
    assert entry.position == 1
    assert entry.why.startswith("its process is gone; no controller runs: `autovision controller run`")
    assert queue.ready(store, view(1)) == [request]


def test_why_a_search_waits(store: MemoryStore, asked: SearchRequest) -> None:
    first, second = put(store, asked, "a"), put(store, asked, "b", workers_per_trial=2)

    def reasons() -> list[str]:
        return [entry.why for entry in queue.entries(store)]

    assert all("no controller runs" in why for why in reasons())
    assert lease.acquire(store, "controller", "somebody", 30) is not None
    assert reasons() == ["a controller will take it up"] * 2
    cluster.note(store, view(2))
    assert reasons() == ["is about to begin", f"needs 2 of 2 places; 1 is kept for {first.id}"]
    cluster.note(store, view(1).with_(seen_at=now() + timedelta(seconds=1)))
    assert "2 workers per trial need 2 CPUs at once" in reasons()[1]
    assert second.id == queue.entries(store)[1].request.id


def test_what_would_happen_to_a_search(store: MemoryStore, asked: SearchRequest) -> None:
    one = asked.with_(nonce="z")
    alone = queue.outlook(store, one, view(2, 2))
    assert (alone.places, alone.position, alone.share, alone.whole, alone.waits) == (4, 1, 4, 4, None)
    with process(store, put(store, asked, "a"), 4) as turn:
        begin(turn)
        behind = put(store, asked, "b", workers_per_trial=4, priority=1)
        found = queue.outlook(store, one, view(2, 2))
        assert (found.position, found.ahead, found.share, found.whole) == (2, (behind.id,), 2, 4)
        assert found.waits == f"waits behind {behind.id} (priority 1)"
        assert queue.outlook(store, one.with_(priority=2), view(2, 2)).waits is None
    never = queue.outlook(store, one.with_(workers_per_trial=5), view(2, 2))
    assert (never.share, never.whole) == (0, 0) and "ask for at most 4" in never.faults[0]


# ------------------------------------------------------------------------------------------------ the cluster


def test_a_cluster_is_known_while_its_view_is_fresh(store: MemoryStore) -> None:
    assert cluster.known(store) is None
    old = view(1, name="old")
    cluster.note(store, old.with_(seen_at=now() - timedelta(minutes=6)))
    assert cluster.known(store) is None
    cluster.note(store, view(2))
    assert (found := cluster.known(store)) is not None and found.name == "here"
    assert cluster.known(store, "old") is None
    cluster.note(store, view(2, 2))
    assert (found := cluster.known(store, "here")) is not None and len(found.nodes) == 2
    etag = store.get(keys.cluster_view("here")).etag
    cluster.note(store, view(2, 2))
    assert store.get(keys.cluster_view("here")).etag == etag, "what says the same is not written again"


def test_without_ray_the_cluster_is_this_machine() -> None:
    assert cluster.here().nodes[0]["CPU"] >= 1


def test_a_head_that_does_not_answer_leaves_what_was_seen_before(
    store: MemoryStore, asked: SearchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_module, "_LOOK_S", -1.0)
    looks = iter([view(4), cluster.ClusterAway(), view(8)])

    def look() -> ClusterView:
        seen = next(looks)
        if isinstance(seen, Exception):
            raise seen
        return seen

    request = put(store, asked, "a")
    turn = Turn(store, request, now(), look=look)
    turn._mine = turn._mine.with_(begun_at=now())
    shares = []
    for _ in range(3):
        turn.refresh()
        shares.append(turn._mine.share)
    assert shares == [4, 4, 8]
