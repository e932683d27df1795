"""How many bytes of frozen features a store may hold, and what goes when they are used up.

What counts is what the store holds: everybody looks before each shard, so that processes together exceed the
budget by no more than the one shard that each of them is writing. Room is made by removing shards of the spec that
has not been used for longest. A spec is in use while somebody says so at least every `_IN_USE_S` seconds. What a
process has mapped it can read even when it was removed; nobody has to know of the others.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from autovision.errors import StoreUnavailable
from autovision.store import keys, sizes
from autovision.store.local import LocalStore
from autovision.store.protocol import KeyNotFound, Store
from autovision.store.s3 import S3Store
from autovision.store.sizes import readable

ENVIRONMENT_VARIABLE = "AUTOVISION_FEATURE_BUDGET"

_TOUCH_S = 15.0
_IN_USE_S = 60.0
_SHARE_OF_DISK = 0.5
"""of what is free, or taken by features already, when no budget is set"""
_SPARE_SHARE, _SPARE_BYTES = 0.05, 512 << 20
"""of the disk, whichever is less: what features leave free in any case"""


class NoRoom(Exception):
    """The features cannot be stored; the message says why, as a predicate."""


def configured_bytes() -> int | None:
    """The budget that `AUTOVISION_FEATURE_BUDGET` sets; None: it sets none. Raises `InvalidInput`."""
    text = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    return parse_bytes(text) if text else None


def parse_bytes(text: str) -> int:
    """A size such as `20GB`, `512 MiB` or `1000000`. Raises `InvalidInput`."""
    return sizes.parse_bytes(text, ENVIRONMENT_VARIABLE)


@dataclass
class _Held:
    """What the store holds of one spec."""

    used: float = 0.0
    """when it was last: seconds since the epoch"""
    shards: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(map(keys.feature_shard_bytes, self.shards))


@dataclass(frozen=True)
class FeatureBudget:
    """Keeps the features of a store within `limit_bytes`."""

    store: Store
    limit_bytes: int

    @classmethod
    def of(cls, store: Store, limit_bytes: int | None) -> FeatureBudget:
        """None: a share of the disk."""
        if limit_bytes is not None:
            return cls(store, limit_bytes)
        available = shutil.disk_usage(_folder_of(store)).free + used_bytes(store)
        return cls(store, int(_SHARE_OF_DISK * available))

    def admit(self, total_bytes: int, missing_bytes: int, own: Collection[str]) -> None:
        """Raises `NoRoom` unless features that take `total_bytes`, of which some are missing, can be kept.

        Args:
            own: digests of their specs.
        """
        needs = f"need {readable(total_bytes)}"
        if total_bytes > self.limit_bytes:
            raise NoRoom(f"{needs} and the budget is {readable(self.limit_bytes)}")
        if used_bytes(self.store) + missing_bytes <= self.limit_bytes:
            return
        in_use = sum(held.size for spec, held in self._in_use().items() if spec not in own)
        if in_use + total_bytes > self.limit_bytes:
            raise NoRoom(
                f"{needs} and {readable(in_use)} of the budget of {readable(self.limit_bytes)} are in use by others"
            )

    def put(self, key: str, data: bytes, own: Collection[str]) -> None:
        """Store a shard, removing others if need be, but none of `own` (digests of specs). Raises `NoRoom`."""
        self._make_room(len(data), own)
        with disk_full_is_no_room():
            self.store.put_immutable(key, data)

    def touch(self, shards: Iterable[str]) -> None:
        """Say that the spec of these shards is in use. One that is left of them is enough."""
        for key in shards:
            with suppress(KeyNotFound, StoreUnavailable):
                self.store.touch(key)
                return

    def _make_room(self, size: int, own: Collection[str]) -> None:
        excess = max(used_bytes(self.store) + size - self.limit_bytes, self._lacking_on_disk(size))
        if excess <= 0:
            return
        kept = {*own, *self._in_use()}
        for spec, held in sorted(self._held().items(), key=lambda item: item[1].used):
            for key in held.shards if spec not in kept else ():
                self.store.delete(key)
                excess -= keys.feature_shard_bytes(key)
                if excess <= 0:
                    return
        raise NoRoom(
            f"do not fit beside what is in use by others: the budget is {readable(self.limit_bytes)}, and "
            f"{readable(shutil.disk_usage(_folder_of(self.store)).free)} of the disk are free"
        )

    def _lacking_on_disk(self, size: int) -> int:
        disk = shutil.disk_usage(_folder_of(self.store))
        return size + min(_SPARE_BYTES, int(_SPARE_SHARE * disk.total)) - disk.free

    def _in_use(self) -> dict[str, _Held]:
        recent = time.time() - _IN_USE_S
        return {spec: held for spec, held in self._held().items() if held.used > recent}

    def _held(self) -> dict[str, _Held]:
        """What the store holds, by the digest of the spec."""
        found: dict[str, _Held] = {}
        for key, _, used_at in self.store.entries(keys.FEATURES):
            held = found.setdefault(key.split("/")[1], _Held())
            held.used = max(held.used, used_at.timestamp())
            held.shards.append(key)
        return found


@contextmanager
def disk_full_is_no_room() -> Iterator[None]:
    """Turns the error of a disk that is full into `NoRoom`."""
    try:
        yield
    except StoreUnavailable as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoom(f"do not fit on the disk ({cause.strerror})") from error
        raise


class Keeper:
    """Says from time to time that shards are in use; called whenever they are.

    Args:
        shards: of each spec.
    """

    def __init__(self, budget: FeatureBudget, shards: Sequence[Sequence[str]]) -> None:
        self._budget, self._shards = budget, shards
        self._next = time.monotonic() + _TOUCH_S

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _TOUCH_S
            for shards in self._shards:
                self._budget.touch(shards)


def used_bytes(store: Store) -> int:
    """What all features in the store take."""
    return sum(map(keys.feature_shard_bytes, store.list(keys.FEATURES)))


def _folder_of(store: Store) -> Path:
    """A folder on the disk that the store's features lie on, or their mapped copies."""
    match store:
        case LocalStore():
            return store.root
        case S3Store():
            return store.cache.folder
        case _:
            return Path(tempfile.gettempdir())
