"""A folder as the store, shared by any number of threads and processes on a file system with locks.

Reading takes no lock. Writing goes to a file in `<root>/.tmp`, which is synced to the disk and then given its
name in one step; what decides between two writers is the kernel's lock on the key's file in `<root>/.locks`,
which a killed process loses at once. So a crash leaves the old object or the new one, and a leftover in
`.tmp` that is removed when the store is opened a day later.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from autovision.errors import InvalidInput, StoreUnavailable
from autovision.records.base import now
from autovision.store import durable
from autovision.store.content import YOUNG_S, etag_of, is_damaged, present
from autovision.store.keypaths import (
    check_folder,
    check_key,
    check_prefix,
    folder_name,
    path_of,
    segment_of_file,
    segment_of_folder,
)
from autovision.store.protocol import AlreadyExists, Blob, Entry, ETagMismatch, KeyNotFound

LEFTOVER_AGE_S = 24 * 3600.0
"""a temporary file of this age belongs to nobody"""


class LocalStore:
    """A store in the folder `root`, which is created if it is missing.

    Raises `StoreUnavailable` if the folder cannot be created, and later whenever it cannot be read or
    written. A folder without write permission can be opened and read.
    """

    def __init__(self, root: Path, *, clock: Callable[[], datetime] = now) -> None:
        if "\0" in str(root):
            raise InvalidInput(f"the store's path {str(root)!r} has a NUL character; leave it out")
        with durable.os_errors("open the store", root):
            try:
                self.root = root.expanduser().resolve()
            except RuntimeError as error:
                raise StoreUnavailable(f"cannot open the store {root}: {error}; give another path") from error
            self.root.mkdir(parents=True, exist_ok=True)
        self._temp = self.root / ".tmp"
        self._locks = self.root / ".locks"
        self._remove_leftovers(clock())

    @property
    def uri(self) -> str:
        return self.root.as_uri()

    def __repr__(self) -> str:
        return f"LocalStore({str(self.root)!r})"

    # ------------------------------------------------------------------------------------------- reading

    def get(self, key: str) -> Blob:
        path = self._path(key)
        with self._reading(key, path):
            data = path.read_bytes()
        return Blob(data, etag_of(data))

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, Blob]]:
        return present(self.get, keys)

    def exists(self, key: str) -> bool:
        try:
            self.local_path(key)
        except KeyNotFound:
            return False
        return True

    def local_path(self, key: str) -> Path:
        path = self._path(key)
        with self._reading(key, path):
            path.stat()
        return path

    def list(self, prefix: str = "") -> Iterator[str]:
        *segments, partial = check_prefix(prefix).split("/")
        folder = self.root.joinpath(*map(folder_name, segments))
        return self._walk(folder, prefix.removesuffix(partial), partial)

    def folders(self, prefix: str) -> Iterator[str]:
        *segments, _ = check_folder(prefix).split("/")
        names = self._names(self.root.joinpath(*map(folder_name, segments)))
        return iter(sorted(name.removesuffix("/") for name in names if name.endswith("/")))

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        return (entry for key in self.list(prefix) if (entry := self._entry(key)) is not None)

    def _entry(self, key: str) -> Entry | None:
        with suppress(KeyNotFound), self._reading(key, self._path(key)):
            found = self._path(key).stat()
            return Entry(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))
        return None

    def _walk(self, folder: Path, head: str, partial: str) -> Iterator[str]:
        """The keys of one folder, all of which begin with `head`, if they go on with `partial`."""
        for name in self._names(folder):
            if not name.startswith(partial):
                continue
            if name.endswith("/"):
                yield from self._walk(folder / folder_name(name[:-1]), head + name, "")
            else:
                yield head + name

    def _names(self, folder: Path) -> tuple[str, ...]:
        """The folder's segments in the order of the keys below them; those of folders end with a slash.

        The slash takes part in the order: `a-b` is before `a/b`, which a walk by folder names would reverse.
        (The order of code points is that of UTF-8 bytes.)
        """
        names = []
        with durable.os_errors("list", folder):
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        is_folder = entry.is_dir()
                        segment = (segment_of_folder if is_folder else segment_of_file)(entry.name)
                        if segment is not None:
                            names.append(f"{segment}/" if is_folder else segment)
            except FileNotFoundError:
                self._check_root()
        return tuple(sorted(names))

    # ------------------------------------------------------------------------------------------- writing

    def put_new(self, key: str, data: bytes) -> str:
        path = self._path(key)
        if self.exists(key):
            raise self._already(key)
        with self._staged(path, data) as temp, self._locked(key):
            try:
                durable.create_exclusively(temp, path)
            except FileExistsError:
                raise self._already(key) from None
        self._sync(path)
        return etag_of(data)

    def put_if(self, key: str, data: bytes, etag: str) -> str:
        path = self._path(key)
        self._check_etag(key, etag)
        with self._staged(path, data) as temp, self._locked(key):
            self._check_etag(key, etag)
            temp.replace(path)
        self._sync(path)
        return etag_of(data)

    def put_immutable(self, key: str, data: bytes) -> None:
        path = self._path(key)
        try:
            with self._reading(key, path):
                found = path.stat()
                damaged = is_damaged(key, data, stored_bytes=found.st_size, read=path.read_bytes)
                young = time.time() - found.st_mtime <= YOUNG_S
                if not damaged and (young or self._made_young(key, path)):
                    return
        except KeyNotFound:
            pass
        with self._staged(path, data) as temp, self._locked(key):
            temp.replace(path)
        self._sync(path)

    def touch(self, key: str) -> None:
        path = self._path(key)
        with self._reading(key, path):
            path.stat()
            self._made_young(key, path)

    def _made_young(self, key: str, path: Path) -> bool:
        """Whether it could be done: the file may belong to another user, and may be gone."""
        with suppress(OSError), self._locked(key):
            os.utime(path)
            return True
        return False

    def delete_unchanged(self, entry: Entry) -> bool:
        path = self._path(entry.key)
        with durable.os_errors("delete", path):
            with self._locked(entry.key):
                found = self._entry(entry.key)
                if found is not None and found != entry:
                    return False
                path.unlink(missing_ok=True)
            if found is not None:
                durable.sync_folder(path.parent)
        return True

    def delete(self, key: str) -> None:
        path = self._path(key)
        if not self.exists(key):
            return
        with durable.os_errors("delete", path):
            with self._locked(key):
                path.unlink(missing_ok=True)
            durable.sync_folder(path.parent)

    # -------------------------------------------------------------------------------------------- helpers

    def _path(self, key: str) -> Path:
        return self.root / path_of(check_key(key))

    @contextmanager
    def _reading(self, key: str, path: Path) -> Iterator[None]:
        with durable.os_errors("read", path):
            try:
                yield
            except FileNotFoundError:
                self._check_root()
                raise KeyNotFound(
                    f"there is no object {key!r} in the store {self.uri}; check the name and the store"
                ) from None

    def _check_root(self) -> None:
        """A store that is gone is not an empty store."""
        if not self.root.is_dir():
            raise StoreUnavailable(
                f"the store's folder {self.root} is no longer there; mount or restore it, and try again"
            )

    def _check_etag(self, key: str, etag: str) -> None:
        found = self.get(key).etag
        if found != etag:
            raise ETagMismatch(
                f"{key!r} changed since it was read (ETag {found[:12]}, expected {etag[:12]}); "
                "read it again and repeat the change"
            )

    def _already(self, key: str) -> AlreadyExists:
        return AlreadyExists(
            f"{key!r} exists already in {self.uri}; choose another name or change what is there"
        )

    @contextmanager
    def _staged(self, path: Path, data: bytes) -> Iterator[Path]:
        """A synced temporary file that holds `data`, beside an existing folder for `path`."""
        temp = self._temp / f"{os.getpid()}-{secrets.token_hex(8)}"
        with durable.os_errors("write", path):
            durable.make_folders(self._temp, below=self.root)
            durable.make_folders(path.parent, below=self.root)
            try:
                durable.write_synced(temp, data)
                yield temp
            finally:
                temp.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        durable.make_folders(self._locks, below=self.root)
        with durable.locked(self._locks / sha256(key.encode()).hexdigest()[:2]):
            yield

    def _sync(self, path: Path) -> None:
        with durable.os_errors("write", path):
            durable.sync_folder(path.parent)

    def _remove_leftovers(self, at: datetime) -> None:
        if not self._temp.is_dir():
            return
        for path in self._temp.iterdir():
            try:
                if at.timestamp() - path.stat().st_mtime > LEFTOVER_AGE_S:
                    path.unlink()
            except OSError:
                # Another process was faster, or the store is read-only: it can be read all the same.
                continue
