"""Copies of stored objects on this node's disk, shared by its processes and bounded in bytes.

What has the digest of its content in its key is kept by that digest, whatever store it came from; everything else by
key and ETag. A copy is written beside its place, synced, and given its name in one step: it is there whole or not at
all. What was unused for longest goes first. What was asked for in the last minute stays, so that a path which was
just given out can be opened; a process that has a copy open or mapped keeps it even when it is removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from autovision.errors import StoreUnavailable
from autovision.store import durable
from autovision.store.sizes import parse_bytes

ENVIRONMENT_VARIABLE = "AUTOVISION_STORE_CACHE"

_SHARE_OF_DISK = 0.2
"""of what is free, or taken by copies already, when no limit is set"""
_KEPT_S = 60.0
_TOUCH_S = 10.0
"""a copy that was used in the last so many seconds is not marked again"""
_LOW = 0.8
"""of the limit: what is left when room is made"""
_LOOK_SHARE = 0.02
"""of the limit: after so much was added by a process, it looks what all of them have"""
_PATIENCE_S = 120.0
"""for another process that fetches the same object"""

_log = logging.getLogger(__name__)


def _check_own(folder: Path) -> None:
    """Where everybody may make folders, somebody else may have made this one, and put copies of his own into it."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise StoreUnavailable(
            f"copies of stored objects cannot be kept in {folder}: somebody else made it, or may write to it; remove "
            "it, or set XDG_CACHE_HOME to a folder of your own"
        )


class ObjectCache:
    """Copies in `folder`, which may be deleted at any time; at most `limit_bytes` of them, but for the last minute's.

    Raises nothing where a copy could not be kept but the object can be had without it; `fill` raises
    `StoreUnavailable`, since a file is what was asked for.
    """

    def __init__(
        self, folder: Path, limit_bytes: int | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._added: int | None = None
        """bytes since this process last looked; None: it never did"""
        self._complained = False

    @classmethod
    def of_node(cls) -> ObjectCache:
        """In `XDG_CACHE_HOME`, within what `AUTOVISION_STORE_CACHE` allows, or a fifth of the disk.

        Raises `InvalidInput` for what is no size, and `StoreUnavailable` for a folder that others may write.
        """
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autovision" / "store"
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError:  # a home that cannot be written
            root = Path(tempfile.gettempdir()) / f"autovision-store-{os.getuid()}"
            with durable.os_errors("make the cache of stored objects", root):
                root.mkdir(mode=0o700, exist_ok=True)
            _check_own(root)
        said = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
        return cls(root, parse_bytes(said, ENVIRONMENT_VARIABLE) if said else None)

    @property
    def limit_bytes(self) -> int:
        """What was said, or a share of the disk; found out when something is kept, since it takes a look at all."""
        if self._limit_bytes is None:
            free = shutil.disk_usage(self.folder).free
            self._limit_bytes = int(_SHARE_OF_DISK * (free + self.used_bytes()))
        return self._limit_bytes

    def by_digest(self, digest: str, suffix: str = "") -> Path:
        """The place of what has this digest; other keys may share it, with other suffixes they do not."""
        return self.folder / digest[:2] / f"{digest}{suffix}"

    def by_etag(self, store: str, key: str, etag: str, suffix: str) -> Path:
        """The place of one version of an object."""
        name = hashlib.sha256("\0".join((store, key, etag)).encode()).hexdigest()
        return self.folder / name[:2] / f"v-{name}{suffix}"

    def read(self, place: Path, digest: str) -> bytes | None:
        """The copy's bytes; None if there is none, or what there is does not have the digest."""
        try:
            data = place.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != digest:
            self.forget(place)
            return None
        self._used(place)
        return data

    def has(self, place: Path) -> bool:
        """Whether there is a copy; if so, it stays for the next minute."""
        return self._used(place)

    def keep(self, place: Path, data: bytes) -> None:
        """Keep a copy, if there is room on the disk."""
        if self.has(place) or len(data) > self.limit_bytes:
            return
        try:
            with self._staged(place) as file:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(file, rest) :]
        except OSError as error:
            if not self._complained:
                self._complained = True
                _log.warning("copies of stored objects cannot be kept in %s: %s", self.folder, error.strerror)

    def fill(self, place: Path, fetch: Callable[[int], None]) -> Path:
        """`place`, with a copy in it; `fetch` writes one to a descriptor if no process has brought one yet."""
        with durable.os_errors("write a copy of a stored object to", self.folder), self._alone(place):
            if not self.has(place):
                with self._staged(place) as file:
                    fetch(file)
        return place

    def forget(self, place: Path) -> None:
        """Remove a copy."""
        with suppress(OSError):
            place.unlink()

    def used_bytes(self) -> int:
        return sum(size for _, size, _ in self._copies())

    # ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _staged(self, place: Path) -> Iterator[int]:
        """A new file's descriptor; the file gets its place when all went well."""
        place.parent.mkdir(parents=True, exist_ok=True)
        temp = place.with_name(f".{os.getpid()}-{secrets.token_hex(8)}")
        file = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                yield file
                os.fsync(file)
                size = os.fstat(file).st_size
            finally:
                os.close(file)
            temp.replace(place)
        finally:
            temp.unlink(missing_ok=True)
        self._count(size)

    @contextmanager
    def _alone(self, place: Path) -> Iterator[None]:
        """One process at a time brings an object; one that takes very long is not waited for."""
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(place.parent / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            until = time.monotonic() + _PATIENCE_S
            while time.monotonic() < until:
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.02)
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def _used(self, place: Path) -> bool:
        try:
            if self._clock() - place.stat().st_mtime > _TOUCH_S:
                now = self._clock()
                os.utime(place, (now, now))
        except OSError:
            return False
        return True

    def _count(self, size: int) -> None:
        with self._lock:
            if self._added is not None:
                self._added += size
                if self._added <= _LOOK_SHARE * self.limit_bytes:
                    return
            self._added = 0
        self._make_room()

    def _make_room(self) -> None:
        copies = sorted(self._copies())
        excess = sum(size for _, size, _ in copies) - self.limit_bytes
        if excess <= 0:
            return
        excess += int((1 - _LOW) * self.limit_bytes)
        for used, size, place in copies:
            if excess <= 0 or self._clock() - used < _KEPT_S:
                return
            self.forget(place)
            excess -= size

    def _copies(self) -> Iterator[tuple[float, int, Path]]:
        """When each was last used, its size, and where it is. What a killed process left half-written is one, too."""
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(OSError):
                        if entry.name != ".lock" and entry.is_file():
                            found = entry.stat()
                            yield found.st_mtime, found.st_size, Path(entry.path)
