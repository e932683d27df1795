"""Who gets in: over real HTTP, with the store's tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import tritonclient.http as triton

from autovision.errors import InvalidInput
from autovision.records.tokens import Scope
from autovision.serving.auth import TokenBook
from autovision.serving.client import Client, NotAllowed, ServerUnavailable
from autovision.serving.problems import AccessUnknown
from autovision.store import tokens
from tests.unit.serving.worlds import World, check_problem, until

REQUEST_ID = "20260301T120000.000000-abcdef"
CLOSED = (
    *(("POST", "/v1/predict"), ("POST", "/v1/feedback"), ("GET", "/v1/model"), ("GET", "/metrics")),
    *(("GET", "/v2"), ("GET", "/v2/models/shades"), ("GET", "/v2/models/shades/versions/m1")),
    *(("GET", "/v2/models/shades/ready"), ("POST", "/v2/models/shades/infer"), ("POST", "/v2/repository/index")),
)  # fmt: skip
OPEN = ("/v1/health", "/v2/health/live", "/v2/health/ready")


class Door:
    """A world whose server asks for tokens, and the tokens of its store."""

    def __init__(self, world: World, clock: Any) -> None:
        self.world = world
        self.clock = clock
        self.book = TokenBook(world.store, refresh_s=0.01, clock=clock)

    def token(self, *scopes: Scope, **options: Any) -> str:
        """A new token that the server knows."""
        made = tokens.create(self.world.store, "line-1", scopes, self.clock.at, **options)
        until(lambda: (self.book._known or {}).get(made.token.id))
        return made.secret

    def revoke(self, which: str) -> None:
        tokens.revoke(self.world.store, which, self.clock.at)


@pytest.fixture
def door(world: World, clock: Any) -> Door:
    return Door(world, clock)


@pytest.fixture
def http(door: Door, serve: Callable[..., str]) -> Iterator[httpx.Client]:
    url = serve(door.world, book=door.book)
    door.world.promote("m1")
    with httpx.Client(base_url=url, trust_env=False) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_without_any_token_in_the_store_everyone_gets_in_and_the_log_says_so(
    http: httpx.Client, png: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert http.post("/v1/predict", content=png()).status_code == 200
    assert http.get("/metrics").status_code == 200
    assert any("no token" in record.getMessage() for record in caplog.get_records("setup"))


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_the_first_token_closes_every_route_but_health(
    http: httpx.Client, door: Door, method: str, path: str
) -> None:
    door.token(Scope.PREDICT, Scope.FEEDBACK, Scope.ADMIN)
    response = http.request(method, path, content=b"x" if method == "POST" else None)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="autovision"'
    said = response.json()
    assert "autovision token create" in (said["error"] if path.startswith("/v2") else said["detail"])
    for path in OPEN:
        assert http.get(path).status_code == 200


def test_a_token_opens_what_its_scopes_allow(http: httpx.Client, door: Door, png: Any) -> None:
    predict, feedback = bearer(door.token(Scope.PREDICT)), bearer(door.token(Scope.FEEDBACK))
    admin = bearer(door.token(Scope.ADMIN))
    label = {"request_id": REQUEST_ID, "label": "dark"}
    assert http.post("/v1/predict", content=png(), headers=predict).status_code == 200
    assert http.post("/v1/feedback", json=label, headers=feedback).status_code == 200
    assert http.get("/metrics", headers=admin).status_code == 200
    for token in (predict, feedback, admin):
        assert http.get("/v1/model", headers=token).status_code == 200
    refused = http.post("/v1/feedback", json=label, headers=predict)
    check_problem(refused, 403, "forbidden", "lacks the scope 'feedback'")
    assert 'error="insufficient_scope", scope="feedback"' in refused.headers["www-authenticate"]
    check_problem(http.post("/v1/predict", content=png(), headers=admin), 403, "forbidden", "'predict'")
    check_problem(http.get("/metrics", headers=predict), 403, "forbidden", "'admin'")
    response = http.post("/v2/models/shades/infer", content=png(), headers=feedback)
    assert (response.status_code, list(response.json())) == (403, ["error"])


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Basic eDp5", "bearer x", "Bearer av_00000000_" + "A" * 43, "Bearer \xff\xfe"],
)
def test_what_is_no_token_is_refused(http: httpx.Client, door: Door, header: str) -> None:
    door.token(Scope.PREDICT)
    raw = {b"authorization": header.encode("latin-1")}
    check_problem(http.get("/v1/model", headers=raw), 401, "unauthorized", "autovision token create")


def test_an_expired_token_is_refused(http: httpx.Client, door: Door) -> None:
    token = bearer(door.token(Scope.PREDICT, expires_at=door.clock.at + timedelta(days=1)))
    assert http.get("/v1/model", headers=token).status_code == 200
    door.clock.at += timedelta(days=1)
    response = http.get("/v1/model", headers=token)
    check_problem(response, 401, "unauthorized", "has expired")
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


def test_a_revocation_takes_effect_and_the_last_one_does_not_open_the_door(
    http: httpx.Client, door: Door
) -> None:
    token = bearer(door.token(Scope.PREDICT))
    assert http.get("/v1/model", headers=token).status_code == 200
    door.revoke("line-1")
    until(lambda: http.get("/v1/model", headers=token).status_code == 401)
    check_problem(http.get("/v1/model", headers=token), 401, "unauthorized", "was revoked")
    check_problem(http.get("/v1/model"), 401, "unauthorized")


def test_while_the_store_is_away_the_last_list_holds(http: httpx.Client, door: Door, png: Any) -> None:
    token = bearer(door.token(Scope.PREDICT))
    door.world.store.away = True
    until(lambda: http.get("/v1/model", headers=token).json()["following"]["error"])
    assert http.post("/v1/predict", content=png(), headers=token).status_code == 200
    check_problem(http.post("/v1/predict", content=png()), 401, "unauthorized")
    door.world.store.away = False


def test_a_server_that_never_read_the_tokens_lets_nobody_in(
    door: Door, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autovision.serving.app.TOKENS_WAIT_S", 0.05)
    door.world.store.away = True
    url = serve(door.world, book=door.book)
    with httpx.Client(base_url=url, trust_env=False) as http:
        response = http.get("/v1/model")
        check_problem(response, 503, "access-unknown")
        assert response.headers["retry-after"] == "2"
        assert http.get("/v2/health/live").status_code == 200
        door.world.store.away = False
        until(lambda: http.get("/v1/model").status_code == 200)


def test_a_token_can_be_demanded_where_the_store_has_none(world: World, serve: Callable[..., str]) -> None:
    url = serve(world, book=TokenBook(world.store, required=True))
    with httpx.Client(base_url=url, trust_env=False) as http:
        check_problem(http.get("/v1/model"), 401, "unauthorized")
        assert http.get("/v1/health").status_code == 503, "health needs none"


def test_no_token_gets_into_a_log(
    http: httpx.Client, door: Door, png: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="autovision")
    good = door.token(Scope.PREDICT)
    wrong = good[:-1] + ("A" if good[-1] != "A" else "B")
    for token in (good, wrong):
        http.post("/v1/predict", content=png(1, (1, 1)), headers=bearer(token))
        http.post("/v1/predict", content=b"x", headers=bearer(token))
    door.world.store.away = True
    until(lambda: "tokens cannot be read" in caplog.text)
    door.world.store.away = False
    assert "no variance" in caplog.text
    assert good not in caplog.text and wrong not in caplog.text
    assert good.rpartition("_")[2][:20] not in caplog.text


def test_clients_send_their_token(http: httpx.Client, door: Door, png: Any) -> None:
    url, token = str(http.base_url), door.token(Scope.PREDICT)
    with Client(url, token=token) as client:
        assert client.predict(png(200)).label == "bright"
        with pytest.raises(NotAllowed, match=r"lacks the scope 'feedback'.*HTTP 403"):
            client.feedback(REQUEST_ID, "dark")
    with Client(url) as client:
        assert client.health().status == "ready"
        with pytest.raises(NotAllowed, match="HTTP 401"):
            client.info()
    with triton.InferenceServerClient(url.partition("//")[2].rstrip("/")) as client:
        assert not client.is_model_ready("shades")
        assert client.is_model_ready("shades", headers=bearer(token))


def test_a_book_that_is_not_read_yet_refuses() -> None:
    from autovision.store import MemoryStore

    with pytest.raises(AccessUnknown):
        TokenBook(MemoryStore()).caller(None, None)
    assert not issubclass(NotAllowed, InvalidInput | ServerUnavailable)
