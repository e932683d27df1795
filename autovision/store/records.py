"""Typed records as JSON objects. Mutable ones change by compare-and-swap only."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from autovision.errors import Conflict, CorruptObject, InvalidInput
from autovision.records.base import Record
from autovision.store.protocol import AlreadyExists, ETagMismatch, KeyNotFound, Store

R = TypeVar("R", bound=Record)

UPDATE_ATTEMPTS = 100
"""lost races before `update` gives up; in each of them another writer got on"""
FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.5


class Versioned(NamedTuple, Generic[R]):
    """A record, and the ETag under which it was read."""

    record: R
    etag: str


def create(store: Store, key: str, record: Record) -> str:
    """Store a new record; its ETag. Raises `AlreadyExists`, and `InvalidInput` if JSON cannot hold it."""
    return store.put_new(key, _encode(key, record))


def create_or_read(store: Store, key: str, record: R) -> tuple[R, bool]:
    """The record that is stored under `key`, and whether it is this one, stored just now."""
    while True:
        try:
            create(store, key, record)
            return record, True
        except AlreadyExists:
            try:
                return read(store, key, type(record)), False
            except KeyNotFound:
                continue  # deleted between the two looks


def read(store: Store, key: str, type_: type[R], *, what: str | None = None) -> R:
    """The record under `key`. `what` names it in the error, e.g. `model 'solar-1'`.

    Raises `KeyNotFound` (a `NotFound`), and `CorruptObject` if the object is not a record of that type.
    """
    return read_versioned(store, key, type_, what=what).record


def read_versioned(store: Store, key: str, type_: type[R], *, what: str | None = None) -> Versioned[R]:
    """The record under `key` with the ETag that a conditional write names; raises like `read`."""
    try:
        data, etag = store.get(key)
    except KeyNotFound:
        name = what or f"{type_.__name__} at {key!r}"
        raise KeyNotFound(
            f"there is no {name} in the store {store.uri}; list what exists with the matching `list` command"
        ) from None
    return Versioned(_decode(key, data, type_), etag)


def update(
    store: Store,
    key: str,
    type_: type[R],
    change: Callable[[R], R | None],
    *,
    what: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> R:
    """Change the record by compare-and-swap; the record that is stored afterwards.

    `change` gets the stored record and gives its successor, or None to leave it as it is. It is called again
    whenever another writer was faster, so it must depend on its argument only. Raises like `read`, whatever
    `change` raises, and `Conflict` after `UPDATE_ATTEMPTS` lost races.
    """
    for attempt in range(UPDATE_ATTEMPTS):
        current, etag = read_versioned(store, key, type_, what=what)
        successor = change(current)
        if successor is None or successor == current:
            return current
        try:
            store.put_if(key, _encode(key, successor), etag)
            return successor
        except ETagMismatch:
            # Full jitter: each loser draws its own pause, so that they do not meet again.
            sleep(random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**attempt)))
    raise Conflict(
        f"{what or repr(key)} was changed by others {UPDATE_ATTEMPTS} times in a row while it was to be "
        "changed here; see who writes it so often, and try again"
    )


def read_all(store: Store, prefix: str, type_: type[R], *, suffix: str = ".json") -> list[R]:
    """The records under the keys that begin with `prefix` and end with `suffix`, in the order of the keys.

    One that is deleted meanwhile is left out. Raises `CorruptObject` for one that is of another type.
    """
    return list(read_many(store, (key for key in store.list(prefix) if key.endswith(suffix)), type_).values())


def read_many(store: Store, keys: Iterable[str], type_: type[R]) -> dict[str, R]:
    """The records under those keys, in their order; one that is missing is left out. Raises `CorruptObject`."""
    return {key: _decode(key, data, type_) for key, (data, _) in store.get_many(keys)}


def _encode(key: str, record: Record) -> bytes:
    data = record.to_json()
    try:
        type(record).model_validate_json(data)
    except ValidationError as error:
        # JSON has no NaN and no infinity: they are written as null, which most fields do not accept.
        raise InvalidInput(
            f"{type(record).__name__} at {key!r} could not be read back from JSON: {_first(error)}; "
            "is a number not finite?"
        ) from error
    return data


def _decode(key: str, data: bytes, type_: type[R]) -> R:
    try:
        return type_.model_validate_json(data)
    except ValidationError as error:
        raise CorruptObject(
            f"the object {key!r} is not a valid {type_.__name__}: {_first(error)}; restore it from a backup, "
            "or read it with the version of AutoVision that wrote it"
        ) from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])
