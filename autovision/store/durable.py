"""Writing files so that a crash leaves the old or the new, and locks that die with their holder."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from autovision.errors import StoreUnavailable

LOCK_TIMEOUT_S = 30.0
"""a lock is held for microseconds; who waits this long waits for a suspended process"""

_ELSEWHERE = "or choose another folder with --store or AUTOVISION_STORE"
_REMEDIES = {
    errno.ENOSPC: f"free some space, {_ELSEWHERE}",
    errno.EDQUOT: f"free some space or raise the quota, {_ELSEWHERE}",
    errno.EROFS: f"mount the file system writable, {_ELSEWHERE}",
    errno.EACCES: f"give yourself the right to read and write it, {_ELSEWHERE}",
    errno.EPERM: f"give yourself the right to read and write it, {_ELSEWHERE}",
    errno.ENOTDIR: f"a part of the path is a file: move it away, {_ELSEWHERE}",
    errno.EEXIST: f"a file is where a folder has to be: move it away, {_ELSEWHERE}",
    errno.ENOENT: f"check that the folder exists and that folders can be made there, {_ELSEWHERE}",
    errno.ENAMETOOLONG: "choose a shorter path with --store or AUTOVISION_STORE",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}


def unavailable(action: str, path: Path, error: OSError) -> StoreUnavailable:
    """The error that a user sees: the path, the reason of the operating system, and the remedy."""
    reason = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, f"check the disk and its mount, {_ELSEWHERE}")
    return StoreUnavailable(f"cannot {action} {path}: {reason}; {remedy}")


@contextmanager
def os_errors(action: str, path: Path) -> Iterator[None]:
    """Turns an `OSError` within into a `StoreUnavailable`."""
    try:
        yield
    except OSError as error:
        raise unavailable(action, path, error) from error


def write_synced(path: Path, data: bytes) -> None:
    """Create the file `path`, and return when its content is on the disk."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    """Return when the names in the folder are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network and FUSE file systems keep names in order by themselves and refuse the call.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def make_folders(folder: Path, *, below: Path) -> None:
    """Create `folder` and its parents durably; `below`, the topmost, has to exist."""
    missing = []
    while folder != below and not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for part in reversed(missing):
        part.mkdir(exist_ok=True)
        sync_folder(part.parent)


def create_exclusively(temp: Path, path: Path) -> None:
    """Give the finished file `temp` the name `path`, unless that exists: then `FileExistsError`.

    The caller holds the lock of `path`: it is what makes this exclusive where there are no hard links.
    """
    try:
        path.hardlink_to(temp)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        temp.replace(path)


@contextmanager
def locked(path: Path, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Holds the lock file `path` alone among all threads and processes; a killed holder loses it at once."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _lock(fd, path, timeout_s)
        yield
    finally:
        # Unlocking by name, not only by closing: a process forked meanwhile shares the descriptor.
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def _lock(fd: int, path: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    pause_s = 0.0002
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the lock {path} has been held by another process for {timeout_s:g} s; "
                    "find it with `fuser` and let it go on, or end it"
                ) from None
        time.sleep(random.uniform(0.5, 1) * pause_s)
        pause_s = min(2 * pause_s, 0.02)
