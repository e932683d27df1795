"""Copying a store to another one, of any kind: several objects at once, each read back, and records last.

A copy that was interrupted goes on when it is begun again. Records come after all that they refer to, so that what is
there at any moment is a store whose records are true. Nothing may write to the source meanwhile.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from autovision.errors import CorruptObject, InvalidInput
from autovision.store import keys
from autovision.store.protocol import AlreadyExists, Entry, ETagMismatch, KeyNotFound, Store
from autovision.upkeep.check import Damage, in_turn

_OF_PROCESSES = re.compile(r"(?:leases|live|clusters|probes)/")
"""what only says who works on the source"""

Progress = Callable[[int, int, int], None]
"""gets the objects done, of how many, and their bytes"""


class Outcome(StrEnum):
    """What became of one object."""

    COPIED = "copied"
    PRESENT = "present"
    """it was there already"""
    GONE = "gone"
    """it was removed from the source meanwhile"""
    DIFFERS = "differs"
    """another object is there under its key"""
    DAMAGED = "damaged"
    """it cannot be read from the source, or does not match its digest"""


@dataclass(frozen=True)
class Copied:
    """What was done."""

    objects: dict[Outcome, int]
    bytes: int
    """of what was copied"""
    problems: tuple[Damage, ...]
    """objects that differ or are damaged"""


def copy(
    source: Store,
    target: Store,
    *,
    workers: int = 16,
    features: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done, total, size: None,
) -> Copied:
    """Copy every object that is not there yet. Both stores have to be opened with `cached=False`.

    Args:
        features: also the cache of frozen features, which can be computed anew.
        overwrite: replace objects of the target that differ.
    """
    if source.uri == target.uri:
        raise InvalidInput(f"{source.uri} cannot be copied onto itself; name another store")
    wanted = [
        entry
        for entry in source.entries()
        if not _OF_PROCESSES.match(entry.key) and (features or not entry.key.startswith(keys.FEATURES))
    ]
    there = {entry.key: entry.size_bytes for entry in target.entries()}
    one = _One(source, target, there, overwrite)
    counted: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
    problems, size, done = [], 0, 0
    for group, at_once in _groups(wanted, workers):
        with ThreadPoolExecutor(at_once, thread_name_prefix="copy") as pool:
            for entry, (outcome, fault) in zip(group, pool.map(one, group), strict=True):
                counted[outcome] += 1
                done += 1
                size += entry.size_bytes if outcome is Outcome.COPIED else 0
                if fault is not None:
                    problems.append(Damage(entry.key, fault))
                progress(done, len(wanted), size)
    return Copied(counted, size, tuple(problems))


def _groups(entries: Sequence[Entry], workers: int) -> Iterable[tuple[list[Entry], int]]:
    """What is copied at once; records come last."""
    records = [entry for entry in entries if entry.key.endswith(".json")]
    small, large = in_turn([entry for entry in entries if not entry.key.endswith(".json")])
    return (small, workers), (large, 1), (records, workers)


class _One:
    """Copies one object."""

    def __init__(self, source: Store, target: Store, there: dict[str, int], overwrite: bool) -> None:
        self._source, self._target = source, target
        self._there, self._overwrite = there, overwrite

    def __call__(self, entry: Entry) -> tuple[Outcome, str | None]:
        key = entry.key
        if self._there.get(key) == entry.size_bytes and not key.endswith(".json"):
            return Outcome.PRESENT, None  # written once and whole: equal size is equality
        try:
            data = self._source.get(key).data
        except KeyNotFound:
            return Outcome.GONE, None
        except CorruptObject as error:
            return Outcome.DAMAGED, str(error)
        digest = hashlib.sha256(data).hexdigest()
        if keys.content_digest(key) not in (None, digest):
            return Outcome.DAMAGED, f"its content has the digest {digest[:12]}… and not that of its name"
        outcome = self._put(key, data)
        if outcome is Outcome.COPIED and hashlib.sha256(self._target.get(key).data).hexdigest() != digest:
            return Outcome.DAMAGED, f"what was read back from {self._target.uri} is not what was written"
        return (
            outcome,
            None if outcome is not Outcome.DIFFERS else f"{self._target.uri} has another object there",
        )

    def _put(self, key: str, data: bytes) -> Outcome:
        if key not in self._there:
            try:
                self._target.put_new(key, data)
                return Outcome.COPIED
            except AlreadyExists:
                pass
        try:
            found = self._target.get(key)
            if found.data == data:
                return Outcome.PRESENT
            if not self._overwrite:
                return Outcome.DIFFERS
            self._target.put_if(key, data, found.etag)
            return Outcome.COPIED
        except (CorruptObject, ETagMismatch, KeyNotFound):
            return Outcome.DIFFERS
