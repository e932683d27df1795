"""How many bytes of frozen features a store may hold, and what goes when they are used up.

What counts is what the store holds: everybody looks before each shard, so that processes together exceed the
budget by no more than the one shard that each of them is writing. Room is made by removing shards of the spec that
has not been used for longest. A spec is in use while somebody says so at least every `_IN_USE_S` seconds; what a
process has mapped it can read even when it was removed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autovision.errors import InvalidInput, StoreUnavailable
from autovision.store import keys
from autovision.store.local import LocalStore
from autovision.store.protocol import KeyNotFound, Store

ENVIRONMENT_VARIABLE = "AUTOVISION_FEATURE_BUDGET"
TOUCH_S = 15.0
"""how often somebody who uses features should say so"""

_IN_USE_S = 60.0
_SHARE_OF_DISK = 0.5
"""of what is free, or taken by features already, when no budget is set"""
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


class NoRoom(Exception):
    """The features cannot be stored; the message says why, as a predicate."""


def configured_bytes() -> int | None:
    """The budget that `AUTOVISION_FEATURE_BUDGET` sets; None: it sets none. Raises `InvalidInput`."""
    text = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    return parse_bytes(text) if text else None


def parse_bytes(text: str) -> int:
    """A size such as `20GB`, `512 MiB` or `1000000`. Raises `InvalidInput`."""
    match = _SIZE.fullmatch(text)
    if match is None or match[2].upper() not in _UNITS:
        raise InvalidInput(
            f"{ENVIRONMENT_VARIABLE} is {text!r}, which is no size; write a number of bytes, or one with a unit "
            f"({', '.join(list(_UNITS)[1:])}), such as 20GB"
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


def readable(size: int) -> str:
    """`987 MB`"""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"


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
        folder = store.root if isinstance(store, LocalStore) else Path(tempfile.gettempdir())
        available = shutil.disk_usage(folder).free + used_bytes(store)
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
        in_use = sum(size for spec, size in self._sizes(self._specs_in_use()).items() if spec not in own)
        if in_use + total_bytes > self.limit_bytes:
            raise NoRoom(
                f"{needs} and {readable(in_use)} of the budget of {readable(self.limit_bytes)} are in use by others"
            )

    def make_room(self, size: int, own: Collection[str]) -> None:
        """Remove what has not been used for longest until `size` bytes more fit. Raises `NoRoom`.

        Args:
            own: digests of specs of which nothing is to be removed.
        """
        excess = used_bytes(self.store) + size - self.limit_bytes
        if excess <= 0:
            return
        kept = {*own, *self._specs_in_use()}
        for _, key, size_of in sorted(self._shards(kept)):
            self.store.delete(key)
            excess -= size_of
            if excess <= 0:
                return
        raise NoRoom(f"no longer fit: the budget of {readable(self.limit_bytes)} is in use by others")

    def put(self, key: str, data: bytes, own: Collection[str]) -> None:
        """Store a shard. Raises `NoRoom`, also when the disk is full."""
        self.make_room(len(data), own)
        try:
            self.store.put_immutable(key, data)
        except StoreUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoom(f"do not fit on the disk ({cause.strerror})") from error
            raise

    def touch(self, shards: Iterable[str]) -> None:
        """Say that the spec of these shards is in use. One that is left of them is enough."""
        for key in shards:
            with suppress(KeyNotFound, OSError):
                os.utime(self.store.local_path(key))
                return

    def _specs_in_use(self) -> set[str]:
        recent = time.time() - _IN_USE_S
        return {spec for spec, used in self._last_used().items() if used > recent}

    def _last_used(self) -> dict[str, float]:
        """When each spec was used last: seconds since the epoch."""
        used: dict[str, float] = {}
        for key in self.store.list(keys.FEATURES):
            with suppress(KeyNotFound, OSError):
                at = self.store.local_path(key).stat().st_mtime
                used[_spec_of(key)] = max(at, used.get(_spec_of(key), 0.0))
        return used

    def _sizes(self, specs: Collection[str]) -> dict[str, int]:
        sizes = dict.fromkeys(specs, 0)
        for key in self.store.list(keys.FEATURES):
            if _spec_of(key) in sizes:
                sizes[_spec_of(key)] += keys.feature_shard_bytes(key)
        return sizes

    def _shards(self, kept: Collection[str]) -> list[tuple[float, str, int]]:
        """When its spec was used last, key and size of each shard that may go."""
        return [
            (used, key, keys.feature_shard_bytes(key))
            for spec, used in self._last_used().items()
            if spec not in kept
            for key in self.store.list(keys.features(spec))
        ]


def used_bytes(store: Store) -> int:
    """What all features in the store take."""
    return sum(keys.feature_shard_bytes(key) for key in store.list(keys.FEATURES))


def _spec_of(key: str) -> str:
    return key.split("/")[1]
