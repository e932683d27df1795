"""A store whose process is killed at a write, or sleeps there: for tests of whoever must go on from anything.

counted = MortalStore(store)                  # one run that nothing disturbs tells how many writes there are
MortalStore(copy, dies_at=7, before=False)    # the same run, killed just after the eighth
MortalStore(store, before_each=look)          # one that nothing disturbs, which shows what a kill anywhere would leave
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from autovision.store.protocol import Blob, Entry, Store

T = TypeVar("T")


class Killed(BaseException):
    """The process is gone: nothing catches it."""


class MortalStore:
    """A store as one process sees it.

    Args:
        dies_at: index of the write at which the process is killed; after that nothing is written any more.
        before: whether that write is still to come, or is the last thing that was done.
        sleeps_at: index of the write, already on its way, at which the process sleeps until `awake` is set.
        before_each: called with each write just before it is done, when the store is as a kill there would leave it.
    """

    def __init__(
        self,
        store: Store,
        *,
        dies_at: int | None = None,
        before: bool = True,
        sleeps_at: int | None = None,
        before_each: Callable[[str], None] = lambda what: None,
    ) -> None:
        self._store, self._dies_at, self._before, self._sleeps_at = store, dies_at, before, sleeps_at
        self._before_each = before_each
        self._lock = threading.Lock()
        self.writes: list[str] = []
        """what was to be written, in order; a lease that is renewed in the background is not counted"""
        self.dead = False
        self.asleep, self.awake = threading.Event(), threading.Event()

    @property
    def uri(self) -> str:
        return self._store.uri

    def get(self, key: str) -> Blob:
        return self._store.get(key)

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, Blob]]:
        return self._store.get_many(keys)

    def exists(self, key: str) -> bool:
        return self._store.exists(key)

    def list(self, prefix: str = "") -> Iterator[str]:
        return self._store.list(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        return self._store.folders(prefix)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        return self._store.entries(prefix)

    def local_path(self, key: str) -> Path:
        return self._store.local_path(key)

    def put_new(self, key: str, data: bytes) -> str:
        return self._write(f"put_new {key}", lambda: self._store.put_new(key, data))

    def put_if(self, key: str, data: bytes, etag: str) -> str:
        return self._write(f"put_if {key}", lambda: self._store.put_if(key, data, etag))

    def put_immutable(self, key: str, data: bytes) -> None:
        self._write(f"put_immutable {key}", lambda: self._store.put_immutable(key, data))

    def touch(self, key: str) -> None:
        self._write(f"touch {key}", lambda: self._store.touch(key))

    def delete(self, key: str) -> None:
        self._write(f"delete {key}", lambda: self._store.delete(key))

    def delete_unchanged(self, entry: Entry) -> bool:
        return self._write(f"delete {entry.key}", lambda: self._store.delete_unchanged(entry))

    def _write(self, what: str, act: Callable[[], T]) -> T:
        if threading.current_thread().name.startswith("lease-"):
            if self.dead:
                raise Killed
            return act()
        # One after the other, also those of several threads: what a kill leaves is then what was done before it.
        with self._lock:
            if self.dead:
                raise Killed
            self._before_each(what)
            number = len(self.writes)
            self.writes.append(what)
            if number != self._sleeps_at:
                self.dead = number == self._dies_at
                if self.dead and self._before:
                    raise Killed
                done = act()
                if self.dead:
                    raise Killed
                return done
        self.asleep.set()
        self.awake.wait()
        return act()
