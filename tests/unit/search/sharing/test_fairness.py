"""The queue among several users: nobody gets more than another while both wait. On a clock of the test's own."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autovision.records.searches import ClusterView, LiveSearch, SearchRequest, SearchState, SearchStatus
from autovision.search import requests
from autovision.search.sharing import queue
from autovision.search.sharing.fairness import HALF_LIFE, Use, Wish, ahead, had
from autovision.store import MemoryStore, keys, lease, records
from autovision.store.lease import HeldLease

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
USERS = ("ann", "ben", "cem", "dia", "eve")


def asked(nonce: str, budget_s: float, priority: int = 0) -> SearchRequest:
    return SearchRequest(
        dataset="pets",
        dataset_version=1,
        dataset_digest="0" * 64,
        space={},
        budget_s=budget_s,
        priority=priority,
        nonce=nonce,
    )


@dataclass
class Cluster:
    """Places on which searches run for as long as they may, one place each, and what everybody got."""

    places: int
    store: MemoryStore = field(default_factory=MemoryStore)
    at: datetime = NOON
    running: dict[str, tuple[datetime, HeldLease]] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)

    def submit(self, user: str | None, nonce: str, budget_s: float, priority: int = 0) -> str:
        request = asked(nonce, budget_s, priority)
        requests.submit(self.store, request, at=self.at, by=user)
        self.at += timedelta(milliseconds=1)
        return request.id

    def turn(self) -> bool:
        """Start those whose turn it is, then let the next one end; False: nothing runs any more."""
        view = ClusterView(name="here", nodes=({"CPU": float(self.places)},), seen_at=self.at)
        for request in queue.ready(self.store, view, clock=self.now):
            self._begin(request)
        if not self.running:
            return False
        search = min(self.running, key=lambda each: (self.running[each][0], each))
        self.at = max(self.at, self.running[search][0])
        self._end(search)
        return True

    def now(self) -> datetime:
        return self.at

    def _begin(self, request: SearchRequest) -> None:
        held = lease.acquire(self.store, f"search-{request.id}", "a process", 1e6, self.now)
        assert held is not None and request.id not in self.begun
        live = LiveSearch(search=request.id, cluster="here", wants=1, submitted_at=self.at, begun_at=self.at)
        records.create(self.store, keys.live_search(request.id), live)
        self._set(request.id, status=SearchStatus.RUNNING)
        self.running[request.id] = self.at + timedelta(seconds=request.budget_s), held
        self.begun.append(request.id)

    def _end(self, search: str) -> None:
        _, held = self.running.pop(search)
        budget_s = requests.get(self.store, search)[0].budget_s
        self._set(search, status=SearchStatus.FINISHED, spent_s=budget_s)
        self.store.delete(keys.live_search(search))
        held.release()

    def _set(self, search: str, **changes: object) -> None:
        records.update(
            self.store,
            keys.search_state(search),
            SearchState,
            lambda state: state.with_(**changes, updated_at=self.at),
        )


def got_while_all_waited(cluster: Cluster, of: dict[str, tuple[str, float]]) -> dict[str, float]:
    """User -> seconds of the searches that were begun before somebody had none left that waited."""
    left = Counter(user for user, _ in of.values())
    got: dict[str, float] = defaultdict(float)
    for search in cluster.begun:
        if 0 in left.values():
            break
        user, seconds = of[search]
        left[user] -= 1
        got[user] += seconds
    return got


@pytest.mark.parametrize("places", [1, 2, 4])
@pytest.mark.parametrize("order", ["one after the other", "mixed"])
def test_fifty_searches_of_five_users_are_fair_within_a_tenth(places: int, order: str) -> None:
    cluster = Cluster(places)
    everything = [(user, number) for user in USERS for number in range(10)]
    if order == "mixed":
        random.Random(places).shuffle(everything)
    of = {cluster.submit(user, f"{user}-{number}", budget_s=5.0): (user, 5.0) for user, number in everything}
    while cluster.turn():
        pass
    assert sorted(cluster.begun) == sorted(of), "none is lost, none is begun twice"
    got = got_while_all_waited(cluster, of)
    mean = sum(got.values()) / len(USERS)
    assert len(got) == 5 and all(abs(seconds - mean) <= 0.1 * mean for seconds in got.values()), got


def test_it_is_seconds_that_are_shared_whatever_a_search_takes() -> None:
    """Users whose searches are longer get fewer of them."""
    cluster, of = Cluster(3), {}
    for user, budget_s in zip(USERS, (12.0, 14.0, 16.0, 18.0, 20.0), strict=True):
        for number in range(int(240 / budget_s)):
            of[cluster.submit(user, f"{user}-{number}", budget_s)] = (user, budget_s)
    while cluster.turn():
        pass
    assert len(cluster.begun) == len(set(cluster.begun)) == len(of)
    got = got_while_all_waited(cluster, of)
    mean = sum(got.values()) / len(USERS)
    assert all(abs(seconds - mean) <= 0.1 * mean for seconds in got.values()), got


def test_who_comes_late_does_not_wait_behind_everything_that_somebody_else_has_queued() -> None:
    cluster = Cluster(1)
    for number in range(10):
        cluster.submit("ann", f"ann-{number}", 60.0)
    cluster.turn()
    late = cluster.submit("ben", "ben", 60.0)
    cluster.turn()
    assert cluster.begun[1] == late


def test_priority_goes_before_fairness_and_the_older_search_of_one_user_first() -> None:
    cluster = Cluster(1)
    first, second = (cluster.submit("ann", nonce, 60.0) for nonce in ("a", "b"))
    urgent = cluster.submit("ben", "c", 60.0, priority=1)
    later = cluster.submit("ben", "d", 60.0)
    while cluster.turn():
        pass
    assert cluster.begun == [urgent, first, later, second], (
        "of two who had a minute, it is longer ago for ben"
    )
    assert [request.id for request, _ in queue.waiting(cluster.store, cluster.now)] == []


def test_the_queue_shows_the_order_in_which_it_will_be_worked_through() -> None:
    cluster = Cluster(1)
    of_ann = [cluster.submit("ann", f"a{number}", 60.0) for number in range(3)]
    of_ben = [cluster.submit("ben", f"b{number}", 60.0) for number in range(2)]
    shown = [entry.request.id for entry in queue.entries(cluster.store, cluster.now)]
    assert shown == [of_ann[0], of_ben[0], of_ann[1], of_ben[1], of_ann[2]]
    view = ClusterView(name="here", nodes=({"CPU": 1.0},), seen_at=cluster.at)
    outlook = queue.outlook(cluster.store, asked("new", 60.0), view, cluster.now)
    assert (outlook.position, outlook.ahead) == (3, (of_ann[0], of_ben[0]))
    while cluster.turn():
        pass
    assert cluster.begun == shown


def test_what_was_used_counts_for_half_after_a_day_and_for_nothing_after_ten() -> None:
    uses = [
        Use("ann", 100.0, None),
        Use("ann", 100.0, NOON - HALF_LIFE),
        Use("ann", 100.0, NOON - 2 * HALF_LIFE),
        Use("ben", 100.0, NOON - 10 * HALF_LIFE),
        Use(None, 7.0, NOON + HALF_LIFE),
    ]
    assert had(uses, NOON) == {"ann": 175.0, None: 7.0}


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60)), max_size=12),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 100).map(float)),
)
def test_the_order_is_that_of_giving_each_place_to_whom_has_the_least(
    asked_for: list[tuple[str, int]], used: dict[str | None, float]
) -> None:
    wishes = [
        Wish(str(number), user, (0, NOON, f"{number:02}"), float(seconds))
        for number, (user, seconds) in enumerate(asked_for)
    ]
    before = ahead(wishes, used)
    order = sorted(wishes, key=lambda wish: (before[wish.search], wish.rank))
    had_so_far = {user: used.get(user, 0.0) for user in "abc"}
    left = list(wishes)
    for wish in order:
        least = min(had_so_far[each.user or ""] for each in left)
        assert had_so_far[wish.user or ""] == least == before[wish.search]
        assert wish is next(each for each in left if each.user == wish.user)
        had_so_far[wish.user or ""] += wish.seconds
        left.remove(wish)
