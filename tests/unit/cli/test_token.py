from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from autovision.store import keys, open_store, tokens


def create(cli: Any, *options: object) -> Any:
    return cli("token", "create", "--name", "line-1", "--scope", "predict", *options)


def test_a_token_is_printed_once_and_works(cli: Any, tmp_path: Path) -> None:
    ran = create(cli, "--scope", "feedback", "--json")
    assert ran.code == 0 and "cannot be shown again" in ran.err
    made = ran.answer
    assert (made["name"], made["scopes"], made["expires_at"]) == ("line-1", ["predict", "feedback"], None)
    assert "digest" not in made
    store = open_store(tmp_path / "store")
    known = {token.id: token for token in tokens.read(store)}
    found = tokens.find(known, made["secret"])
    assert found is not None and found.id == made["id"]
    for listed in (cli("token", "list", "--json"), cli("token", "list")):
        assert made["id"] in listed.out and made["secret"] not in listed.out
    shown = create(cli)
    (line,) = shown.out.splitlines()
    assert line.startswith("av_") and line not in shown.err
    assert line.encode() not in store.get(keys.TOKENS).data


def test_tokens_are_listed_with_their_state_and_revoked_by_name_or_id(cli: Any) -> None:
    assert cli("token", "list", "--json").answer == []
    assert "no tokens" in cli("token", "list").out
    first = create(cli, "--expires-days", "2", "--json").answer
    second = create(cli, "--json").answer
    ends = datetime.fromisoformat(first["expires_at"])
    assert timedelta(days=1.9) < ends - datetime.now(UTC) <= timedelta(days=2)
    assert [each["id"] for each in cli("token", "revoke", first["id"], "--json").answer] == [first["id"]]
    listed = cli("token", "list")
    assert max(map(len, listed.out.splitlines())) <= 80
    rows = {line.split()[0]: line for line in listed.out.splitlines() if "line-1" in line}
    assert "revoked" in rows[first["id"]] and "valid" in rows[second["id"]]
    assert second["id"] in cli("token", "revoke", "line-1").out
    assert all(each["revoked_at"] for each in cli("token", "list", "--json").answer)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("create", "--name", "a", "--scope", "predikt"), 2, "did you mean 'predict'"),
        (("create", "--name", "a b", "--scope", "predict"), 2, "token name 'a b'"),
        (("create", "--name", "a", "--scope", "predict", "--expires-days", "0"), 2, "--expires-days is 0"),
        (
            ("create", "--name", "a", "--scope", "predict", "--expires-days", "nan"),
            2,
            "--expires-days is nan",
        ),
        (("create", "--name", "a", "--scope", "submit", "--max-priority", "11"), 2, "priority 11"),
        (("create", "--name", "a"), 2, "--scope"),
        (("revoke", "nobody"), 3, "'nobody'"),
    ],
)
def test_what_makes_no_sense_is_refused(cli: Any, options: tuple[str, ...], code: int, said: str) -> None:
    ran = cli("token", *options)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("error: ") and said in ran.err
