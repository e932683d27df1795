"""ETags, and what to do when an immutable object is there already: shared by all back ends."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

from autovision.errors import CorruptObject
from autovision.store.protocol import Blob, KeyNotFound

YOUNG_S = 3600.0
"""an immutable object that is found in place counts as written now if it is older than this"""
COMPARED_BYTES = 1 << 20
"""objects up to this size are compared byte by byte, larger ones by size"""


def etag_of(data: bytes) -> str:
    """The SHA-256 of the content, in hex: equal content has an equal ETag."""
    return hashlib.sha256(data).hexdigest()


def is_damaged(key: str, data: bytes, *, stored_bytes: int, read: Callable[[], bytes]) -> bool:
    """Whether the stored object is not `data` and has to be written again, for `put_immutable`.

    `read` gives the stored bytes; it is called for small objects only. Raises `CorruptObject` if the stored
    object is another one and the key does not tell which of the two is right.
    """
    named = etag_of(data) in key
    if stored_bytes == len(data):
        return named and stored_bytes <= COMPARED_BYTES and read() != data
    if named:
        return True
    raise CorruptObject(
        f"the immutable object {key!r} holds {stored_bytes} bytes, but {len(data)} bytes were to be written "
        "under the same key; delete the stored object if it is the wrong one, then repeat the command"
    )


def present(get: Callable[[str], Blob], keys: Iterable[str]) -> Iterator[tuple[str, Blob]]:
    """The objects of those keys that there are, one after the other."""
    for key in keys:
        try:
            blob = get(key)
        except KeyNotFound:
            continue
        yield key, blob
