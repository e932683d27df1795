"""Records that never change once they are written: each is read once, and what matters of it is remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from autovision.records.base import Record
from autovision.store import records
from autovision.store.protocol import Store

R = TypeVar("R", bound=Record)
T = TypeVar("T")


class Remembered(Generic[R, T]):
    """What `pick` takes of the records of a type, by their keys. Not for records that change."""

    def __init__(self, type_: type[R], pick: Callable[[R], T]) -> None:
        self._type, self._pick = type_, pick
        self._known: dict[str, dict[str, T]] = {}

    def read_all(self, store: Store, prefix: str, *, suffix: str = ".json") -> dict[str, T]:
        """Of the records under `prefix`, in the order of their keys. Raises like `records.read_all`."""
        names = [key for key in store.list(prefix) if key.endswith(suffix)]
        known = self._known.get(prefix, {})
        new = records.read_many(store, (key for key in names if key not in known), self._type)
        found = {
            key: known[key] if key in known else self._pick(new[key])
            for key in names
            if key in known or key in new
        }
        self._known[prefix] = found
        return found
