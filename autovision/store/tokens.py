"""Making, listing, revoking and checking bearer tokens.

    av_<8 hex: its id>_<43 characters: 256 random bits>

The id is public and finds the record; what is compared is the digest of the whole.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from autovision.errors import InvalidInput, NotFound, near
from autovision.records.searches import MOST_PRIORITY
from autovision.records.tokens import Scope, Token, TokenList
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound, Store

MAX_TOKENS = 10_000
_FORM = re.compile(r"av_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_NO_DIGEST = "0" * 64


class Created(NamedTuple):
    """A new token, and its record."""

    secret: str
    """shown once, and stored nowhere"""
    token: Token


def create(
    store: Store,
    name: str,
    scopes: Iterable[Scope],
    at: datetime,
    *,
    expires_at: datetime | None = None,
    max_searches: int | None = None,
    max_search_s_per_day: float | None = None,
    max_priority: int = 0,
) -> Created:
    """Store a new token; see `Token` for its quotas.

    Raises `InvalidInput` for a name that is none, no scope, an end that has passed, or a quota that is none.
    """
    keys.check_name(name, what="token name")
    wanted = tuple(scope for scope in Scope if scope in set(scopes))
    if not wanted:
        raise InvalidInput(f"a token needs a scope; give one or more of {', '.join(Scope)}")
    if expires_at is not None and expires_at <= at:
        raise InvalidInput(
            f"the token would have expired at {expires_at:%Y-%m-%d %H:%M} UTC; choose a later end"
        )
    if max_searches is not None and max_searches < 1:
        raise InvalidInput(f"{max_searches} searches at once: give at least 1, or no quota")
    if max_search_s_per_day is not None and not 0 < max_search_s_per_day < float("inf"):
        raise InvalidInput(
            f"{max_search_s_per_day:g} search seconds a day: give a finite number above 0, or no quota"
        )
    if abs(max_priority) > MOST_PRIORITY:
        raise InvalidInput(
            f"priority {max_priority}: give a whole number from {-MOST_PRIORITY} to {MOST_PRIORITY}"
        )
    token_id = secrets.token_hex(4)
    secret = f"av_{token_id}_{secrets.token_urlsafe(32)}"
    token = Token(
        id=token_id,
        name=name,
        scopes=wanted,
        digest=digest(secret),
        created_at=at,
        expires_at=expires_at,
        max_searches=max_searches,
        max_search_s_per_day=max_search_s_per_day,
        max_priority=max_priority,
    )

    def added(known: TokenList) -> TokenList:
        if len(known.tokens) >= MAX_TOKENS:
            raise InvalidInput(f"the store has {MAX_TOKENS} tokens already; use another store")
        if any(other.id == token_id for other in known.tokens):
            raise InvalidInput("two tokens drew the same id, one chance in billions; create it again")
        return known.with_(tokens=(*known.tokens, token))

    records.create_or_read(store, keys.TOKENS, TokenList())
    records.update(store, keys.TOKENS, TokenList, added)
    return Created(secret, token)


def read(store: Store) -> tuple[Token, ...]:
    """Every token that was ever made, oldest first."""
    try:
        return records.read(store, keys.TOKENS, TokenList).tokens
    except KeyNotFound:
        return ()


def revoke(store: Store, which: str, at: datetime) -> list[Token]:
    """Revoke the token of that id, or every token of that name; those that are revoked now.

    Raises `NotFound`. Revoking a revoked one again changes nothing.
    """
    known = read(store)
    if not any(which in (token.id, token.name) for token in known):
        names = {token.name for token in known} | {token.id for token in known}
        raise NotFound(
            f"no token {which!r} in {store.uri}{near(which, names)}; `autovision token list` shows them"
        )

    def without(current: TokenList) -> TokenList:
        return current.with_(tokens=tuple(_revoked(token, which, at) for token in current.tokens))

    after = records.update(store, keys.TOKENS, TokenList, without)
    return [token for token in after.tokens if which in (token.id, token.name)]


def _revoked(token: Token, which: str, at: datetime) -> Token:
    if which not in (token.id, token.name) or token.revoked_at is not None:
        return token
    return token.with_(revoked_at=at)


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def find(known: Mapping[str, Token], presented: str) -> Token | None:
    """The token that was presented, valid or not; None if it is none of those known (id -> token).

    Takes the same time for any digest that is compared, so that no answer tells how much of one was right.
    """
    form = _FORM.fullmatch(presented)
    if form is None:
        return None
    token = known.get(form[1])
    same = hmac.compare_digest(digest(presented), token.digest if token is not None else _NO_DIGEST)
    return token if same else None
