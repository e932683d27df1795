"""Records that never change are read once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from autovision.records.leases import Lease
from autovision.store import MemoryStore, records
from autovision.store.protocol import Blob
from autovision.store.remembered import Remembered
from autovision.testing.clock import START


class Watched(MemoryStore):
    read: list[str]

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, Blob]]:
        asked = list(keys)
        self.read.extend(asked)
        return super().get_many(asked)


def lease(name: str) -> Lease:
    return Lease(name=name, holder="h", token=1, expires_at=START)


def test_each_is_read_once_and_what_is_deleted_is_forgotten() -> None:
    store = Watched()
    store.read = []
    remembered = Remembered(Lease, lambda record: record.name)
    for name in ("b", "a"):
        records.create(store, f"x/{name}.json", lease(name))
    assert remembered.read_all(store, "x/") == {"x/a.json": "a", "x/b.json": "b"}
    records.create(store, "x/c.json", lease("c"))
    store.put_new("x/c.parquet", b"")
    store.delete("x/a.json")
    assert remembered.read_all(store, "x/") == {"x/b.json": "b", "x/c.json": "c"}
    assert store.read == ["x/a.json", "x/b.json", "x/c.json"]
    assert remembered.read_all(store, "y/") == {}
