"""Idempotency keys: the same request again, also at once and after a crash, is done once and answered the same.

An answer is kept for good; a refusal is not, so that the same key may be tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import Header

from autovision.errors import Conflict, InvalidInput, NotFound
from autovision.records.base import digest_of
from autovision.records.service import Answered
from autovision.service.problems import KeyReused, UnderWay
from autovision.service.schema import IDEMPOTENCY_HEADER
from autovision.serving.problems import Refusal
from autovision.store import keys, records
from autovision.store.protocol import Store

Key = Annotated[
    str | None,
    Header(
        alias=IDEMPOTENCY_HEADER,
        pattern=r"^[\x21-\x7e]{1,128}$",
        description="Names this very request: with the same key it is done once, however often it is sent.",
    ),
]

_WAIT_S = 10.0
"""for the answer to the same request, which somebody else is at"""
_POLL_S = 0.05
_ABANDONED = timedelta(seconds=30)
"""so old a request without an answer has probably lost its process"""


@dataclass(frozen=True)
class Asked:
    """A request with a key.

    Attributes:
        by: whose key it is: two callers may draw the same.
        body: what was sent, JSON-able.
    """

    key: str
    by: str
    method: str
    path: str
    body: Any

    @property
    def digest(self) -> str:
        return digest_of([self.by, self.key])

    @property
    def fingerprint(self) -> str:
        return digest_of([self.method, self.path, self.body])


_REFUSALS = (InvalidInput, NotFound, Conflict, Refusal)

Act = Callable[[str | None, Callable[[str], None]], tuple[int, dict[str, Any]]]
"""does it: gets what an earlier try was about to make, and a function to say that first; gives status and body"""


def once(
    store: Store, asked: Asked, act: Act, at: datetime, *, repeatable: bool = False, wait_s: float = _WAIT_S
) -> tuple[int, dict[str, Any], bool]:
    """Do it unless it was done: status and body of the answer, and whether it is one from before.

    Args:
        repeatable: whether a try that was broken off may be done again, being the same then.

    Raises `KeyReused` if the key was used for another request, `UnderWay` if it is not done yet, and what `act` raises.
    """
    key = keys.answered(asked.digest)
    until = time.monotonic() + wait_s
    while True:
        mine = Answered(fingerprint=asked.fingerprint, at=at)
        found, new = records.create_or_read(store, key, mine)
        if found.fingerprint != asked.fingerprint:
            raise KeyReused
        if found.status is not None:
            return found.status, found.body, True
        if new or (repeatable and at - found.at > _ABANDONED):
            return _do(store, key, found, act, repeatable)
        if time.monotonic() > until:
            raise UnderWay
        time.sleep(_POLL_S)


def _do(
    store: Store, key: str, found: Answered, act: Act, repeatable: bool
) -> tuple[int, dict[str, Any], bool]:
    def intend(subject: str) -> None:
        records.update(store, key, Answered, lambda current: current.with_(subject=subject))

    try:
        status, body = act(found.subject, intend)
    except Exception as error:
        # What was refused was not done. Of anything else that is not known.
        if repeatable or isinstance(error, _REFUSALS):
            store.delete(key)
        raise
    done = records.update(
        store,
        key,
        Answered,
        lambda current: None if current.status is not None else current.with_(status=status, body=body),
    )
    assert done.status is not None, "it was answered just now"
    return done.status, done.body, False
