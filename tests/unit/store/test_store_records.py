from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from autovision.errors import Conflict, CorruptObject, InvalidInput, NotFound
from autovision.records.base import Record
from autovision.records.deployments import Label
from autovision.records.searches import SearchState, SearchStatus
from autovision.store import AlreadyExists, KeyNotFound, MemoryStore, Store, records

AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
STATE = SearchState(search="s", created_at=AT, updated_at=AT)


class Number(Record):
    value: float


def test_a_record_comes_back_equal(store: Store) -> None:
    etag = records.create(store, "a", STATE)
    assert records.read(store, "a", SearchState) == STATE
    assert records.read_versioned(store, "a", SearchState) == (STATE, etag)


def test_creating_never_replaces(store: Store) -> None:
    records.create(store, "a", STATE)
    with pytest.raises(AlreadyExists):
        records.create(store, "a", STATE.with_(trials=1))
    assert records.read(store, "a", SearchState) == STATE


def test_create_or_read_gives_what_is_stored(store: Store) -> None:
    assert records.create_or_read(store, "a", STATE) == (STATE, True)
    assert records.create_or_read(store, "a", STATE.with_(trials=1)) == (STATE, False)


def test_what_is_missing_is_named_for_people(store: Store) -> None:
    with pytest.raises(NotFound, match=r"there is no search 'solar-1' in the store .*`list`") as caught:
        records.read(store, "searches/solar-1/state.json", SearchState, what="search 'solar-1'")
    assert isinstance(caught.value, KeyNotFound)
    with pytest.raises(NotFound, match="no SearchState at 'a'"):
        records.update(store, "a", SearchState, lambda state: state)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "JSON"),
        (b'{"value": 1', "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[]", "Input should be an object"),
        (b"{}", "value: Field required"),
        (b'{"value": 1, "valeu": 2}', "valeu: Extra"),
    ],
)
def test_a_damaged_record_is_named(store: Store, data: bytes, fault: str) -> None:
    store.put_new("models/m/model.json", data)
    for act in (
        lambda: records.read(store, "models/m/model.json", Number),
        lambda: records.read_all(store, "models/", Number),
        lambda: records.update(store, "models/m/model.json", Number, lambda number: number),
    ):
        with pytest.raises(CorruptObject, match=rf"'models/m/model.json' is not a valid Number: .*{fault}"):
            act()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_json_cannot_hold_is_refused_when_written(store: Store, value: float) -> None:
    with pytest.raises(InvalidInput, match=r"'a'.* value: .*not finite"):
        records.create(store, "a", Number(value=value))
    assert not store.exists("a")
    records.create(store, "a", Number(value=1))
    with pytest.raises(InvalidInput, match="not finite"):
        records.update(store, "a", Number, lambda _: Number(value=value))
    assert records.read(store, "a", Number).value == 1


def test_update_stores_the_change(store: Store) -> None:
    records.create(store, "a", STATE)
    changed = records.update(store, "a", SearchState, lambda state: state.with_(status=SearchStatus.RUNNING))
    assert changed == records.read(store, "a", SearchState) == STATE.with_(status=SearchStatus.RUNNING)


def test_update_may_leave_it_as_it_is(store: Store) -> None:
    etag = records.create(store, "a", STATE)
    assert records.update(store, "a", SearchState, lambda _: None) == STATE
    assert store.get("a").etag == etag


def test_update_begins_again_when_another_was_faster(store: Store) -> None:
    records.create(store, "a", Number(value=0))
    seen: list[float] = []

    def change(number: Number) -> Number:
        if len(seen) < 3:
            store.put_if("a", Number(value=number.value + 10).to_json(), store.get("a").etag)
        seen.append(number.value)
        return Number(value=number.value + 1)

    pauses: list[float] = []
    assert records.update(store, "a", Number, change, sleep=pauses.append).value == 31
    assert seen == [0, 10, 20, 30]
    assert len(pauses) == 3 and all(0 <= pause <= 0.01 for pause in pauses)


def test_an_error_in_the_change_changes_nothing(store: Store) -> None:
    records.create(store, "a", STATE)

    def refuse(state: SearchState) -> SearchState:
        raise Conflict("the search is finished")

    with pytest.raises(Conflict, match="finished"):
        records.update(store, "a", SearchState, refuse)
    assert records.read(store, "a", SearchState) == STATE


def test_update_gives_up_when_it_always_loses() -> None:
    store = MemoryStore()
    records.create(store, "a", Number(value=0))

    def change(number: Number) -> Number:
        store.put_if("a", Number(value=number.value + 1).to_json(), store.get("a").etag)
        return Number(value=-1)

    pauses: list[float] = []
    with pytest.raises(Conflict, match="the counter was changed by others 100 times"):
        records.update(store, "a", Number, change, what="the counter", sleep=pauses.append)
    assert max(pauses) <= records.LONGEST_PAUSE_S


def test_no_update_is_lost_among_threads(store: Store) -> None:
    records.create(store, "a", Number(value=0))
    start = threading.Barrier(8)

    def add() -> None:
        start.wait()
        for _ in range(10):
            records.update(store, "a", Number, lambda number: Number(value=number.value + 1))

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(add) for _ in range(8)]:
            done.result()
    assert records.read(store, "a", Number).value == 80


def test_read_all_takes_a_prefix_and_a_suffix(store: Store) -> None:
    labels = [Label(request_id=str(i), label="x", received_at=AT) for i in range(3)]
    for name, label in zip(["l/2.json", "l/0.json", "l/1/label.json"], labels, strict=True):
        records.create(store, name, label)
    store.put_new("l/table.parquet", b"not JSON")
    store.put_new("m/0.json", b"{}")
    assert [label.request_id for label in records.read_all(store, "l/", Label)] == ["1", "2", "0"]
    assert records.read_all(store, "l/", Label, suffix="/label.json") == [labels[2]]
    assert records.read_all(store, "nothing/", Label) == []


def test_read_all_goes_on_when_one_is_deleted_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    for name in ("a.json", "b.json"):
        records.create(store, name, Number(value=1))
    monkeypatch.setattr(store, "list", lambda prefix: iter(["a.json", "gone.json", "b.json"]))
    assert len(records.read_all(store, "", Number)) == 2
