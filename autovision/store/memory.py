"""A store in memory, for tests and for runs that leave nothing behind: the folder's twin, for one process."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from autovision.errors import InvalidInput
from autovision.records.base import now
from autovision.store.content import etag_of, is_damaged, present
from autovision.store.keypaths import check_folder, check_key, check_prefix, file_suffix
from autovision.store.keys import check_name
from autovision.store.protocol import AlreadyExists, Blob, Entry, ETagMismatch, KeyNotFound


class MemoryStore:
    """A thread-safe store of this process. `MemoryStore()` is a new one with a name of its own.

    `open_store(store.uri)` gives the very same object within the process, and in another process
    an empty store.
    """

    _by_name: ClassVar[weakref.WeakValueDictionary[str, MemoryStore]] = weakref.WeakValueDictionary()
    _opened_by_name: ClassVar[dict[str, MemoryStore]] = {}
    _registry_lock: ClassVar[threading.RLock] = threading.RLock()

    def __init__(self, name: str | None = None) -> None:
        self._name = f"unnamed-{secrets.token_hex(6)}" if name is None else name
        check_name(self._name, what="the memory store's name")
        self._blobs: dict[str, Blob] = {}
        self._written: dict[str, datetime] = {}
        self._lock = threading.RLock()
        self._files: Path | None = None
        with self._registry_lock:
            if self._name in self._by_name:
                raise InvalidInput(
                    f"the memory store {name!r} exists already; open it with open_store({self.uri!r})"
                )
            self._by_name[self._name] = self

    @classmethod
    def named(cls, name: str) -> MemoryStore:
        """The store of that name; a new one at first. It lives as long as the process."""
        with cls._registry_lock:
            store = cls._by_name.get(name)
            return cls._opened_by_name.setdefault(name, cls(name) if store is None else store)

    def copy(self) -> MemoryStore:
        """A store of its own, under a new name, that holds what this one holds now."""
        copied = MemoryStore()
        with self._lock:
            copied._blobs, copied._written = dict(self._blobs), dict(self._written)
        return copied

    @property
    def uri(self) -> str:
        return f"memory://{self._name}"

    def __repr__(self) -> str:
        return f"MemoryStore({self._name!r})"

    def get(self, key: str) -> Blob:
        check_key(key)
        with self._lock:
            if key not in self._blobs:
                raise KeyNotFound(
                    f"there is no object {key!r} in the store {self.uri}; check the name and the store"
                )
            return self._blobs[key]

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, Blob]]:
        return present(self.get, keys)

    def exists(self, key: str) -> bool:
        check_key(key)
        with self._lock:
            return key in self._blobs

    def put_new(self, key: str, data: bytes) -> str:
        with self._lock:
            if self.exists(key):
                raise AlreadyExists(
                    f"{key!r} exists already in {self.uri}; choose another name or change what is there"
                )
            return self._put(key, data)

    def put_if(self, key: str, data: bytes, etag: str) -> str:
        with self._lock:
            found = self.get(key).etag
            if found != etag:
                raise ETagMismatch(
                    f"{key!r} changed since it was read (ETag {found[:12]}, expected {etag[:12]}); "
                    "read it again and repeat the change"
                )
            return self._put(key, data)

    def put_immutable(self, key: str, data: bytes) -> None:
        with self._lock:
            if self.exists(key):
                stored = self._blobs[key].data
                if not is_damaged(key, data, stored_bytes=len(stored), read=lambda: stored):
                    self._written[key] = now()
                    return
            self._put(key, data)

    def list(self, prefix: str = "") -> Iterator[str]:
        check_prefix(prefix)
        with self._lock:
            return iter(sorted(key for key in self._blobs if key.startswith(prefix)))

    def folders(self, prefix: str) -> Iterator[str]:
        check_folder(prefix)
        below = (key.removeprefix(prefix) for key in self.list(prefix))
        return iter(sorted({name for name, slash, _ in (each.partition("/") for each in below) if slash}))

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        with self._lock:
            return iter([self._entry(key) for key in self.list(prefix)])

    def _entry(self, key: str) -> Entry:
        return Entry(key, len(self._blobs[key].data), self._written[key])

    def touch(self, key: str) -> None:
        with self._lock:
            self.get(key)
            self._written[key] = now()

    def delete_unchanged(self, entry: Entry) -> bool:
        with self._lock:
            if self.exists(entry.key) and self._entry(entry.key) != entry:
                return False
            self.delete(entry.key)
            return True

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            self._blobs.pop(key, None)

    def local_path(self, key: str) -> Path:
        data, etag = self.get(key)
        with self._lock:
            if self._files is None:
                self._files = Path(tempfile.mkdtemp(prefix="autovision-memory-"))
                weakref.finalize(self, shutil.rmtree, self._files, ignore_errors=True)
            path = self._files / f"{etag}-{sha256(key.encode()).hexdigest()[:8]}{file_suffix(key)}"
            if not path.exists():
                path.write_bytes(data)
            return path

    def _put(self, key: str, data: bytes) -> str:
        etag = etag_of(data)
        self._blobs[key] = Blob(bytes(data), etag)
        self._written[key] = now()
        return etag
