"""Lists in parts: a cursor names the last item that was given, so that nothing is left out or given twice."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from autovision.errors import InvalidInput
from autovision.service.schema import Page

T = TypeVar("T")
R = TypeVar("R")

MOST = 200

Limit = Annotated[int, Query(ge=1, le=MOST, description="Items in this part, at most.")]
Cursor = Annotated[
    str | None,
    Query(max_length=512, description="`next` of the part before; without it the first part."),
]


def page(
    items: Iterable[T], key: Callable[[T], str], limit: int, cursor: str | None, show: Callable[[T], R]
) -> Page[R]:
    """The part of a list behind a cursor, in the order of the keys, which are unique. Raises `InvalidInput`."""
    after = "" if cursor is None else decoded(cursor)
    found = sorted((item for item in items if key(item) > after), key=key)
    return cut(found, key, limit, show)


def cut(found: Sequence[T], key: Callable[[T], str], limit: int, show: Callable[[T], R]) -> Page[R]:
    """The first so many of what comes behind a cursor, in order."""
    part = found[:limit]
    more = len(found) > len(part)
    return Page(items=[show(item) for item in part], next=encoded(key(part[-1])) if more else None)


def encoded(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def decoded(cursor: str) -> str:
    """Raises `InvalidInput` for what no part ever named as its next."""
    try:
        key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        key = ""
    if not key or encoded(key) != cursor or not key.isprintable():
        raise InvalidInput(
            f"cursor {cursor[:40]!a} is not one that a list named as its `next`; leave it out to begin anew"
        )
    return key
