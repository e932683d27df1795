from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from autovision.cli.controller import _metrics, _watched
from autovision.controller import Controller
from autovision.store import open_store


def test_a_controller_tells_prometheus_while_it_runs(tmp_path: Path) -> None:
    begun, seen = threading.Event(), []
    store = open_store(tmp_path / "store")

    def stopping() -> bool:
        begun.set()
        return bool(seen)

    controller = _watched(Controller(store, should_stop=stopping))
    before = controller.should_stop.seen_at  # type: ignore[attr-defined]
    with _metrics(controller, "127.0.0.1", 0) as url:
        thread = threading.Thread(target=lambda: list(controller.run(interval_s=0.05)))
        thread.start()
        assert begun.wait(20)
        answer = httpx.get(url)
        seen.append(answer.text)
        thread.join(20)
    assert answer.status_code == 200
    lines = dict(line.rsplit(" ", 1) for line in seen[0].splitlines() if not line.startswith("#"))
    assert lines['autovision_searches{status="failed"}'] == "0.0"
    assert lines["autovision_store_reachable"] == "1.0"
    assert float(lines["autovision_controller_seen_timestamp_seconds"]) >= before
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_a_port_in_use_is_refused_before_the_controller_leads(cli: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = cli("controller", "run", "--once", "--metrics-port", taken.getsockname()[1])
    assert refused.code == 2
    assert "is in use" in refused.err


def test_metrics_do_not_disturb_json(cli: Any) -> None:
    ran = cli("controller", "run", "--once", "--metrics-port", 0, "--json")
    assert (ran.code, json.loads(ran.out)) == (0, [])
    assert "metrics for Prometheus at http://127.0.0.1:" in ran.err
