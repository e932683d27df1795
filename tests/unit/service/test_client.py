"""The client, and the commands with --address, against a real server on loopback."""

from __future__ import annotations

import json
import ssl
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from autovision.cli.main import run
from autovision.errors import Conflict, InvalidInput, NotFound
from autovision.records.searches import SearchStatus
from autovision.records.tokens import Scope
from autovision.search import requests
from autovision.service.client import (
    QuotaExceeded,
    ServiceClient,
    ServiceUnavailable,
    token_of,
)
from autovision.service.schema import SearchDeclaration
from autovision.service.server import ServiceServer
from autovision.serving.client import NotAllowed
from autovision.serving.tls import Tls
from autovision.store import tokens
from tests.unit.service.conftest import made, until
from tests.unit.service.test_events import end, trial
from tests.unit.serving.worlds import self_signed


@pytest.fixture
def cli(
    server: ServiceServer, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Any:
    """Run a command on the server; its exit code, stdout and stderr."""
    for name in ("AUTOVISION_ADDRESS", "AUTOVISION_TOKEN", "AUTOVISION_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)

    def line(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run([*map(str, arguments), "--address", server.url])
        return (code, *capfd.readouterr())

    return line


def test_a_search_is_submitted_looked_at_stopped_and_resumed(cli: Any, store: Any) -> None:
    code, out, err = cli(
        "search", "submit", "pets", "--budget-s", "30", "--seed", "4", "--license", "Apache-2.0", "--json"
    )
    made = json.loads(out)
    assert (code, err, made["status"]) == (0, "", "queued")
    request, _ = requests.get(store, made["search"])
    assert (request.budget_s, request.seed, request.licenses) == (30.0, 4, ("apache-2.0",))
    end(store, trial(request.id, 0, 0.75))
    assert request.id in cli("search", "list")[1]
    assert request.id in cli("search", "queue")[1]
    shown = cli("search", "show", request.id)[1]
    assert "anonymous" in shown and "0.7500" in shown
    assert json.loads(cli("search", "show", request.id, "--json")[1])["trial_results"][0]["value"] == 0.75
    assert "0.7500" in cli("search", "explain", request.id)[1]
    assert "is stopped" in cli("search", "stop", request.id)[1]
    assert "is queued" in cli("search", "resume", request.id, "--budget-s", "5")[1]
    assert requests.get(store, request.id)[1].budget_s == 5.0 + 0.0
    assert "pets" in cli("dataset", "list")[1]


@pytest.mark.parametrize(
    "body",
    [
        b"<html>log in</html>",
        b"[]",
        b'{"items": 3}',
        b'{"items": [{"what": 1}], "next": null}',
        b'{"items": [], "next": "YQ"}',
        b"\xff\xfe",
    ],
)
def test_answers_that_are_none_of_the_service_are_told_as_such(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a proxy with a login page, or of a server that gives the same part of a list for ever."""
    monkeypatch.setattr("autovision.service.client._PAUSE_S", 0.001)

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with ServiceClient(f"http://127.0.0.1:{server.server_port}") as client:
            for ask in (client.searches, client.me, lambda: list(client.follow("pets-1a2b3c4d5e6f"))):
                with pytest.raises(ServiceUnavailable, match=r"what http://127.0.0.1:[0-9]+ answered is n"):
                    ask()
        server.shutdown()


def test_the_same_key_submits_once(cli: Any, store: Any) -> None:
    lines = [
        cli("search", "submit", "pets", "--again", "--idempotency-key", "k", "--json")[1] for _ in range(2)
    ]
    assert lines[0] == lines[1] and json.loads(lines[0])["created"] is True


def test_code_of_ones_own_is_read_here_and_travels_as_data(cli: Any, store: Any, tmp_path: Path) -> None:
    (tmp_path / "my_space_for_the_service.py").write_text(
        "from autovision.space import Float, Space\n\n\nclass Mine(Space):\n    lr = Float(1e-4, 1e-2)\n"
    )
    search = json.loads(
        cli("search", "submit", "pets", "--space", "my_space_for_the_service:Mine", "--json")[1]
    )["search"]
    assert requests.get(store, search)[0].space["name"] == "Mine"
    # A sampler is code, and nothing but code.
    code, _, err = cli("search", "submit", "pets", "--sampler", "optuna.samplers:RandomSampler")
    assert code == 2 and "sampler" in err


def test_watching_ends_when_the_search_does(cli: Any, store: Any) -> None:
    search = json.loads(cli("search", "submit", "pets", "--json")[1])["search"]

    def go_on(status: SearchStatus, **state: Any) -> threading.Thread:
        def later() -> None:
            time.sleep(0.3)
            requests.set_state(store, search, status=status, **state)

        worker = threading.Thread(target=later)
        worker.start()
        return worker

    end(store, trial(search, 0, 0.75))
    worker = go_on(SearchStatus.STOPPED)
    code, out, err = cli("search", "watch", search)
    worker.join()
    assert code == 0 and "stopped" in out and "best accuracy 0.7500" in err
    requests.set_state(store, search, status=SearchStatus.QUEUED)
    worker = go_on(SearchStatus.FAILED, error="no trial gave a model")
    code, out, _ = cli("search", "submit", "pets", "--wait", "--json")
    worker.join()
    assert code == 1 and json.loads(out)["error"] == "no trial gave a model"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (("search", "show", "nothing"), 3, "no search 'nothing'"),
        (("search", "show", "../x"), 3, "no such path"),
        (("search", "submit", "pest"), 3, "did you mean 'pets'"),
        (("search", "submit", "pets", "--budget-s", "-1"), 2, "budget_s is -1.0"),
        (("search", "submit", "pets", "--space", "missing.json"), 2, "missing.json"),
        (("search", "submit", "pets", "--dry-run"), 2, "--dry-run"),
        (("search", "explain", "x", "--html", "why.html"), 2, "--html"),
        (("rollback", "door"), 3, "no deployment 'door'"),
        (("promote", "m-1", "--to", "door"), 3, "no model 'm-1'"),
        (("rollout", "approve", "door", "m-1"), 3, "no deployment 'door'"),
        (("controller", "why", "door"), 3, "no deployment 'door'"),
    ],
)  # fmt: skip
def test_what_the_service_refuses_is_an_error_with_its_code(
    cli: Any, line: tuple[str, ...], code: int, said: str
) -> None:
    found, out, err = cli(*line)
    assert (found, out) == (code, "") and err.startswith("error: ") and said in err


def test_a_token_comes_from_a_file_or_the_environment_and_is_shown_nowhere(
    store: Any, server: ServiceServer, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tokens.create(store, "ann", [Scope.READ], datetime.now(UTC), max_searches=1).secret
    until(lambda: httpx.get(f"{server.url}/api/v1/me", trust_env=False, timeout=120).status_code == 401)
    code, _, err = cli("search", "list")
    assert code == 2 and "needs a token" in err
    (tmp_path / "token").write_text(f"{secret}\n")
    assert cli("search", "list", "--token-file", tmp_path / "token")[0] == 0
    monkeypatch.setenv("AUTOVISION_TOKEN", secret)
    assert cli("search", "list")[0] == 0
    code, _, err = cli("search", "submit", "pets")
    assert code == 2 and "'submit'" in err and secret not in err
    (tmp_path / "empty").write_text("\n")
    for bad in ("empty", "missing"):
        with pytest.raises(InvalidInput, match=bad):
            token_of(tmp_path / bad)


def test_errors_have_types(store: Any, server: ServiceServer) -> None:
    secret = tokens.create(store, "ann", [Scope.READ, Scope.SUBMIT], datetime.now(UTC), max_searches=1).secret
    with ServiceClient(server.url, secret) as client:
        until(lambda: client.me().name == "ann")
        assert client.me().left.searches == 1
        made = client.submit(SearchDeclaration(dataset="pets"))
        with pytest.raises(QuotaExceeded, match="try again in"):
            client.submit(SearchDeclaration(dataset="pets", seed=1))
        with pytest.raises(NotFound):
            client.search("nothing")
        with pytest.raises(NotAllowed):
            client.roll_back("door")
        with pytest.raises(InvalidInput):
            client.submit(SearchDeclaration(dataset="pets", metric="nonsense"))
        held = requests.get(store, made.search)[1]
        assert held.status is SearchStatus.QUEUED
        requests.set_state(store, made.search, status=SearchStatus.RUNNING)
        with pytest.raises(Conflict):
            client.resume(made.search, 10.0)
        requests.set_state(store, made.search, status=SearchStatus.QUEUED)
        assert client.resume(made.search, max_trials=3).max_trials == 3


@pytest.mark.parametrize(
    "address",
    [
        "vision.example",
        "ftp://x",
        "http://",
        "http://x:99999",
        "https://u:p@x",
        "http://x/other",
        "http://x?y=1",
    ],
)
def test_an_address_is_checked_and_a_password_is_not_repeated(address: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ServiceClient(address)
    assert "u:p" not in str(refused.value)


def test_a_token_that_can_be_read_on_its_way_is_told_of() -> None:
    assert ServiceClient("http://vision.example:8080", "t").exposed
    assert not ServiceClient("https://vision.example:8080", "t").exposed
    assert not ServiceClient("http://127.0.0.1:8080", "t").exposed


def test_nobody_there_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autovision.service.client._PAUSE_S", 0.0)
    with (
        ServiceClient("http://127.0.0.1:9") as client,
        pytest.raises(ServiceUnavailable, match="service run"),
    ):
        client.searches()


def test_it_answers_over_tls_alone_where_it_has_a_certificate(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = made(store, required=False)
    tls = Tls(*self_signed(tmp_path))
    with ServiceServer(service, "127.0.0.1", 0, tls) as server:
        assert server.url.startswith("https://")
        trusted = ssl.create_default_context(cafile=tls.cert)
        with httpx.Client(verify=trusted, trust_env=False, timeout=120) as http:
            url = server.url.replace("127.0.0.1", "localhost")
            answer = http.get(f"{url}/api/v1/health/ready")
            assert answer.json()["status"] == "ready"
            assert answer.headers["strict-transport-security"].startswith("max-age=")
        with ServiceClient(server.url) as client:
            monkeypatch.setattr("autovision.service.client._PAUSE_S", 0.0)
            with pytest.raises(ServiceUnavailable, match="certificate"):
                client.searches()
