"""Behind a fence nothing is written once the lease has ended."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from autovision.store import MemoryStore, lease
from autovision.store.fence import FencedStore
from autovision.store.lease import LeaseLost
from autovision.store.protocol import Store
from autovision.testing.clock import FakeClock


def writes(store: Store, etag: str) -> dict[str, Callable[[], object]]:
    entry = next(store.entries("a"))
    return {
        "put_new": lambda: store.put_new("new", b""),
        "put_if": lambda: store.put_if("a", b"2", etag),
        "put_immutable": lambda: store.put_immutable("images/x", b"1"),
        "touch": lambda: store.touch("a"),
        "delete_unchanged": lambda: store.delete_unchanged(entry),
        "delete": lambda: store.delete("a"),
    }


def test_reading_goes_on_and_writing_ends_with_the_lease() -> None:
    store, clock = MemoryStore(), FakeClock()
    etag = store.put_new("a", b"1")
    held = lease.acquire(store, "controller", "me", 30.0, clock)
    assert held is not None
    fenced = FencedStore(store, held)
    assert isinstance(fenced, Store)
    for name, write in writes(fenced, etag).items():
        clock.advance(31)
        before = {key: store.get(key) for key in store.list()}
        with pytest.raises(LeaseLost, match="no longer held"):
            write()
        assert {key: store.get(key) for key in store.list()} == before, name
        clock.advance(-31)
    for write in writes(fenced, etag).values():
        write()
    assert not store.exists("a")
    clock.advance(31)
    assert list(fenced.list("new")) == ["new"]
    assert list(fenced.folders("")) == ["images", "leases"]
    assert fenced.get("new").data == b""
    assert fenced.exists("new") and fenced.local_path("new").read_bytes() == b""
    assert dict(fenced.get_many(["new", "gone"])).keys() == {"new"}
    assert fenced.uri == store.uri
