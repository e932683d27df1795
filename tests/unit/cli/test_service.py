"""`autovision service`: a real process that answers until it is told to stop, and what it wrote down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from autovision.store import open_store, tokens

ROOT = Path(__file__).parents[3]


def test_a_service_answers_until_it_is_stopped_and_what_was_done_is_shown(cli: Any, tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    made = json.loads(
        cli("token", "create", "--name", "ann", "--scope", "admin", "--max-searches", 2, "--json").out
    )
    assert (made["scopes"], made["max_searches"]) == (["admin"], 2)
    run = "import sys; from autovision.cli.main import run; sys.exit(run(sys.argv[1:]))"
    words = ["service", "run", "--port", "0", "--store", str(tmp_path / "store"), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", run, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1] != "}\n":
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()[1]
        url = json.loads("".join(lines))["url"]
        assert url.startswith("http://127.0.0.1:")
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
            assert http.get("/api/v1/health/ready").json()["status"] == "ready"
            assert http.post("/api/v1/tokens/ann/revoke").status_code == 401
            headers = {"authorization": f"Bearer {made['secret']}"}
            assert http.post("/api/v1/tokens/ann/revoke", headers=headers).status_code == 200
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.kill()
    assert (process.returncode, out) == (0, "") and "stopping" in err and made["secret"] not in err
    (entry,) = cli("service", "audit", "--json").answer
    assert (entry["by"], entry["action"], entry["subject"], entry["status"]) == (
        "ann",
        "token.revoke",
        "ann",
        200,
    )
    assert "token.revoke" in cli("service", "audit", "--day", f"{entry['at'][:10]}".replace("-", "")).out
    assert cli("service", "audit", "--day", "20200101", "--json").answer == []
    assert tokens.read(store)[0].revoked_at is not None and tokens.read(store)[0].revoked_at <= datetime.now(
        UTC
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("run", "--tls-cert", "a.pem"), "--tls-key"),
        (("run", "--port", "99999"), "99999"),
        (("run", "--port", "0", "--tls-cert", "a.pem", "--tls-key", "b.pem"), "a.pem"),
        (("audit", "--day", "yesterday"), "20261127"),
    ],
)
def test_what_makes_no_sense_is_refused(cli: Any, options: tuple[str, ...], said: str) -> None:
    ran = cli("service", *options)
    assert (ran.code, ran.out) == (2, "") and said in ran.err
