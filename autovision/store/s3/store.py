"""A prefix of an S3 bucket as the store, shared by any number of processes on any number of machines.

Requests are conditional wherever it matters who is first: `If-None-Match` creates, `If-Match` replaces and deletes.
They are sent again, with pauses drawn at random, until a deadline; `autovision.store.s3.writing` tells what a lost
answer means. Objects that are named by their content are read from this node's `autovision.store.cache`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autovision.errors import CorruptObject, InvalidInput, StoreUnavailable
from autovision.store import keys
from autovision.store.cache import ObjectCache
from autovision.store.content import YOUNG_S, etag_of, is_damaged
from autovision.store.keypaths import MAX_KEY_BYTES, check_folder, check_key, check_prefix, file_suffix
from autovision.store.protocol import AlreadyExists, Blob, Entry, ETagMismatch, KeyNotFound
from autovision.store.s3.client import Connection, Missing, Precondition
from autovision.store.s3.location import S3Location
from autovision.store.s3.patience import Patience

if TYPE_CHECKING:
    from autovision.store.s3.reading import Head

_PARALLEL = 16
"""objects that `get_many` reads at once"""
_BUCKET_SEEN_S = 60.0
"""for so long a bucket that was seen is taken to be there"""


class S3Store:
    """The store at `location`. Its bucket has to exist.

    Raises `StoreUnavailable` if it does not, or may not be used, and later whenever requests do not get through.

    Args:
        cache: where copies are kept; None: in this node's cache.
        cached: whether objects that are named by their content may be read from there.
        prove: whether a server that is not Amazon's is asked, before the first write with a condition, if it keeps to
            conditions; see `proof`.
    """

    def __init__(
        self,
        location: S3Location,
        *,
        cache: ObjectCache | None = None,
        cached: bool = True,
        prove: bool = False,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        # Imported here, as boto3 is behind it: a folder needs neither its half second nor its memory.
        from autovision.store.s3.reading import Reader
        from autovision.store.s3.writing import Writer

        self.location = location
        self.cache = cache or ObjectCache.of_node()
        self._cached = cached
        self._clock = clock
        self._connection = Connection(location, patience or Patience())
        self._reader = Reader(self._connection)
        self._writer = Writer(self._connection, self._reader)
        self._bucket_seen = float("-inf")
        self._to_prove = prove
        self._see_bucket()

    @property
    def uri(self) -> str:
        return self.location.uri

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self.uri,)

    # ------------------------------------------------------------------------------------------- reading

    def get(self, key: str) -> Blob:
        name, digest = self._name(key), keys.content_digest(key)
        place = digest and self.cache.by_digest(digest, file_suffix(key))
        if place and digest and self._cached and (data := self.cache.read(place, digest)) is not None:
            return Blob(data, digest)
        data, head = self._existing(key, lambda: self._reader.read(name))
        self._writer.note(name, head)
        if place and etag_of(data) == digest:
            if self._cached:
                self.cache.keep(place, data)
            return Blob(data, digest)
        return Blob(data, head.etag)

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, Blob]]:
        def present(key: str) -> Blob | None:
            try:
                return self.get(key)
            except KeyNotFound:
                return None

        wanted = iter(keys)
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="s3-get") as pool:
            pending: deque[tuple[str, Future[Blob | None]]] = deque()
            try:
                while True:
                    for key in islice(wanted, 2 * _PARALLEL - len(pending)):
                        pending.append((key, pool.submit(present, key)))
                    if not pending:
                        return
                    key, future = pending.popleft()
                    if (blob := future.result()) is not None:
                        yield key, blob
            finally:
                for _, future in pending:
                    future.cancel()

    def exists(self, key: str) -> bool:
        try:
            self._existing(key, lambda: self._reader.head(self._name(key)))
        except KeyNotFound:
            return False
        return True

    def local_path(self, key: str) -> Path:
        suffix, digest = file_suffix(key), keys.content_digest(check_key(key))
        place = digest and self.cache.by_digest(digest, suffix)
        if place and self.cache.has(place):
            return place
        while True:
            try:
                found: Path = self._existing(key, lambda: self._brought(key, digest, suffix))
                return found
            except _Replaced:
                continue

    def _brought(self, key: str, digest: str | None, suffix: str) -> Path:
        """The place of a copy of what is there now. Raises `Missing`, and `_Replaced` if it was, meanwhile."""
        from autovision.store.s3.reading import OpenFile

        name = self._name(key)
        head = self._reader.head(name)
        by_digest = digest is not None and digest == head.sha256
        place = (
            self.cache.by_digest(head.sha256 or "", suffix)
            if by_digest
            else self.cache.by_etag(self.uri, key, head.etag, suffix)
        )

        def fetch(descriptor: int) -> None:
            if self._reader.read_into(name, OpenFile(descriptor)).etag != head.etag:
                raise _Replaced

        return self.cache.fill(place, fetch)

    def list(self, prefix: str = "") -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def folders(self, prefix: str) -> Iterator[str]:
        begins = self.location.prefix + check_folder(prefix)
        pages = self._pages(Prefix=begins, Delimiter="/")
        found = (
            each["Prefix"].removeprefix(begins).removesuffix("/")
            for page in pages
            for each in page.get("CommonPrefixes", ())
        )
        return iter(sorted(name for name in found if _legal(f"{prefix}{name}/x")))

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        return self._entries(self.location.prefix + check_prefix(prefix))

    def _entries(self, prefix: str) -> Iterator[Entry]:
        for page in self._pages(Prefix=prefix):
            for found in page.get("Contents", ()):
                key = found["Key"].removeprefix(self.location.prefix)
                if _legal(key):  # others may have left something else there
                    yield Entry(key, found["Size"], found["LastModified"])

    def _pages(self, **wanted: str) -> Iterator[Mapping[str, Any]]:
        while True:
            page = self._connection.ask("list objects", "list_objects_v2", **wanted)
            yield page
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken")
            if not token or token == wanted.get("ContinuationToken"):
                raise StoreUnavailable(
                    f"the store {self.uri} at {self._connection.endpoint} says that a listing goes on, and not where; "
                    "check the server's state"
                )
            wanted["ContinuationToken"] = token

    # ------------------------------------------------------------------------------------------- writing

    def put_new(self, key: str, data: bytes) -> str:
        self._prove()
        try:
            etag = self._writer.create(self._name(key), data)
        except Precondition:
            raise AlreadyExists(
                f"{key!r} exists already in {self.uri}; choose another name or change what is there"
            ) from None
        return self._shown(key, data, etag)

    def put_if(self, key: str, data: bytes, etag: str) -> str:
        self._prove()
        name = self._name(key)

        def replace() -> str:
            # Of what is named by its content, the ETag that `get` tells is the digest of that.
            known = self._reader.head(name) if etag == keys.content_digest(key) else None
            return self._writer.replace(name, data, known.etag if known and known.sha256 == etag else etag)

        try:
            return self._shown(key, data, self._existing(key, replace))
        except Precondition:
            raise ETagMismatch(
                f"{key!r} changed since it was read (it no longer has the ETag {etag[:12]}); read it again and repeat "
                "the change"
            ) from None

    def put_immutable(self, key: str, data: bytes) -> None:
        name = self._name(key)
        try:
            if self._is_there(key, name, data):
                return
            self._writer.overwrite(name, data)
        except Missing:
            try:
                self._writer.create(name, data)
            except Precondition:
                # Another process was faster. The same object, as a rule; if not, this tells so.
                self._settle(key, name, data)
        self._shown(key, data, "")

    def touch(self, key: str) -> None:
        name = self._name(key)
        try:
            self._writer.refresh(name, self._existing(key, lambda: self._reader.head(name)))
        except Precondition:
            return  # written just now: young
        except Missing:
            raise self._not_found(key) from None

    def delete(self, key: str) -> None:
        self._writer.delete(self._name(key))
        self._forget(key)

    def delete_unchanged(self, entry: Entry) -> bool:
        def changed(head: Head) -> bool:
            return (head.size_bytes, _second(head.modified_at)) != (
                entry.size_bytes,
                _second(entry.modified_at),
            )

        gone = self._writer.delete(self._name(entry.key), unless=changed)
        if gone:
            self._forget(entry.key)
        return gone

    def remove_unfinished(self, before: datetime) -> int:
        """Give up uploads in parts that were begun before then and never ended; how many there were."""
        from autovision.store.s3.multipart import abandoned, abort

        found = list(abandoned(self._connection, before))
        for name, upload in found:
            abort(self._connection, name, upload)
        return len(found)

    # -------------------------------------------------------------------------------------------- helpers

    def _name(self, key: str) -> str:
        name = self.location.prefix + check_key(key)
        if len(name.encode()) > MAX_KEY_BYTES:
            raise InvalidInput(
                f"the key {key!r} is not valid: with the store's prefix it has {len(name.encode())} bytes, and S3 "
                f"takes {MAX_KEY_BYTES}; choose a shorter prefix or name"
            )
        return name

    def _existing(self, key: str, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Missing:
            self._see_bucket()
            raise self._not_found(key) from None

    def _not_found(self, key: str) -> KeyNotFound:
        return KeyNotFound(
            f"there is no object {key!r} in the store {self.uri}; check the name and the store"
        )

    def _see_bucket(self) -> None:
        """A bucket that is gone is not an empty store, and S3 says of both that an object is not found."""
        if time.monotonic() - self._bucket_seen < _BUCKET_SEEN_S:
            return
        bucket = self.location.bucket
        try:
            self._connection.ask("open the bucket", "head_bucket")
        except Missing:
            raise StoreUnavailable(
                f"there is no bucket {bucket!r} for the store {self.uri} at {self._connection.endpoint}; create it, "
                f"for example with `aws s3 mb s3://{bucket}`, or correct the name in --store or AUTOVISION_STORE"
            ) from None
        self._bucket_seen = time.monotonic()

    def _prove(self) -> None:
        from autovision.store.s3.proof import prove

        if self._to_prove:
            if not self._connection.is_amazon:
                prove(self._connection, self._reader)
            self._to_prove = False

    def _is_there(self, key: str, name: str, data: bytes) -> bool:
        """Whether an immutable object is there, whole; it is made young then. Raises `Missing`, and `CorruptObject`."""
        head = self._reader.head(name)

        def stored() -> bytes:
            try:
                return self._reader.read(name)[0]
            except CorruptObject:
                return b""

        same = head.sha256 == etag_of(data) and head.size_bytes == len(data)
        if not same and is_damaged(key, data, stored_bytes=head.size_bytes, read=stored):
            return False
        if self._clock() - head.modified_at.timestamp() > YOUNG_S:
            try:
                self._writer.refresh(name, head)
            except Precondition:
                return self._is_there(key, name, data)
        self._shown(key, data, "")
        return True

    def _settle(self, key: str, name: str, data: bytes) -> None:
        try:
            if not self._is_there(key, name, data):
                self._writer.overwrite(name, data)
        except Missing:  # and deleted again
            self._writer.overwrite(name, data)

    def _shown(self, key: str, data: bytes, etag: str) -> str:
        """Keep a copy of what is named by its content. The ETag that readers will see."""
        digest = keys.content_digest(key)
        if digest is None or etag_of(data) != digest:
            return etag
        if self._cached:
            self.cache.keep(self.cache.by_digest(digest, file_suffix(key)), data)
        return digest

    def _forget(self, key: str) -> None:
        if (digest := keys.content_digest(check_key(key))) is not None:
            self.cache.forget(self.cache.by_digest(digest, file_suffix(key)))


class _Replaced(Exception):
    """An object became another one while it was copied."""


def _opened(uri: str) -> S3Store:
    return S3Store(S3Location.parse(uri))


def _legal(key: str) -> bool:
    try:
        check_key(key)
    except InvalidInput:
        return False
    return True


def _second(at: datetime) -> datetime:
    """Listings tell times finer than answers about one object do."""
    return at.astimezone(UTC).replace(microsecond=0)
