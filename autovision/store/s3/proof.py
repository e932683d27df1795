"""Whether a server keeps to what this store relies on: the conditions of writes, and what is written beside them.

A server that does not know a condition may refuse it, or take the write all the same. The second is worse: two
processes would both have the one lease, and changes would be lost without a word. So a server that is not Amazon's is
asked before the first conditional write, with an object of nobody's.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Any

from autovision.errors import AutoVisionError, StoreUnavailable
from autovision.store import keys
from autovision.store.s3.client import Connection, Missing, Precondition
from autovision.store.s3.reading import WRITE, Reader

_NOT_ITS_ETAG = '"00000000000000000000000000000000"'


def prove(connection: Connection, reader: Reader) -> None:
    """Raises `StoreUnavailable` for a server that takes a write which its condition forbids, or drops metadata."""
    number = secrets.token_hex(8)
    name = connection.location.prefix + keys.probe(number)

    def taken(**condition: str) -> bool:
        try:
            _put(connection, name, number, condition)
        except (Precondition, Missing):
            return False
        return True

    try:
        taken(IfNoneMatch="*")  # refused where it was repeated because its answer was lost
        fault = None
        if reader.head(name).write != number:
            fault = "drops the metadata of objects, by which a write whose answer was lost is known again"
        elif taken(IfNoneMatch="*"):
            fault = "takes a second object in place of one that must not be there (If-None-Match)"
        elif taken(IfMatch=_NOT_ITS_ETAG):
            fault = "replaces an object that is not the one which was read (If-Match)"
    except Missing:
        fault = "does not have what was just written"
    finally:
        with suppress(AutoVisionError, Missing, Precondition):
            connection.ask(f"delete {name!r}", "delete_object", Key=name)
    if fault is not None:
        raise StoreUnavailable(
            f"the server of the store {connection.location.uri} at {connection.endpoint} {fault}: several processes "
            "would undo each other's changes; use one that knows conditional writes, such as Amazon S3 or a current "
            "MinIO, or a folder that all nodes share"
        )


def _put(connection: Connection, name: str, number: str, condition: dict[str, str]) -> Any:
    return connection.ask(
        f"try a conditional write of {name!r}",
        "put_object",
        Key=name,
        Body=b"",
        Metadata={WRITE: number},
        **condition,
        **connection.location.encryption(),
    )
