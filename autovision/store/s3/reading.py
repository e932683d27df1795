"""Reading objects from S3: what is known of one, and its bytes, whole or not at all.

A body that ends early, comes too slowly or does not match the digest that was stored with it is asked for again.
Large objects come in parts, several at once, all of the same version: each names the ETag that it has to be of.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from autovision.errors import CorruptObject, StoreUnavailable
from autovision.store.s3.client import Connection, Precondition

PART_BYTES = 16 << 20
PARALLEL = 8
"""parts of one object that come at once"""
_CHUNK_BYTES = 1 << 18
_ROUNDS = 20
"""how often an object may change while it is read"""

WRITE, AFTER, SHA256 = "autovision-write", "autovision-after", "autovision-sha256"
"""names of metadata: the write that made the object, those before it, and the digest of its bytes"""


@dataclass(frozen=True)
class Head:
    """What S3 tells of an object."""

    etag: str
    size_bytes: int
    modified_at: datetime
    write: str
    """which write made it: drawn anew for each; empty if something else than this store wrote it"""
    after: tuple[str, ...]
    """writes that came before it, the latest first"""
    sha256: str | None
    metadata: dict[str, str]

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Head:
        """Raises botocore's `ResponseParserError` for an answer that is not one of S3's, such as a gateway's page."""
        if missing := [name for name in ("ETag", "ContentLength", "LastModified") if name not in answer]:
            from botocore.parsers import ResponseParserError

            raise ResponseParserError(f"an answer without {', '.join(missing)}, which S3 always gives")
        said = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        return cls(
            etag=answer["ETag"].strip('"'),
            size_bytes=int(answer["ContentLength"]),
            modified_at=answer["LastModified"],
            write=said.get(WRITE, ""),
            after=tuple(said.get(AFTER, "").split()),
            sha256=said.get(SHA256),
            metadata=said,
        )


class Sink(Protocol):
    """Takes the bytes of one object, in any order, from several threads."""

    def begin(self, size_bytes: int) -> None:
        """What was taken before is void; so many bytes follow."""

    def write_at(self, offset: int, data: bytes) -> None: ...

    def digest(self) -> str:
        """SHA-256 of all of it, in hex."""


class Memory:
    """Bytes in memory."""

    def begin(self, size_bytes: int) -> None:
        self.data = bytearray(size_bytes)

    def write_at(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data

    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


class OpenFile:
    """Bytes in a file, by its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def begin(self, size_bytes: int) -> None:
        os.ftruncate(self._descriptor, 0)
        os.ftruncate(self._descriptor, size_bytes)

    def write_at(self, offset: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            done = os.pwrite(self._descriptor, rest, offset)
            rest, offset = rest[done:], offset + done

    def digest(self) -> str:
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()


class Reader:
    """Reads the objects of one location by their full names."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._bucket = connection.location.bucket

    def head(self, name: str) -> Head:
        """Raises `Missing`."""

        def ask(client: Any) -> Head:
            return Head.of(client.head_object(Bucket=self._bucket, Key=name))

        return self._connection.call(f"look at {name!r}", ask)

    def read(self, name: str) -> tuple[bytes, Head]:
        """The bytes of an object. Raises like `read_into`."""
        sink = Memory()
        head = self.read_into(name, sink)
        return bytes(sink.data), head

    def read_into(self, name: str, sink: Sink) -> Head:
        """Raises `Missing`, and `CorruptObject` if S3 holds other bytes than were written."""
        uri = self._connection.location.uri
        for _ in range(_ROUNDS):
            try:
                head = self._whole(name, sink)
            except Precondition:  # replaced while its parts were read
                continue
            if head.sha256 is not None and (digest := sink.digest()) != head.sha256:
                raise CorruptObject(
                    f"the object {name!r} in {uri} has the digest {digest[:12]} instead of {head.sha256[:12]}; "
                    "restore it from a backup, or make it again"
                )
            return head
        raise StoreUnavailable(
            f"the object {name!r} in {uri} changed {_ROUNDS} times while it was read; see who writes it so often, "
            "and try again"
        )

    def _whole(self, name: str, sink: Sink) -> Head:
        def ask(client: Any) -> Head:
            answer = client.get_object(Bucket=self._bucket, Key=name)
            head = Head.of(answer)
            with closing(answer["Body"]) as body:
                sink.begin(head.size_bytes)
                if head.size_bytes <= 2 * PART_BYTES:
                    self._drain(body, head.size_bytes, 0, sink)
            return head

        head = self._connection.call(f"read {name!r}", ask)
        if head.size_bytes > 2 * PART_BYTES:
            with ThreadPoolExecutor(PARALLEL, thread_name_prefix="s3-read") as pool:
                begins = range(0, head.size_bytes, PART_BYTES)
                for done in [pool.submit(self._part, name, head, begin, sink) for begin in begins]:
                    done.result()
        return head

    def _part(self, name: str, head: Head, begin: int, sink: Sink) -> None:
        size = min(PART_BYTES, head.size_bytes - begin)

        def ask(client: Any) -> None:
            answer = client.get_object(
                Bucket=self._bucket,
                Key=name,
                Range=f"bytes={begin}-{begin + size - 1}",
                IfMatch=f'"{head.etag}"',
            )
            with closing(answer["Body"]) as body:
                self._drain(body, size, begin, sink)

        self._connection.call(f"read {name!r}", ask)

    def _drain(self, body: Any, size: int, begin: int, sink: Sink) -> None:
        """Read a body of so many bytes. One that ends before it said raises by itself; one that trickles is given up
        here, and so is one of another size: of a server that knows no ranges, or that cut it and says nothing."""
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError

        patience = self._connection.patience
        until = patience.clock() + patience.body_s(size)
        done = 0
        for chunk in body.iter_chunks(_CHUNK_BYTES):
            if done + len(chunk) > size:
                raise IncompleteReadError(actual_bytes=done + len(chunk), expected_bytes=size)
            sink.write_at(begin + done, chunk)
            done += len(chunk)
            if patience.clock() > until:
                raise ReadTimeoutError(endpoint_url=self._connection.endpoint)
        if done != size:
            raise IncompleteReadError(actual_bytes=done, expected_bytes=size)
