"""Captures reach the store complete and in order, and never hold up or outgrow the server."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from threading import Condition, Event, current_thread, main_thread
from typing import Any

import pytest

from autovision.errors import StoreUnavailable
from autovision.serving.capture import Answered, CaptureLimits, CaptureSink
from autovision.store import MemoryStore, captures, keys

QUICK = CaptureLimits(batch=4, every_s=0.05, retry_first_s=0.01, retry_most_s=0.05)


class Fallible(MemoryStore):
    """A store whose writes can be made to fail or to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self.go = Event()
        self.go.set()
        self.writes: list[str] = []

    def _before(self, key: str) -> None:
        assert self.go.wait(20)
        if self.failure is not None:
            raise self.failure
        self.writes.append(key)

    def put_new(self, key: str, data: bytes) -> str:
        self._before(key)
        return super().put_new(key, data)

    def put_immutable(self, key: str, data: bytes) -> None:
        self._before(key)
        super().put_immutable(key, data)


@pytest.fixture
def store() -> Fallible:
    return Fallible()


@pytest.fixture
def answered(make_predictor: Any, png: Any, clock: Any) -> Callable[[int], Answered]:
    predictor = make_predictor()

    def make(number: int) -> Answered:
        image = png(number % 256)
        return Answered(
            request_id=keys.timestamped_id(clock.at + timedelta(seconds=number)),
            model="m1",
            received_at=clock.at + timedelta(seconds=number),
            latency_ms=1.5,
            image=image,
            prediction=predictor.predict([image])[0],
            metadata={"number": str(number)},
        )

    return make


@pytest.fixture
def open_sink(store: Fallible, clock: Any) -> Iterator[Callable[..., CaptureSink]]:
    opened: list[CaptureSink] = []

    def make(limits: CaptureLimits = QUICK) -> CaptureSink:
        opened.append(CaptureSink(store, "shades", limits=limits, clock=clock))
        return opened[-1]

    yield make
    store.failure = None
    store.go.set()
    for sink in opened:
        sink.close()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_every_field_of_a_request_and_its_image_reach_the_store(
    store: Any, open_sink: Any, answered: Any
) -> None:
    sink = open_sink()
    items = [answered(number) for number in range(10)]
    assert all(sink.offer(item) for item in items)
    assert sink.flush(5)
    stored = captures.read(store, "shades").captures
    assert [capture.request_id for capture in stored] == [item.request_id for item in items]
    for capture, item in zip(stored, items, strict=True):
        assert capture.image == hashlib.sha256(item.image).hexdigest()
        assert captures.read_image(store, capture) == item.image
        assert (capture.label, capture.metadata) == (item.prediction.label, dict(item.metadata))
        assert capture.embedding == tuple(item.prediction.embedding.tolist())
    status = sink.status
    assert (status.accepted, status.stored, status.pending, status.dropped) == (10, 10, 0, 0)
    assert status.captured_through == items[-1].received_at


def test_images_are_written_before_the_rows_that_name_them(store: Any, open_sink: Any, answered: Any) -> None:
    sink = open_sink()
    for number in range(4):
        sink.offer(answered(number))
    assert sink.flush(5)
    assert [key.split("/")[2] for key in store.writes] == ["images"] * 4 + ["captures"]


def test_a_lone_request_is_stored_without_waiting_for_a_full_batch(open_sink: Any, answered: Any) -> None:
    sink = open_sink()
    sink.offer(answered(1))
    until(lambda: sink.status.stored == 1)


def test_a_full_queue_drops_and_counts_and_never_waits(
    store: Any, open_sink: Any, answered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = Condition.wait

    def refused_here(self: Condition, timeout: float | None = None) -> bool:
        assert current_thread() is not main_thread(), "the request path waited"
        return wait(self, timeout)

    sink = open_sink(CaptureLimits(max_items=5, batch=2, every_s=0.01))
    store.go.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Condition, "wait", refused_here)
        taken = [sink.offer(answered(number)) for number in range(9)]
    assert taken == [True] * 5 + [False] * 4
    assert (sink.status.pending, sink.status.dropped) == (5, 4)
    assert not sink.flush(0.05)
    store.go.set()
    assert sink.flush(5)
    assert sink.status.stored == 5
    assert sink.offer(answered(20))


def test_the_bytes_that_are_held_are_bounded_too(store: Any, open_sink: Any, answered: Any) -> None:
    size = len(answered(1).image)
    sink = open_sink(CaptureLimits(max_bytes=3 * size, every_s=0.01))
    store.go.clear()
    assert [sink.offer(answered(1)) for _ in range(4)] == [True, True, True, False]
    store.go.set()
    assert sink.flush(5)
    assert sink.offer(answered(1)), "stored bytes are given back"


def test_an_outage_is_survived_visible_and_loses_nothing(
    store: Any, open_sink: Any, answered: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sink = open_sink()
    store.failure = StoreUnavailable("the disk is gone")
    for number in range(6):
        sink.offer(answered(number))
    until(lambda: sink.status.error)
    assert "the disk is gone" in sink.status.error
    assert sink.status.pending == 6
    until(lambda: len(caplog.records) > QUICK.poison_attempts + 1)
    store.failure = None
    assert sink.flush(5)
    assert (sink.status.stored, sink.status.dropped, sink.status.error) == (6, 0, None)
    assert len(captures.read(store, "shades").captures) == 6


def test_a_batch_that_can_never_be_stored_is_given_up_and_the_next_is_stored(
    store: Any, open_sink: Any, answered: Any
) -> None:
    sink = open_sink()
    store.failure = ValueError("nonsense")
    for number in range(4):
        sink.offer(answered(number))
    until(lambda: sink.status.dropped == 4)
    store.failure = None
    sink.offer(answered(9))
    assert sink.flush(5)
    assert (sink.status.stored, sink.status.pending) == (1, 0)


def test_closing_stores_what_is_held_and_takes_nothing_more(
    store: Any, open_sink: Any, answered: Any
) -> None:
    sink = open_sink(CaptureLimits(every_s=60))
    for number in range(70):
        sink.offer(answered(number))
    assert sink.close()
    assert not sink.alive
    assert len(captures.read(store, "shades").captures) == 70
    assert not sink.offer(answered(99))


def test_closing_during_an_outage_says_what_is_lost(
    store: Any, open_sink: Any, answered: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sink = open_sink()
    store.failure = StoreUnavailable("away")
    sink.offer(answered(1))
    assert not sink.close(timeout_s=0.2)
    assert any("1 captured requests of shades are lost" in record.getMessage() for record in caplog.records)
