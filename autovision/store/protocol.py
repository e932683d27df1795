"""What every store can do. A folder, memory and S3 satisfy the same contract suite (`autovision.testing`).

Keys are slash-separated and made in `autovision.store.keys` only. Objects are bytes. Every write is
atomic: a reader sees the old object, or the whole new one. An ETag changes when the content changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from autovision.errors import Conflict, NotFound


class Blob(NamedTuple):
    """An object's bytes and the ETag that a conditional write names."""

    data: bytes
    etag: str


class Entry(NamedTuple):
    """What a listing tells of an object."""

    key: str
    size_bytes: int
    modified_at: datetime
    """when it was last written, touched, or found in place by `put_immutable` (to within an hour)"""


class KeyNotFound(NotFound):
    """No object of that key in the store."""


class AlreadyExists(Conflict):
    """An object of that key exists already and would have been overwritten."""


class ETagMismatch(Conflict):
    """The object changed since it was read; read it again and repeat the change."""


@runtime_checkable
class Store(Protocol):
    """Objects under keys, with conditional writes."""

    @property
    def uri(self) -> str:
        """Where it is; `open_store(store.uri)` opens the same store, in this or another process."""

    def get(self, key: str) -> Blob:
        """The object. Raises `KeyNotFound`."""

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, Blob]]:
        """The objects in the order of `keys`, several read at once where that helps; missing ones are left out."""

    def exists(self, key: str) -> bool: ...

    def put_new(self, key: str, data: bytes) -> str:
        """Create the object (S3 `If-None-Match: *`); its ETag. Raises `AlreadyExists`, changing nothing."""

    def put_if(self, key: str, data: bytes, etag: str) -> str:
        """Replace the object if its ETag is still `etag` (S3 `If-Match`); the new ETag.

        Raises `ETagMismatch` if it changed and `KeyNotFound` if it is gone; changes nothing then.
        """

    def put_immutable(self, key: str, data: bytes) -> None:
        """Write an object whose key is derived from its content. One that is already there only becomes young again.

        That it becomes young keeps it from a collector that takes old objects nobody refers to.
        """

    def list(self, prefix: str = "") -> Iterator[str]:
        """The keys that begin with `prefix`, in ascending order of their UTF-8 bytes."""

    def folders(self, prefix: str) -> Iterator[str]:
        """What stands between `prefix`, which is empty or ends with a slash, and the next slash of keys.

        Each name once, in ascending order; what lies below is not listed for it. One that has become empty may still
        be among them.
        """

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Like `list`, with size and age."""

    def touch(self, key: str) -> None:
        """Make the object as young as one that was written now. Raises `KeyNotFound`."""

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens if there is none."""

    def delete_unchanged(self, entry: Entry) -> bool:
        """Remove the object unless it was written or touched since it was listed; whether it is gone."""

    def local_path(self, key: str) -> Path:
        """A file that holds the object, to be memory-mapped and never written. Raises `KeyNotFound`."""
