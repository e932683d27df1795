"""`cluster/as-node.sh` on a real cluster with a token: a controller on a node of its own, which ends with it."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

SCRIPT = Path(__file__).parents[2] / "cluster" / "as-node.sh"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(done: Callable[[], object]) -> None:
    while not done():
        time.sleep(0.2)


@contextmanager
def started(command: Sequence[object], **options: object) -> Iterator[subprocess.Popen[str]]:
    """A process that is gone at the end of the block, with all that it has started, whatever the test found."""
    process = subprocess.Popen([str(part) for part in command], text=True, **options)  # type: ignore[call-overload]
    below: list[psutil.Process] = []
    try:
        yield process
    finally:
        if process.poll() is None:
            below = psutil.Process(process.pid).children(recursive=True)
            process.kill()
        for each in below:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.communicate()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The dashboard's URL of a head with a token; `RAY_ADDRESS` is its GCS."""
    port, dashboard = free_port(), free_port()
    for name, value in {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }.items():
        monkeypatch.setenv(name, value)
    command = [
        *(
            "ray",
            "start",
            "--head",
            "--block",
            "--node-ip-address=127.0.0.1",
            f"--port={port}",
            "--num-cpus=1",
        ),
        *(f"--dashboard-port={dashboard}", "--disable-usage-stats"),
    ]
    with (
        (tmp_path / "head.log").open("wb") as log,
        started(command, stdout=log, stderr=log, env={**os.environ, "RAY_ADDRESS": ""}) as head,
    ):
        url = f"http://127.0.0.1:{dashboard}"

        def answers() -> bool:
            assert head.poll() is None, (tmp_path / "head.log").read_text()
            try:
                return httpx.get(f"{url}/api/gcs_healthz", trust_env=False).is_success
            except httpx.TransportError:
                return False

        wait_until(answers)
        yield url
        head.terminate()
        head.wait()


def nodes(url: str) -> list[dict[str, float]]:
    """What each node that lives has."""
    headers = {"authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    found = httpx.get(f"{url}/api/v0/nodes", headers=headers, trust_env=False, timeout=60).json()
    return [each["resources_total"] for each in found["data"]["result"]["result"] if each["state"] == "ALIVE"]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where nodes put their files: a path that is short enough for the addresses of their sockets."""
    with tempfile.TemporaryDirectory(prefix="as-node-", dir="/tmp") as made:
        monkeypatch.setenv("TMPDIR", made)
        yield Path(made)


def test_a_controller_has_a_node_that_takes_no_work_and_ends_with_it(
    cluster: str, folder: Path, tmp_path: Path
) -> None:
    assert httpx.get(f"{cluster}/api/v0/nodes", trust_env=False).status_code == 401
    port = free_port()
    python = [sys.executable, "-c", "from autovision.cli.main import main; main()"]
    words = ["controller", "run", "--store", str(tmp_path / "store"), "--metrics-port", str(port)]
    with started([SCRIPT, *python, *words]) as ran:

        def tells() -> bool:
            assert ran.poll() is None
            try:
                return "autovision_searches" in httpx.get(f"http://127.0.0.1:{port}", trust_env=False).text
            except httpx.TransportError:
                return False

        wait_until(tells)
        assert sorted(each.get("CPU", 0.0) for each in nodes(cluster)) == [0.0, 1.0]
        ran.send_signal(signal.SIGTERM)
        assert ran.wait() == 143
    wait_until(lambda: len(nodes(cluster)) == 1)
    assert list(folder.glob("node-*")) == []


def test_a_node_ends_with_its_command_and_a_command_with_its_node(cluster: str, folder: Path) -> None:
    connect = "import ray, sys; ray.init(logging_level='error'); sys.exit(len(ray.nodes()) + 40)"
    assert subprocess.run([SCRIPT, sys.executable, "-c", connect], check=False).returncode == 42
    wait_until(lambda: len(nodes(cluster)) == 1)
    with started([SCRIPT, "sleep", "600"], stderr=subprocess.PIPE) as ran:
        wait_until(lambda: len(nodes(cluster)) == 2)
        below = psutil.Process(ran.pid).children(recursive=True)
        [raylet] = [each for each in below if each.name() == "raylet"]
        [sleep] = [each for each in below if each.name() == "sleep"]
        raylet.kill()
        assert ran.wait() == 1
        assert ran.stderr is not None and "ended; so does what ran on it" in ran.stderr.read()
        assert not sleep.is_running()


def test_a_cluster_that_is_not_there_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    ran = subprocess.run([SCRIPT, "true"], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "no node of 127.0.0.1" in ran.stderr
