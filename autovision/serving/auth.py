"""Who may use the server: the store's tokens, read again every few seconds, off the path of requests.

A revoked token is refused by every replica within `REFRESH_S` (and the time of one read of the store). While
the store is away, the last list that was read holds; a server that never read one lets nobody in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from threading import Event, Thread

from autovision.records.base import now
from autovision.records.tokens import Scope, Token
from autovision.serving.problems import AccessUnknown, Forbidden, Unauthorized, escaped_trace
from autovision.store import tokens
from autovision.store.protocol import Store

logger = logging.getLogger(__name__)

REFRESH_S = 3.0


class TokenBook:
    """The tokens that are known at this moment. `start` before use, `close` after.

    A store in which a token was ever made is closed to everyone without a valid one, also when all were revoked.

    Args:
        required: whether a token is needed where the store has none, too.
    """

    def __init__(
        self,
        store: Store,
        *,
        required: bool = False,
        refresh_s: float = REFRESH_S,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._store = store
        self._required = required
        self._refresh_s = refresh_s
        self._clock = clock
        self._known: dict[str, Token] | None = None
        """id -> token; None: never read"""
        self._read = Event()
        self._closed = Event()
        self._thread = Thread(target=self._run, name="tokens", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait_read(self, timeout_s: float) -> bool:
        """Wait until the tokens were read once; False if that takes longer."""
        return self._read.wait(timeout_s)

    def close(self, timeout_s: float = 1.0) -> None:
        self._closed.set()
        # A store that does not answer holds the thread, which dies with the process.
        self._thread.join(timeout_s)

    def caller(self, authorization: str | None, scope: Scope | None) -> Token | None:
        """The token of a request by its `Authorization` header; None where none is needed.

        Args:
            scope: what the token must allow; None: any valid token will do.

        Raises `Unauthorized`, `Forbidden`, `AccessUnknown`.
        """
        known = self._known
        if known is None:
            raise AccessUnknown
        if not known and not self._required:
            return None
        scheme, _, presented = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized
        token = tokens.find(known, presented.strip())
        if token is None:
            raise Unauthorized(
                "the token is not known; make one with `autovision token create`", presented=True
            )
        if not token.is_valid(self._clock()):
            state = "was revoked" if token.revoked_at is not None else "has expired"
            raise Unauthorized(
                f"the token {state}; make another with `autovision token create`", presented=True
            )
        if scope is not None and scope not in token.scopes:
            raise Forbidden(scope)
        return token

    def _run(self) -> None:
        while not self._closed.is_set():
            self._refresh()
            self._closed.wait(self._refresh_s)

    def _refresh(self) -> None:
        try:
            known = {token.id: token for token in tokens.read(self._store)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the last list holds, and the next read may do
            logger.warning("the tokens cannot be read, so those last known hold: %s", escaped_trace(error))
            return
        if self._known is None and not known and not self._required:
            logger.warning("the store has no token: whoever reaches this server may use it")
        self._known = known
        self._read.set()
