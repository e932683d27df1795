"""A store in memory that cannot be written at times, and lists many objects fast."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from autovision.errors import StoreUnavailable
from autovision.store import MemoryStore
from autovision.store.keypaths import check_prefix
from autovision.store.protocol import Entry


class OutageStore(MemoryStore):
    """Refuses every write while it is `down`."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.refused = 0
        """writes"""
        self._sorted: list[str] = []

    def list(self, prefix: str = "") -> Iterator[str]:
        check_prefix(prefix)
        with self._lock:
            begin = bisect_left(self._sorted, prefix)
            end = bisect_left(self._sorted, prefix + "\U0010ffff") if prefix else len(self._sorted)
            return iter(self._sorted[begin:end])

    def put_immutable(self, key: str, data: bytes) -> None:
        self._refuse(key)
        super().put_immutable(key, data)

    def touch(self, key: str) -> None:
        self._refuse(key)
        super().touch(key)

    def delete(self, key: str) -> None:
        self._refuse(key)
        with self._lock:
            super().delete(key)
            at = bisect_left(self._sorted, key)
            if self._sorted[at : at + 1] == [key]:
                del self._sorted[at]

    def delete_unchanged(self, entry: Entry) -> bool:
        self._refuse(entry.key)
        return super().delete_unchanged(entry)

    def _put(self, key: str, data: bytes) -> str:
        self._refuse(key)
        if key not in self._blobs:
            insort(self._sorted, key)
        return super()._put(key, data)

    def _refuse(self, key: str) -> None:
        if self.down:
            self.refused += 1
            raise StoreUnavailable(f"{key!r} cannot be written to {self.uri}; try again later")
