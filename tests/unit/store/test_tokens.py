from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autovision.errors import InvalidInput, NotFound
from autovision.records.tokens import Scope
from autovision.store import MemoryStore, keys, tokens

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def known(store: MemoryStore) -> dict[str, tokens.Token]:
    return {token.id: token for token in tokens.read(store)}


def test_a_token_is_found_by_its_secret_which_is_stored_nowhere() -> None:
    store = MemoryStore()
    assert tokens.read(store) == ()
    made = tokens.create(store, "line-1", [Scope.FEEDBACK, Scope.PREDICT], NOON)
    other = tokens.create(store, "line-1", [Scope.ADMIN], NOON)
    assert made.token.scopes == (Scope.PREDICT, Scope.FEEDBACK)
    assert [token.name for token in tokens.read(store)] == ["line-1", "line-1"]
    assert tokens.find(known(store), made.secret) == made.token
    assert tokens.find(known(store), other.secret) == other.token
    stored = store.get(keys.TOKENS).data
    assert made.secret.encode() not in stored
    assert made.secret.split("_", 2)[2].encode() not in stored
    assert made.token.digest.encode() in stored


def test_whatever_differs_in_one_character_is_no_token() -> None:
    store = MemoryStore()
    made = tokens.create(store, "a", [Scope.PREDICT], NOON)
    other = tokens.create(store, "b", [Scope.PREDICT], NOON)
    for place in range(len(made.secret)):
        changed = "A" if made.secret[place] != "A" else "B"
        assert tokens.find(known(store), made.secret[:place] + changed + made.secret[place + 1 :]) is None
    mixed = other.secret[:12] + made.secret[12:]
    for presented in ("", mixed, made.secret + "x", made.secret[:-1], made.token.id, made.token.digest):
        assert tokens.find(known(store), presented) is None


@given(st.text(max_size=80))
def test_any_text_may_be_presented(text: str) -> None:
    assert tokens.find({}, text) is None


def test_a_token_ends_when_it_expires_or_is_revoked() -> None:
    store = MemoryStore()
    ends = NOON + timedelta(days=1)
    short = tokens.create(store, "short", [Scope.PREDICT], NOON, expires_at=ends).token
    assert short.is_valid(NOON) and not short.is_valid(ends)
    first = tokens.create(store, "line", [Scope.PREDICT], NOON).token
    second = tokens.create(store, "line", [Scope.PREDICT], NOON).token
    assert [token.id for token in tokens.revoke(store, first.id, NOON)] == [first.id]
    later = NOON + timedelta(hours=1)
    revoked = {token.id: token.revoked_at for token in tokens.revoke(store, "line", later)}
    assert revoked == {first.id: NOON, second.id: later}, "what was revoked stays revoked when it was"
    assert [token.id for token in tokens.read(store) if token.is_valid(later)] == [short.id]
    with pytest.raises(NotFound, match=r"'lime'.*did you mean 'line'"):
        tokens.revoke(store, "lime", NOON)


def test_what_makes_no_token_is_refused() -> None:
    store = MemoryStore()
    for name, scopes, ends, said in (
        ("a b", [Scope.PREDICT], None, "token name 'a b'"),
        ("a", [], None, "needs a scope"),
        ("a", [Scope.PREDICT], NOON, "have expired"),
    ):
        with pytest.raises(InvalidInput, match=said):
            tokens.create(store, name, scopes, NOON, expires_at=ends)
    assert tokens.read(store) == ()


def test_tokens_that_are_made_at_once_are_all_kept() -> None:
    store = MemoryStore()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: tokens.create(store, f"n{n}", [Scope.PREDICT], NOON), range(24)))
    assert {token.id for token in tokens.read(store)} == {each.token.id for each in made}
