"""Ten thousand connections that say nothing, or stop half-way, keep nobody out. They take 20,000 open files."""

from __future__ import annotations

import io
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest
from PIL import Image

from autovision.serving.edge.haproxy import binary

CONNECTIONS = 10_000
BEGUN = (b"", b"POST /v1/predict HTT", b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")

SERVER = """
import resource, sys, tempfile, time
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
from tests.unit.serving.conftest import Brightness, Clock, version
from tests.unit.serving.edge.conftest import plan
from tests.unit.serving.worlds import World, until
from autovision.serving.app import build_app
from autovision.serving.edge.haproxy import HAProxy, binary, room_socket
from autovision.serving.edge.room import Room
from autovision.serving.limits import Limits
from autovision.serving.listener import Listener
world = World(lambda model, threshold: Brightness(version(model), threshold), Clock())
limits = Limits(body_timeout_s=600.0)
planned, folder = plan("shades", limits=limits), Path(tempfile.mkdtemp(prefix="av-"))
world.promote("m1", wait=False)
replica = Listener(build_app(world.engine, limits=limits, settle_s=30.0), folder / "a.sock")
room = Listener(Room(planned, None, lambda name: None).app, room_socket(folder))
for each in (replica, room):
    each.start()
    until(lambda: each.listening)
proxy = HAProxy(planned, folder, binary())
proxy.start()
proxy.sync({"shades": {"a": f"unix@{folder / 'a.sock'}"}})
print(planned.port, proxy._process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def edge() -> Iterator[tuple[int, psutil.Process]]:
    """The port of a server in a process of its own, so that each end may have its files, and HAProxy's process."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        port, pid = server.stdout.readline().split()
        yield int(port), psutil.Process(int(pid))
    finally:
        server.terminate()
        server.wait(20)
        server.stdout.close()


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 200).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.skipif(binary() is None, reason="there is no HAProxy for this kind of machine")
def test_ten_thousand_idle_connections(edge: tuple[int, psutil.Process]) -> None:
    port, haproxy = edge
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = CONNECTIONS + 500
    if hard != resource.RLIM_INFINITY and hard < enough:
        pytest.skip(f"this user may open {hard} files, and {enough} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))
    idle: list[socket.socket] = []
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as http:
            deadline = time.monotonic() + 30
            while http.get("/v1/health").status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            for number in range(CONNECTIONS):
                idle.append(socket.create_connection(("127.0.0.1", port), timeout=30))
                idle[-1].sendall(BEGUN[number % 3])
                if number % 1000 == 999:
                    assert http.post("/v1/predict", content=png()).status_code == 200
            for _ in range(100):
                assert http.post("/v1/predict", content=png()).status_code == 200
        held_mib = haproxy.memory_info().rss / 2**20
        print(f"HAProxy holds {held_mib:.0f} MiB with {CONNECTIONS} connections")
        assert held_mib < 600
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as newcomer:
            assert newcomer.post("/v1/predict", content=png()).status_code == 200
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
