"""Who may do what, what is kept of it, and what no answer gives away."""

from __future__ import annotations

import logging
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from autovision.records.service import AuditEntry
from autovision.records.tokens import Scope
from autovision.service.app import build_app
from autovision.service.server import ServiceServer
from autovision.store import MemoryStore, keys, records, tokens
from tests.unit.service.conftest import World, check_problem, made, until

OPEN = ("/api/v1/health/live", "/api/v1/health/ready")
BODIES: dict[str, Any] = {
    "/api/v1/searches": {"dataset": "pets"},
    "/api/v1/searches/{search}/resume": {},
    "/api/v1/deployments/{deployment}/promote": {"model": "m-1"},
    "/api/v1/deployments/{deployment}/approve": {"model": "m-1"},
    "/api/v1/deployments/{deployment}/reject": {"model": "m-1"},
}
"""what a route takes, so that nothing but the token is wrong"""


def routes() -> list[tuple[str, str]]:
    paths = build_app(MemoryStore()).api.openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def needed(method: str, path: str) -> Scope | None:
    """The scope that a route has to ask for, by what it is about."""
    if path == "/api/v1/me":
        return None
    if path.split("/")[3] in ("tokens", "audit", "metrics"):
        return Scope.ADMIN
    if method == "GET":
        return Scope.READ
    return Scope.SUBMIT if "/searches" in path else Scope.PROMOTE


def ask(world: World, method: str, path: str, headers: dict[str, str] | None) -> Any:
    url = path.replace("{", "no-").replace("}", "")
    return world.http.request(method, url, json=BODIES.get(path), headers=headers)


@pytest.mark.parametrize(("method", "path"), routes())
def test_every_route_but_health_asks_for_its_scope_and_no_other(world: World, method: str, path: str) -> None:
    if path in OPEN:
        assert ask(world, method, path, None).status_code == 200
        return
    refused = ask(world, method, path, None)
    check_problem(refused, 401, "unauthorized")
    assert refused.headers["www-authenticate"] == 'Bearer realm="autovision"'
    scope = needed(method, path)
    right = world.token(*(Scope if scope is None else (scope,)), name="right")
    assert ask(world, method, path, right).status_code in (200, 202, 404, 422)
    if scope is not None:
        wrong = world.token(*(each for each in Scope if each is not scope), name="wrong")
        check_problem(ask(world, method, path, wrong), 403, "forbidden")


def test_tokens_that_are_none_expired_or_revoked_are_refused(world: World) -> None:
    good = world.token(Scope.READ)
    made_up = {"authorization": "Bearer av_00000000_" + "a" * 43}
    expired = world.token(Scope.READ, expires_at=datetime.now(UTC) + timedelta(milliseconds=1))
    for headers in (
        made_up,
        expired,
        {"authorization": "Basic YTpi"},
        {"authorization": "Bearer é".encode()},
    ):
        check_problem(world.http.get("/api/v1/searches", headers=headers), 401, "unauthorized")
    assert world.http.get("/api/v1/searches", headers=good).status_code == 200
    tokens.revoke(world.store, "ann", datetime.now(UTC))
    until(lambda: world.http.get("/api/v1/searches", headers=good).status_code == 401)


def test_a_token_is_listed_without_what_it_takes_to_use_it_and_revoked(world: World) -> None:
    admin, reader = world.token(Scope.ADMIN, name="root"), world.token(Scope.READ, max_searches=3)
    listed = world.http.get("/api/v1/tokens", headers=admin).json()["items"]
    assert [(each["name"], each["max_searches"]) for each in listed] == [("root", None), ("ann", 3)]
    assert all("digest" not in each for each in listed)
    (revoked,) = world.http.post("/api/v1/tokens/ann/revoke", headers=admin).json()["revoked"]
    assert revoked["revoked_at"] is not None
    until(lambda: world.http.get("/api/v1/me", headers=reader).status_code == 401)
    check_problem(world.http.post("/api/v1/tokens/nobody/revoke", headers=admin), 404, "not-found")


def test_overruling_the_gates_takes_an_admin(world: World) -> None:
    order = {"model": "m-1", "force": True}
    url = "/api/v1/deployments/door/promote"
    assert (
        "'admin'"
        in check_problem(
            world.http.post(url, json=order, headers=world.token(Scope.PROMOTE)), 403, "forbidden"
        )["detail"]
    )
    both = world.token(Scope.PROMOTE, Scope.ADMIN, name="root")
    check_problem(world.http.post(url, json=order, headers=both), 404, "not-found")


def entries(store: Any) -> list[AuditEntry]:
    return records.read_all(store, keys.AUDIT, AuditEntry)


