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
import pytest
from PIL import Image

CONNECTIONS = 10_000
BEGUN = (b"", b"POST /v1/predict HTT", b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")

SERVER = """
import resource, sys, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
import uvicorn
from tests.unit.serving.conftest import Brightness, Clock, version
from tests.unit.serving.worlds import World
from autovision.serving.app import build_app
from autovision.serving.limits import Limits
world = World(lambda model, threshold: Brightness(version(model), threshold), Clock())
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
app = build_app(world.engine, limits=Limits(body_timeout_s=600.0))
import threading
threading.Timer(1.0, world.promote, ["m1"]).start()
uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on")).run([listener])
"""


@pytest.fixture
def port() -> Iterator[int]:
    """A server in a process of its own, so that each end may have its files."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline())
    finally:
        server.terminate()
        server.wait(20)
        server.stdout.close()


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 200).save(buffer, "PNG")
    return buffer.getvalue()


def test_ten_thousand_idle_connections(port: int) -> None:
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
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as newcomer:
            assert newcomer.post("/v1/predict", content=png()).status_code == 200
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
