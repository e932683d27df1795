"""Requests and labels are counted from listings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from autovision.records.deployments import Capture, Label
from autovision.registry import months
from autovision.store import MemoryStore, captures, keys, labels
from autovision.store.protocol import Blob

NOON = datetime(2026, 1, 30, 12, tzinfo=UTC)
EVER = datetime.min.replace(tzinfo=UTC)


class Watched(MemoryStore):
    """Counts what is opened."""

    opened = 0

    def get(self, key: str) -> Blob:
        self.opened += 1
        return super().get(key)

    def local_path(self, key: str) -> Path:
        self.opened += 1
        return super().local_path(key)


def capture(store: MemoryStore, at: datetime, n: int) -> list[Capture]:
    rows = [
        Capture(
            request_id=keys.timestamped_id(at),
            deployment="door",
            model="m",
            received_at=at,
            latency_ms=1.0,
            image="0" * 64,
            label="red",
            probabilities={"red": 1.0},
            embedding=(0.5,) * 8,
        )
        for _ in range(n)
    ]
    captures.append(store, "door", rows, at=at)
    return rows


def test_every_file_is_counted_in_its_month_and_what_was_kept_of_it_once() -> None:
    store = MemoryStore()
    first = capture(store, NOON, 7)
    capture(store, NOON + timedelta(days=3), 5)
    capture(store, NOON + timedelta(days=3), 4)
    key = next(iter(store.list(keys.captures("door"))))
    captures.keep(store, key, first[:2])
    assert months.requests(store, "door", EVER) == ({"2026-01": 7, "2026-02": 9}, True)
    assert months.requests(store, "door", NOON + timedelta(days=1)) == ({"2026-02": 9}, True)
    store.delete(key)
    assert months.requests(store, "door", EVER) == ({"2026-01": 2, "2026-02": 9}, True)
    assert months.requests(store, "nowhere", EVER) == ({}, True)


def test_of_very_many_files_some_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(months, "MOST_COUNTED", 10)
    store = Watched()
    for day in range(60):
        capture(store, NOON + timedelta(days=day), 20 + day % 4)
    store.opened = 0
    found, exact = months.requests(store, "door", EVER)
    assert not exact
    assert 0 < store.opened < 60 / 2
    assert sum(found.values()) == pytest.approx(60 * 21.5, rel=0.05)
    assert found["2026-02"] == pytest.approx(28 * 21.5, rel=0.05)


def say(store: MemoryStore, request: str, label: str = "red") -> None:
    assert labels.add(store, "door", Label(request_id=request, label=label, received_at=NOON))


def test_a_labelled_request_counts_once_in_its_month_and_is_not_read() -> None:
    store = Watched()
    for hours in (0, 1, 72):
        say(store, keys.timestamped_id(NOON + timedelta(hours=hours)))
    request = next(iter(store.list(keys.labels("door")))).split("/")[-2]
    say(store, request, "blue")
    store.opened = 0
    later = NOON + timedelta(days=30)
    assert months.labelled(store, "door", EVER, later) == {"2026-01": 2, "2026-02": 1}
    assert months.labelled(store, "door", NOON + timedelta(days=1), later) == {"2026-02": 1}
    assert store.opened == 0


@pytest.mark.parametrize("request_id", ["order-17", "99991231T235959.000000-abcdef"])
def test_a_request_whose_id_does_not_tell_its_time_counts_when_it_was_labelled(request_id: str) -> None:
    store = MemoryStore()
    say(store, request_id)
    (entry,) = store.entries(keys.labels("door"))
    found = months.labelled(store, "door", EVER, entry.modified_at)
    assert found == {months.month_of(entry.modified_at): 1}


def test_an_id_that_names_a_time_before_there_was_anything_tells_none() -> None:
    store = MemoryStore()
    say(store, "00010101T000000.000000-abcdef")
    (entry,) = store.entries(keys.labels("door"))
    found = months.labelled(store, "door", EVER, entry.modified_at, begun=NOON)
    assert found == {months.month_of(entry.modified_at): 1}


def test_months_have_no_gaps() -> None:
    found = months.sums((NOON, NOON + timedelta(days=70)), [], [], [], {"2025-11": 3}, {"2026-02": 2})
    assert [each.month for each in found] == [
        "2025-11",
        "2025-12",
        "2026-01",
        "2026-02",
        "2026-03",
        "2026-04",
    ]
    assert [each.requests for each in found] == [3, 0, 0, 0, 0, 0]
    assert [each.labelled for each in found] == [0, 0, 0, 2, 0, 0]
