"""Checking a store: every digest, every reference, and what nothing refers to. It changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from autovision.errors import CorruptObject
from autovision.store import keys
from autovision.store.protocol import Entry, KeyNotFound, Store
from autovision.upkeep import references
from autovision.upkeep.orphans import orphans

Progress = Callable[[int, int], None]
"""gets the bytes done, and of how many"""

_WORKERS = 8
_LARGE_BYTES = 64 << 20
"""an object above this is read by itself: memory holds no more than one of them"""


@dataclass(frozen=True)
class Damage:
    """An object that is not what it should be, or a reference to nothing."""

    key: str
    fault: str


@dataclass(frozen=True)
class CheckReport:
    """What was found. A store with neither damage nor dangling references can be relied on."""

    store: str
    objects: int
    bytes: int
    digests: int
    """objects whose content was compared with the digest in their key"""
    damaged: tuple[Damage, ...]
    dangling: tuple[Damage, ...]
    """keys that a record names and that are not there; `fault` says which record"""
    orphans: tuple[Entry, ...]
    """objects that nothing refers to; young ones may belong to work that is under way"""

    @property
    def sound(self) -> bool:
        return not self.damaged and not self.dangling


def check(store: Store, *, progress: Progress = lambda done, total: None) -> CheckReport:
    """Read every object that is named by its content, and every record. `store` is opened with `cached=False`."""
    entries = list(store.entries())
    named = [entry for entry in entries if keys.content_digest(entry.key) is not None]
    damaged = _verify(store, named, progress)
    found = references.read(store)
    damaged += [Damage(key, fault) for key, fault in found.unreadable.items() if store.exists(key)]
    there = {entry.key for entry in entries}
    dangling = [
        Damage(key, f"it is not there, and {by} refers to it")
        for key, by in sorted(found.wanted.items())
        if key not in there and not store.exists(key)
    ]
    return CheckReport(
        store=store.uri,
        objects=len(entries),
        bytes=sum(entry.size_bytes for entry in entries),
        digests=len(named),
        damaged=tuple(damaged),
        dangling=tuple(dangling),
        orphans=tuple(orphans(entries, found)),
    )


def in_turn(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Those that may be in memory several at once, and those that may not."""
    small = [entry for entry in entries if entry.size_bytes <= _LARGE_BYTES]
    return small, [entry for entry in entries if entry.size_bytes > _LARGE_BYTES]


def _verify(store: Store, entries: Sequence[Entry], progress: Progress) -> list[Damage]:
    total, done = sum(entry.size_bytes for entry in entries), 0
    damaged = []
    for group, workers in zip(in_turn(entries), (_WORKERS, 1), strict=True):
        with ThreadPoolExecutor(workers, thread_name_prefix="check") as pool:
            for entry, fault in zip(group, pool.map(lambda e: _fault(store, e.key), group), strict=True):
                done += entry.size_bytes
                progress(done, total)
                if fault is not None:
                    damaged.append(Damage(entry.key, fault))
    return damaged


def _fault(store: Store, key: str) -> str | None:
    try:
        found = hashlib.sha256(store.get(key).data).hexdigest()
    except KeyNotFound:
        return None  # removed since it was listed
    except CorruptObject as error:
        return str(error)
    expected = keys.content_digest(key)
    return None if found == expected else f"its content has the digest {found[:12]}… and not that of its name"
