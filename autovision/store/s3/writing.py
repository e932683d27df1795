"""Writing to S3 so that each write happens once, and is known to have happened, whatever is lost on the way.

Every write carries a number drawn for it in the object's metadata, and the numbers of the writes before it. When the
answer to a conditional write is lost, or a repetition of it is refused, the object is looked at: if it carries the
number, or comes from a write that does, the write was carried out. It is not carried out twice, since its own
condition forbids that from then on; only a repetition that the network holds back until the object was deleted, or has
its old content again, would still find its condition true.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, NamedTuple

from autovision.errors import StoreUnavailable
from autovision.store.s3.client import Connection, Missing, Precondition
from autovision.store.s3.multipart import THRESHOLD_BYTES, upload_parts
from autovision.store.s3.reading import AFTER, SHA256, WRITE, Head, Reader

_REMEMBERED = 4096
"""objects of which is known what wrote them"""
_CHAIN = 16
"""writes before an object's own that it names"""
_UNKNOWN = "; it is not known whether the write was carried out"


class Written(NamedTuple):
    """What became of a write."""

    etag: str
    chain: tuple[str, ...]
    """its number, and those before it"""


class Writer:
    """Writes objects of one location by their full names."""

    def __init__(self, connection: Connection, reader: Reader) -> None:
        self._connection = connection
        self._reader = reader
        self._bucket = connection.location.bucket
        self._chains = _Chains()

    def create(self, name: str, data: bytes) -> str:
        """A new object; its ETag. Raises `Precondition` if there is one."""
        put = self._put if len(data) < THRESHOLD_BYTES else self._put_in_parts
        return self._conditional(name, data, (), {"IfNoneMatch": "*"}, put)

    def replace(self, name: str, data: bytes, etag: str) -> str:
        """Another object in place of the one of that ETag. Raises `Precondition`, and `Missing`."""
        chain = self._chains.of(name, etag)
        if chain is None:
            head = self._reader.head(name)
            if head.etag != etag:
                raise Precondition
            chain = self.note(name, head)
        return self._conditional(name, data, chain, {"IfMatch": f'"{etag}"'}, self._put)

    def overwrite(self, name: str, data: bytes) -> str:
        """An object, whatever was there; its ETag."""
        metadata = self._metadata(secrets.token_hex(8), (), data)
        if len(data) >= THRESHOLD_BYTES:
            put = self._put_in_parts
            return self._connection.call(f"write {name!r}", lambda client: put(name, data, metadata, {}))
        return self._connection.call(
            f"write {name!r}", lambda client: self._ask(client, name, data, metadata, {})
        )

    def note(self, name: str, head: Head) -> tuple[str, ...]:
        """Remember what wrote an object that was just seen, so that replacing it takes one request."""
        chain = (head.write, *head.after)[:_CHAIN] if head.write else ()
        self._chains.note(name, head.etag, chain)
        return chain

    def refresh(self, name: str, head: Head) -> None:
        """Make an object young by copying it onto itself. Raises `Missing`, and `Precondition` if it has changed."""
        self._connection.ask(
            f"touch {name!r}",
            "copy_object",
            Key=name,
            CopySource={"Bucket": self._bucket, "Key": name},
            CopySourceIfMatch=f'"{head.etag}"',
            MetadataDirective="REPLACE",
            Metadata=head.metadata,
            **self._connection.location.encryption(),
        )

    def delete(self, name: str, unless: Callable[[Head], bool] = lambda head: False) -> bool:
        """Remove the object that is there now, and never one that came later; whether it is gone.

        Args:
            unless: says of what is there that it has to stay.
        """
        before: Head | None = None
        while True:
            try:
                head = self._reader.head(name)
                if before is not None and before.write and before.write not in (head.write, *head.after):
                    return True  # it does not come from what was to be removed: that was removed, by whomever
                before = head
                if unless(head):
                    return False
                self._connection.ask(f"delete {name!r}", "delete_object", Key=name, IfMatch=f'"{head.etag}"')
                return True
            except Missing:
                return True
            except Precondition:
                continue

    # ---------------------------------------------------------------------------------------------------

    def _conditional(
        self,
        name: str,
        data: bytes,
        before: tuple[str, ...],
        condition: dict[str, str],
        put: Callable[[str, bytes, dict[str, str], dict[str, str]], str],
    ) -> str:
        from autovision.store.s3.faults import Failure, Kind, fault_of

        number = secrets.token_hex(8)
        metadata = self._metadata(number, before, data)
        fault, doubtful = None, False
        for _ in self._connection.tries():
            try:
                etag = put(name, data, metadata, condition)
            except Failure as error:
                fault = fault_of(error)
                self._connection.note(answered=fault.answered)
                if fault.kind in (Kind.PRECONDITION, Kind.MISSING):
                    if (etag_now := self._carried_out(name, number)) is not None:
                        return etag_now
                    raise (Precondition if fault.kind is Kind.PRECONDITION else Missing) from error
                if fault.kind is Kind.FATAL:
                    self._connection.give_up(
                        f"write {name!r}", fault, error, doubt=_UNKNOWN if doubtful else ""
                    )
                if fault.arrived and fault.kind is Kind.AGAIN:
                    doubtful = True
                    # Before so much is sent once more, it is worth a look whether it has to be.
                    if put != self._put and (etag_now := self._carried_out(name, number)) is not None:
                        return etag_now
                continue
            self._connection.note(answered=True)
            self._chains.note(name, etag, (number, *before)[:_CHAIN])
            return etag
        assert fault is not None
        if doubtful and (etag_now := self._carried_out(name, number)) is not None:
            return etag_now
        self._connection.give_up(f"write {name!r}", fault, doubt=_UNKNOWN if doubtful else "")

    def _carried_out(self, name: str, number: str) -> str | None:
        """The ETag that a write led to, if it was carried out; where others followed it, one that nothing has."""
        try:
            head = self._reader.head(name)
        except Missing:
            return None
        except StoreUnavailable as error:
            raise StoreUnavailable(f"{error}{_UNKNOWN}") from error
        chain = self.note(name, head)
        if number == head.write:
            return head.etag
        return f"replaced-{number}" if number in chain else None

    def _put(self, name: str, data: bytes, metadata: dict[str, str], condition: dict[str, str]) -> str:
        return self._ask(self._connection.client, name, data, metadata, condition)

    def _put_in_parts(
        self, name: str, data: bytes, metadata: dict[str, str], condition: dict[str, str]
    ) -> str:
        return upload_parts(self._connection, name, data, metadata, condition)

    def _ask(
        self, client: Any, name: str, data: bytes, metadata: dict[str, str], condition: dict[str, str]
    ) -> str:
        answer = client.put_object(
            Bucket=self._bucket,
            Key=name,
            Body=data,
            Metadata=metadata,
            ChecksumSHA256=b64encode(bytes.fromhex(metadata[SHA256])).decode(),
            **condition,
            **self._connection.location.encryption(),
        )
        return str(answer["ETag"]).strip('"')

    @staticmethod
    def _metadata(number: str, before: tuple[str, ...], data: bytes) -> dict[str, str]:
        said = {WRITE: number, SHA256: hashlib.sha256(data).hexdigest()}
        return {**said, AFTER: " ".join(before)} if before else said


class _Chains:
    """What wrote the objects that were seen last. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: OrderedDict[tuple[str, str], tuple[str, ...]] = OrderedDict()

    def of(self, name: str, etag: str) -> tuple[str, ...] | None:
        with self._lock:
            return self._known.get((name, etag))

    def note(self, name: str, etag: str, chain: tuple[str, ...]) -> None:
        with self._lock:
            self._known[name, etag] = chain
            self._known.move_to_end((name, etag))
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