def test_the_audit_log_says_who_did_what_and_what_came_of_it(world: World) -> None:
    ann, admin = world.token(Scope.SUBMIT, Scope.READ), world.token(Scope.ADMIN, name="root")
    made = world.submit(ann).json()
    world.submit(ann, budget_s=-1)
    world.submit(admin)
    world.http.post(f"{made['url']}/stop", headers=ann)
    world.http.get("/api/v1/searches", headers=ann)
    world.submit(None)
    found = world.http.get("/api/v1/audit", headers=admin).json()["items"]
    assert [(e["by"], e["action"], e["subject"], e["status"], e.get("problem")) for e in found] == [
        ("ann", "search.submit", made["search"], 202, None),
        ("ann", "search.submit", None, 422, "invalid"),
        ("root", "search.submit", None, 403, "forbidden"),
        ("ann", "search.stop", made["search"], 200, None),
    ]
    assert found[0]["token"] == tokens.read(world.store)[0].id and found[0]["client"] == "testclient"
    day = f"{datetime.now(UTC):%Y%m%d}"
    assert len(world.http.get("/api/v1/audit", params={"day": day}, headers=admin).json()["items"]) == 4
    assert world.http.get("/api/v1/audit", params={"day": "20200101"}, headers=admin).json()["items"] == []
    first = world.http.get("/api/v1/audit", params={"limit": 3}, headers=admin).json()
    rest = world.http.get("/api/v1/audit", params={"cursor": first["next"]}, headers=admin).json()
    assert first["items"] + rest["items"] == found and rest["next"] is None


def test_no_token_is_found_in_records_logs_or_answers(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ann, admin = world.token(Scope.SUBMIT, Scope.READ), world.token(Scope.ADMIN, name="root")
    key = {"idempotency-key": "k1"}
    answers = [
        world.submit(ann | key),
        world.submit(ann | key, seed=1),
        world.submit(ann, space="os:system"),
        world.http.get("/api/v1/me", headers=ann),
        world.http.get("/api/v1/nothing", headers=ann),
        world.http.get("/api/v1/audit", headers=ann),
        world.http.get("/api/v1/audit", headers=admin),
        world.http.get("/api/v1/tokens", headers=admin),
        world.http.get("/api/v1/searches", headers={"authorization": ann["authorization"] + "x"}),
    ]
    told = "".join(f"{each.text}{dict(each.headers)}" for each in answers) + caplog.text
    stored = b"".join(world.store.get(each).data for each in world.store.list())
    for secret in world.secrets:
        random = secret.rpartition("_")[2]
        assert random not in told and random.encode() not in stored


def test_every_answer_has_an_id_and_forbids_what_a_browser_could_do(world: World) -> None:
    asked = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    answers = [
        world.http.get("/api/v1/health/live", headers=asked),
        world.http.get("/api/v1/searches", headers=asked),
        world.http.options("/api/v1/searches", headers=asked),
        world.http.get("/nowhere"),
        world.http.post("/api/v1/searches", content=b"{", headers={"content-type": "application/json"}),
    ]
    ids = {each.headers["x-request-id"] for each in answers}
    assert len(ids) == len(answers)
    for each in answers:
        assert each.headers["x-content-type-options"] == "nosniff"
        assert each.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in each.headers["content-security-policy"]
        assert not [name for name in each.headers if name.startswith("access-control-")]
    assert answers[2].status_code == 405 and set(answers[2].headers["allow"].split(", ")) == {"GET", "POST"}


def test_a_page_in_a_browser_cannot_act_and_cannot_lead_its_name_here(store: Any) -> None:
    with TestClient(made(store, required=False), base_url="http://127.0.0.1:8080") as http:
        elsewhere = {"origin": "https://elsewhere.example"}
        refused = http.post("/api/v1/searches", json={"dataset": "pets"}, headers=elsewhere)
        check_problem(refused, 403, "cross-origin")
        check_problem(http.post("/api/v1/tokens/ann/revoke", headers=elsewhere), 403, "cross-origin")
        assert http.get("/api/v1/searches").json()["items"] == []
    local = build_app(store, local=True)
    for host in ("127.0.0.1:8080", "localhost", "[::1]:8080"):
        with TestClient(local, base_url=f"http://{host}") as http:
            assert http.get("/api/v1/searches").status_code == 200
    with TestClient(local, base_url="http://rebound.example:8080") as http:
        check_problem(http.get("/api/v1/searches"), 403, "wrong-host")


def test_an_unexpected_fault_gives_nothing_away_and_is_logged_under_the_request_id(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    headers = world.token(Scope.READ)

    def fail(*args: Any) -> None:
        raise ZeroDivisionError("a secret\nof the inside")

    monkeypatch.setattr(world.store, "list", fail)
    world.http._transport.raise_server_exceptions = False  # type: ignore[attr-defined]
    response = world.http.get("/api/v1/searches", headers=headers)
    problem = check_problem(response, 500, "internal")
    assert "secret" not in response.text
    logged = [
        record.getMessage() for record in caplog.records if problem["request_id"] in record.getMessage()
    ]
    assert logged and "\n" not in logged[0] and "ZeroDivisionError" in logged[0]


def test_connections_on_which_nobody_asks_are_given_up(
    server: ServiceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the 20 s for which one is kept after an answer, and long before the client's own patience ends."""
    whole = b"GET /api/v1/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    def closed(client: socket.socket) -> bool:
        return client.recv(65536) == b""

    def connect() -> socket.socket:
        return socket.create_connection((server.host, server.port), timeout=15)

    with connect() as asked:
        asked.sendall(whole)
        found = b""
        while b'"live"' not in found:
            found += asked.recv(65536)
        monkeypatch.setattr("autovision.service.server.HEAD_S", 0.05)
        asked.sendall(whole[:20])
        assert closed(asked)
    with connect() as silent:
        assert closed(silent)
    with connect() as slow:
        slow.sendall(whole[:20])
        assert closed(slow)
