"""Whether a window is full, without reading a file twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from autovision.monitoring.arrivals import Arrivals
from autovision.records.deployments import Capture
from autovision.store import MemoryStore, captures
from autovision.store.protocol import Blob

START = datetime(2026, 1, 1, tzinfo=UTC)


class Watched(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def get(self, key: str) -> Blob:
        self.reads += 1
        return super().get(key)


def add(store: MemoryStore, *numbers: int, model: str = "m1", embedding: tuple[float, ...] = (0.0,)) -> None:
    seen = [
        Capture(
            request_id=f"r{number}",
            deployment="door",
            model=model,
            received_at=START + timedelta(seconds=number),
            latency_ms=1.0,
            image="x",
            label="ok",
            probabilities={"ok": 1.0},
            embedding=embedding,
        )
        for number in numbers
    ]
    captures.append(store, "door", seen, at=seen[-1].received_at)


def test_requests_are_counted_as_a_window_counts_them() -> None:
    store, arrivals = Watched(), Arrivals()

    def full(size: int, after: datetime | None = None, model: str = "m1") -> bool:
        return arrivals.fill(store, "door", model, size, after=after)

    assert not full(2)
    add(store, 1, 2)
    add(store, 2, 3)  # 2 was captured twice
    add(store, 4, model="m2")
    add(store, 5, embedding=())
    assert full(3) and not full(4)
    reads = store.reads
    assert reads == 4
    assert not full(4) and full(3)
    assert store.reads == reads, "nothing is read twice"
    add(store, 6)
    assert full(4)
    assert store.reads == reads + 1
    assert full(2, after=START + timedelta(seconds=2)) and not full(3, after=START + timedelta(seconds=2))
    assert full(1, model="m2") and not full(2, model="m2")


def test_a_file_that_cannot_be_read_holds_nothing() -> None:
    store = Watched()
    store.put_new("deployments/door/captures/20260101T000000.000000-000000.parquet", b"no parquet")
    assert not Arrivals().fill(store, "door", "m1", 1, after=None)


def test_what_is_to_come_counts_when_its_time_has_come() -> None:
    store, arrivals = Watched(), Arrivals()
    add(store, 1, 2, 100)
    add(store, 3)

    def full(size: int, seconds: float) -> bool:
        until = START + timedelta(seconds=seconds)
        return arrivals.fill(store, "door", "m1", size, after=None, until=until)

    assert full(3, 10) and not full(4, 10)
    assert full(4, 100)
    reads = store.reads
    assert full(4, 101)
    assert store.reads == reads
