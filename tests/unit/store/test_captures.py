from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autovision.errors import InvalidInput, StoreUnavailable
from autovision.records.deployments import Capture
from autovision.store import MemoryStore, Store, captures, keys

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def capture(number: int, *, seconds: float | None = None, **changes: object) -> Capture:
    fields = {
        "request_id": f"r{number}",
        "deployment": "plant",
        "model": "solar-1",
        "received_at": AT + timedelta(seconds=number if seconds is None else seconds),
        "latency_ms": 12.5,
        "image": "ab" * 32,
        "label": "defective",
        "probabilities": {"defective": 0.75, "good": 0.25},
        "embedding": (0.5, -1.25, 3.0),
        "metadata": {"cell_type": "poly"},
    }
    return Capture.model_validate({**fields, **changes})


def test_captures_come_back_equal_and_in_order(store: Store) -> None:
    batches = [[capture(5), capture(2)], [capture(1), capture(4)]]
    for batch in batches:
        key = captures.append(store, "plant", batch, at=AT + timedelta(seconds=9))
        assert key.startswith(keys.captures("plant"))
    captures.append(store, "other", [capture(3, deployment="other")], at=AT)
    found = captures.read(store, "plant")
    assert found.captures == (capture(1), capture(2), capture(4), capture(5))
    assert found.problems == ()
    assert captures.read(store, "nothing") == captures.CaptureRead((), ())


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_FLOAT32 = st.floats(width=32, allow_nan=False)


@given(
    embedding=st.lists(_FLOAT32, max_size=5),
    probabilities=st.dictionaries(_TEXT, st.floats(0, 1), max_size=4),
    metadata=st.dictionaries(_TEXT, _TEXT, max_size=3),
    label=_TEXT | st.lists(_TEXT, max_size=3).map(tuple),
    received_at=st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
)
def test_any_capture_comes_back_equal(received_at: datetime, **fields: object) -> None:
    store = MemoryStore()
    written = capture(0, seconds=0).with_(received_at=received_at, **fields)
    captures.append(store, "plant", [written], at=received_at)
    (found,) = captures.read(store, "plant").captures
    assert found == written
    assert list(found.probabilities) == list(written.probabilities)


def test_files_from_before_there_were_several_labels_are_read(store: Store) -> None:
    key = captures.append(store, "plant", [capture(0)], at=AT)
    blob, sink = store.get(key), io.BytesIO()
    pq.write_table(
        pq.read_table(io.BytesIO(blob.data)).drop_columns(["labels", "shadow", "pixels", "image_bytes"]), sink
    )
    store.put_if(key, sink.getvalue(), blob.etag)
    assert captures.read(store, "plant") == captures.CaptureRead((capture(0),), ())


def test_embeddings_are_rounded_to_32_bits(store: Store) -> None:
    captures.append(store, "plant", [capture(0, embedding=(0.1, 1e-50))], at=AT)
    assert captures.read(store, "plant").captures[0].embedding == (float(np.float32(0.1)), 0.0)


def test_reading_what_came_after(store: Store) -> None:
    for number in range(4):
        captures.append(store, "plant", [capture(number)], at=AT + timedelta(seconds=number))
    found = captures.read(store, "plant", after=AT + timedelta(seconds=1))
    assert [one.request_id for one in found.captures] == ["r2", "r3"]
    assert captures.read(store, "plant", after=AT + timedelta(seconds=3)).captures == ()


def test_old_files_stay_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    names = [captures.append(store, "plant", [capture(n)], at=AT + timedelta(seconds=n)) for n in range(3)]
    opened = []
    get = store.get
    monkeypatch.setattr(store, "get", lambda key: opened.append(key) or get(key))
    captures.read(store, "plant", after=AT + timedelta(seconds=1))
    assert opened == names[2:]


def test_the_files_name_bounds_what_is_within_in_any_time_zone(store: Store) -> None:
    """A batch stamped too early, or in local time, must not hide from a reader that asks for what is new."""
    early = (AT - timedelta(hours=1)).astimezone(timezone(timedelta(hours=-9)))
    captures.append(store, "plant", [capture(0), capture(7)], at=early)
    found = captures.read(store, "plant", after=AT + timedelta(seconds=3))
    assert [one.request_id for one in found.captures] == ["r7"]
    assert captures.read(store, "plant", after=AT + timedelta(seconds=7)).captures == ()


def test_a_batch_that_was_stored_twice_counts_once(store: Store) -> None:
    for _ in range(2):
        captures.append(store, "plant", [capture(0), capture(1)], at=AT)
    assert len(captures.read(store, "plant").captures) == 2


def test_one_request_answered_at_the_same_moment_as_another_is_kept(store: Store) -> None:
    captures.append(store, "plant", [capture(2, seconds=0), capture(1, seconds=0)], at=AT)
    assert [one.request_id for one in captures.read(store, "plant").captures] == ["r1", "r2"]


def _parquet(**columns: list[object]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def test_files_that_cannot_be_read_are_reported_and_the_rest_is_read(store: Store) -> None:
    good = captures.append(store, "plant", [capture(0)], at=AT)
    data = store.get(good).data
    damaged = {
        "empty": b"",
        "text": b"not a table",
        "cut": data[: len(data) // 2],
        "no-footer": data[:-4] + b"XXXX",
        "flipped": data[:60] + bytes([data[60] ^ 0xFF]) + data[61:],
        "other-table": _parquet(request_id=["r0"]),
    }
    for name, content in damaged.items():
        store.put_new(keys.capture_file("plant", name), content)
    captures.append(store, "plant", [capture(1)], at=AT)
    found = captures.read(store, "plant")
    assert [one.request_id for one in found.captures] == ["r0", "r1"]
    assert [problem.key for problem in found.problems] == [
        keys.capture_file("plant", name) for name in sorted(damaged)
    ]
    assert all(problem.message for problem in found.problems)


def test_a_store_that_is_gone_is_not_a_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    captures.append(store, "plant", [capture(0)], at=AT)

    def fail(key: str) -> None:
        raise StoreUnavailable()

    monkeypatch.setattr(store, "get", fail)
    with pytest.raises(StoreUnavailable):
        captures.read(store, "plant")


def test_a_file_that_retention_deletes_meanwhile_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    key = captures.append(store, "plant", [capture(0)], at=AT)
    monkeypatch.setattr(store, "list", lambda prefix: iter([keys.capture_file("plant", "gone"), key]))
    assert captures.read(store, "plant") == captures.CaptureRead((capture(0),), ())


def test_bad_batches_are_refused(store: Store) -> None:
    with pytest.raises(InvalidInput, match="at least one"):
        captures.append(store, "plant", [], at=AT)
    with pytest.raises(InvalidInput, match=r"'other'.*'plant'"):
        captures.append(store, "plant", [capture(0), capture(1, deployment="other")], at=AT)
    assert list(store.list()) == []
