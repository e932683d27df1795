from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from autovision.errors import InvalidInput, StoreUnavailable
from autovision.records.leases import Lease
from autovision.store import MemoryStore, Store, keys, records
from autovision.store.lease import HeldLease, LeaseLost, acquire
from autovision.testing import FakeClock


def take(store: Store, holder: str, clock: FakeClock, ttl_s: float = 10) -> HeldLease:
    lease = acquire(store, "controller", holder, ttl_s, clock)
    assert lease is not None
    return lease


def test_one_holder_at_a_time(store: Store, clock: FakeClock) -> None:
    held = take(store, "a", clock)
    assert held.held and held.token == 1
    assert acquire(store, "controller", "b", 10, clock) is None
    assert acquire(store, "controller", "a", 10, clock) is None, (
        "a name is no proof of being the same process"
    )
    assert acquire(store, "other", "b", 10, clock) is not None


def test_the_record_says_who_until_when(store: Store, clock: FakeClock) -> None:
    held = take(store, "a", clock, ttl_s=10)
    stored = records.read(store, keys.lease("controller"), Lease)
    assert stored == held.lease
    assert (stored.holder, (stored.expires_at - clock()).total_seconds()) == ("a", 10)


def test_a_paused_holder_wakes_up_without_the_lease(store: Store, clock: FakeClock) -> None:
    paused = take(store, "a", clock)
    clock.advance(9.999)
    assert paused.held and acquire(store, "controller", "b", 10, clock) is None
    clock.advance(0.001)
    assert not paused.held
    with pytest.raises(LeaseLost, match=r"'controller' \(token 1\).*'a'"):
        paused.ensure_held()
    successor = take(store, "b", clock)
    assert successor.token == 2
    assert not paused.renew()
    paused.release()
    assert successor.held
    successor.ensure_held()
    assert records.read(store, keys.lease("controller"), Lease).holder == "b"


def test_a_lease_that_ran_out_is_not_revived(store: Store, clock: FakeClock) -> None:
    held = take(store, "a", clock)
    clock.advance(11)
    assert not held.renew()
    clock.advance(-5)
    assert not held.held, "the clock went back, and the holder may have been told already that it was over"
    clock.advance(5)
    assert take(store, "a", clock).token == 2


def test_renewing_extends_from_now(store: Store, clock: FakeClock) -> None:
    held = take(store, "a", clock)
    for _ in range(5):
        clock.advance(9)
        assert held.renew() and held.held
    assert held.token == 1
    assert acquire(store, "controller", "b", 10, clock) is None
    clock.advance(10)
    assert take(store, "b", clock).token == 2


def test_a_released_lease_is_free_at_once(store: Store, clock: FakeClock) -> None:
    with take(store, "a", clock) as first:
        assert first.held
    assert not first.held and not first.renew()
    first.release()
    second = take(store, "b", clock)
    assert second.token == 2
    first.release()
    assert second.held and acquire(store, "controller", "c", 10, clock) is None


def test_tokens_grow_with_each_holder(store: Store, clock: FakeClock) -> None:
    tokens = []
    for number in range(6):
        held = take(store, f"h{number}", clock)
        tokens.append(held.token)
        if number % 2:
            held.release()
        else:
            clock.advance(10)
    assert tokens == [1, 2, 3, 4, 5, 6]


def test_a_holder_whose_lease_was_taken_by_force_sees_it_when_it_renews(
    store: Store, clock: FakeClock
) -> None:
    held = take(store, "a", clock)
    records.update(store, keys.lease("controller"), Lease, lambda lease: lease.with_(holder="b", token=2))
    assert not held.renew()
    assert not held.held


def test_a_write_whose_answer_was_lost_is_still_ours(store: Store, clock: FakeClock) -> None:
    held = take(store, "a", clock)
    records.update(
        store, keys.lease("controller"), Lease, lambda lease: lease.with_(expires_at=clock.advance(1))
    )
    assert held.renew() and held.held


@pytest.mark.parametrize("successor", ["b", "a"])
def test_a_lease_that_was_deleted_and_taken_is_lost(store: Store, clock: FakeClock, successor: str) -> None:
    held = take(store, "a", clock)
    store.delete(keys.lease("controller"))
    clock.advance(1)
    other = take(store, successor, clock)
    assert other.token == held.token, "tokens begin anew, so they do not tell the two apart"
    assert not held.renew()
    assert not held.held
    held.release()
    assert other.renew()
    assert acquire(store, "controller", "c", 10, clock) is None


def test_a_lease_that_was_deleted_is_lost(store: Store, clock: FakeClock) -> None:
    held = take(store, "a", clock)
    store.delete(keys.lease("controller"))
    assert not held.renew()


@pytest.mark.parametrize("free", ["never held", "run out"])
def test_one_of_many_wins(store: Store, clock: FakeClock, free: str) -> None:
    if free == "run out":
        take(store, "before", clock)
        clock.advance(10)
    start = threading.Barrier(8)

    def compete(number: int) -> HeldLease | None:
        start.wait()
        return acquire(store, "controller", f"h{number}", 10, clock)

    with ThreadPoolExecutor(8) as pool:
        won = [lease for lease in pool.map(compete, range(8)) if lease is not None]
    assert len(won) == 1
    assert won[0].token == (2 if free == "run out" else 1)


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan")])
def test_a_time_to_live_is_above_zero(store: Store, clock: FakeClock, ttl_s: float) -> None:
    with pytest.raises(InvalidInput, match="above 0"):
        acquire(store, "controller", "a", ttl_s, clock)


def test_keeping_alive_outlasts_the_time_to_live(store: Store) -> None:
    held = acquire(store, "controller", "a", 1)
    assert held is not None
    with held.keep_alive():
        held.keep_alive()
        first = held.lease.expires_at
        _wait_until(
            lambda: held.lease.expires_at > first and (held.lease.expires_at - first).total_seconds() > 1.1
        )
        assert held.held and acquire(store, "controller", "b", 1) is None
    assert not _renewers()
    assert acquire(store, "controller", "b", 1) is not None


def test_keeping_alive_survives_an_outage_and_ends_with_the_lease(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    held = acquire(store, "controller", "a", 0.06, clock)
    assert held is not None
    outages = threading.Semaphore(0)
    put_if = store.put_if

    def fail(key: str, data: bytes, etag: str) -> str:
        outages.release()
        raise StoreUnavailable("the network is down")

    monkeypatch.setattr(store, "put_if", fail)
    held.keep_alive()
    assert all(outages.acquire(timeout=10) for _ in range(2)) and held.held
    monkeypatch.setattr(store, "put_if", put_if)
    clock.advance(0.01)
    _wait_until(
        lambda: held.lease.expires_at > clock.advance(0) and held.lease.expires_at.microsecond == 70_000
    )
    clock.advance(1)
    _wait_until(lambda: not _renewers())
    assert not held.held


def _renewers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lease-controller"]


def _wait_until(condition: object, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)
