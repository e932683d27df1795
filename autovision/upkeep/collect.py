"""Removing what nothing refers to, beside running writers.

A writer stores objects first and the record that reveals them last, and finds out about an object that is there
already by storing it again, which makes it young. So an object that was old when the collection began, and that no
record named after it began, will not be named by work which takes less than that age. What becomes young meanwhile
stays: each object is looked at once more as it is removed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from autovision.errors import CorruptObject
from autovision.records.base import now
from autovision.store.content import YOUNG_S
from autovision.store.protocol import Entry, Store
from autovision.store.s3 import S3Store
from autovision.upkeep import references
from autovision.upkeep.orphans import orphans

DEFAULT_AGE_H = 24.0
SAFE_AGE_H = 2 * YOUNG_S / 3600
"""below this an object that a writer found in place may not have been made young again"""


@dataclass(frozen=True)
class Collected:
    """What became of the objects that nothing refers to."""

    removed: tuple[Entry, ...]
    """or what would be, if it was only looked"""
    young: tuple[Entry, ...]
    """too young to be removed"""
    unfinished: int
    """uploads in parts that were given up; None of them was ever seen"""


def collect(
    store: Store,
    *,
    older_than_h: float = DEFAULT_AGE_H,
    delete: bool = False,
    clock: Callable[[], datetime] = now,
) -> Collected:
    """Find, and with `delete` remove, what nothing refers to and is older than so many hours.

    Raises `CorruptObject` if a record, a data set's rows or captured requests cannot be read: what they refer to is not
    known then, and nothing is removed.
    """
    before = clock() - timedelta(hours=older_than_h)
    found = references.read(store)
    if found.unreadable:
        key, fault = min(found.unreadable.items())
        raise CorruptObject(
            f"{len(found.unreadable)} objects cannot be read, so it is not known what they refer to, and nothing is "
            f"removed; the first is {key!r}: {fault}; `autovision store check` lists all: restore or remove them first"
        )
    alone = list(orphans(store.entries(), found))
    old = [entry for entry in alone if entry.modified_at < before]
    young = [entry for entry in alone if entry.modified_at >= before]
    removed = [entry for entry in old if not delete or store.delete_unchanged(entry)]
    unfinished = store.remove_unfinished(before) if delete and isinstance(store, S3Store) else 0
    return Collected(tuple(removed), tuple(young), unfinished)
