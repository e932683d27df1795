"""A store that is written only while a lease is held: whoever slept for longer than that writes nothing any more.

Between the look at the clock and the write there is a moment left. What is written must therefore be the same whoever
writes it, or a compare-and-swap of what was seen under the lease; then nothing that comes late counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from autovision.store.lease import HeldLease
from autovision.store.protocol import Blob, Entry, Store


class FencedStore:
    """A store as the holder of a lease sees it: reads as ever, and writes or raises `LeaseLost`."""

    def __init__(self, store: Store, held: HeldLease) -> None:
        self._store, self._held = store, held

    @property
    def uri(self) -> str:
        return self._store.uri

    def get(self, key: str) -> Blob:
        return self._store.get(key)

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, Blob]]:
        return self._store.get_many(keys)

    def exists(self, key: str) -> bool:
        return self._store.exists(key)

    def put_new(self, key: str, data: bytes) -> str:
        self._held.ensure_held()
        return self._store.put_new(key, data)

    def put_if(self, key: str, data: bytes, etag: str) -> str:
        self._held.ensure_held()
        return self._store.put_if(key, data, etag)

    def put_immutable(self, key: str, data: bytes) -> None:
        self._held.ensure_held()
        self._store.put_immutable(key, data)

    def list(self, prefix: str = "") -> Iterator[str]:
        return self._store.list(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        return self._store.folders(prefix)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        return self._store.entries(prefix)

    def touch(self, key: str) -> None:
        self._held.ensure_held()
        self._store.touch(key)

    def delete(self, key: str) -> None:
        self._held.ensure_held()
        self._store.delete(key)

    def delete_unchanged(self, entry: Entry) -> bool:
        self._held.ensure_held()
        return self._store.delete_unchanged(entry)

    def local_path(self, key: str) -> Path:
        return self._store.local_path(key)
