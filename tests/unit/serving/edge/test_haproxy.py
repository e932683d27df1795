"""HAProxy itself, in front of replicas on sockets."""

from __future__ import annotations

import io
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.http as triton
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tritonclient.utils import InferenceServerException

from autovision.serving.app import build_app
from autovision.serving.edge import haproxy
from autovision.serving.edge.haproxy import BUFFER_BYTES, HAProxy, ProxyFailed, room_socket
from autovision.serving.edge.plan import EdgePlan
from autovision.serving.limits import Limits
from autovision.serving.listener import Listener
from tests.unit.serving.edge.conftest import Replica, plan, said
from tests.unit.serving.worlds import World, self_signed, until

PROGRAM = haproxy.binary()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no HAProxy for this kind of machine")


@contextmanager
def running(
    planned: EdgePlan, folder: Path, told: Callable[[str], None] = lambda kind: None
) -> Iterator[tuple[HAProxy, httpx.Client]]:
    assert PROGRAM is not None
    room = Listener(said("room"), room_socket(folder), stop_s=2)
    room.start()
    until(lambda: room.listening)
    proxy = HAProxy(planned, folder, PROGRAM, told)
    proxy.start()
    try:
        url = f"http://127.0.0.1:{planned.port}"
        with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
            yield proxy, client
    finally:
        proxy.stop()
        room.close()
        assert not proxy.alive


def test_replicas_come_and_go_and_the_room_stands_in(place: Path, replica: Replica) -> None:
    with running(plan("pets"), place) as (proxy, client):
        assert client.get("/v1/model").json()["by"] == "room"
        (_, at_a), (_, at_b) = replica("a"), replica("b")
        proxy.sync({"pets": {"a": at_a, "b": at_b}})
        assert {client.post("/v1/predict", content=b"x").json()["by"] for _ in range(6)} == {"a", "b"}
        assert client.get("/metrics").json()["by"] == "room"
        proxy.sync({"pets": {"b": at_b}})
        assert {client.get("/v1/model").json()["by"] for _ in range(4)} == {"b"}
        proxy.sync({"pets": {}})
        asked = client.get("/v1/model?a=b").json()
        assert (asked["by"], asked["headers"]["x-autovision-deployment"]) == ("room", "pets")
        proxy.sync({"pets": {"a": at_a}})
        assert client.get("/v1/model").json()["by"] == "a"


def test_paths_lead_to_deployments(place: Path, replica: Replica) -> None:
    with running(plan("pets", "cats.v2"), place) as (proxy, client):
        proxy.sync({"pets": {"p": replica("p")[1]}, "cats.v2": {"c": replica("c")[1]}})
        expected = {
            "/pets/v1/predict": ("p", "/v1/predict"),
            "/cats.v2/v1/predict": ("c", "/v1/predict"),
            "/v2/models/pets": ("p", "/v2/models/pets"),
            "/v2/models/cats.v2/infer": ("c", "/v2/models/cats.v2/infer"),
            "/pets/v2/models/pets/ready": ("p", "/v2/models/pets/ready"),
            "/v2/models/petsy": ("room", "/v2/models/petsy"),
            "/v1/predict": ("room", "/v1/predict"),
            "/v2/health/ready": ("room", "/v2/health/ready"),
            "/catsxv2/v1/predict": ("room", "/catsxv2/v1/predict"),
            "/pets/metrics": ("room", "/pets/metrics"),
        }
        found = {path: client.get(path).json() for path in expected}
        assert {path: (each["by"], each["path"]) for path, each in found.items()} == expected
        assert found["/pets/metrics"]["headers"]["x-autovision-deployment"] == "pets"
        spoofed = client.get("/v1/predict", headers={"X-Autovision-Deployment": "pets"}).json()
        assert "x-autovision-deployment" not in spoofed["headers"]


VICTIM = """
import asyncio, sys
async def hold(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    print("asked", flush=True)
    await asyncio.sleep(60)
async def main():
    server = await asyncio.start_unix_server(hold, sys.argv[1])
    print("listens", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@pytest.mark.parametrize("others", [True, False])
def test_requests_of_a_killed_replica_are_sent_again(place: Path, replica: Replica, others: bool) -> None:
    path = place / "victim.sock"
    victim = subprocess.Popen([sys.executable, "-c", VICTIM, str(path)], stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    try:
        assert victim.stdout.readline() == "listens\n"
        with running(plan("pets"), place) as (proxy, client), ThreadPoolExecutor(1) as pool:
            proxy.sync({"pets": {"victim": f"unix@{path}"}})
            asking = pool.submit(client.post, "/v1/predict", content=bytes(BUFFER_BYTES // 2))
            assert victim.stdout.readline() == "asked\n"
            if others:
                proxy.sync({"pets": {"victim": f"unix@{path}", "b": replica("b")[1]}})
            victim.kill()
            victim.wait()
            answer = asking.result(10).json()
            assert (answer["by"], answer["bytes"]) == ("b" if others else "room", BUFFER_BYTES // 2)
    finally:
        victim.kill()
        victim.wait()
        victim.stdout.close()


def test_large_bodies_pass_and_late_ones_are_told_why(place: Path, replica: Replica) -> None:
    with running(plan("pets", limits=Limits(body_timeout_s=0.5)), place) as (proxy, client):
        proxy.sync({"pets": {"a": replica("a")[1]}})
        assert client.post("/v1/predict", content=bytes(5 * BUFFER_BYTES)).json()["bytes"] == 5 * BUFFER_BYTES
        url = client.base_url
        with socket.create_connection((url.host, url.port or 0)) as slow:
            slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab")
            slow.settimeout(10)
            told = slow.recv(65536).decode()
        assert told.startswith("HTTP/1.1 408 ")
        assert "application/problem+json" in told
        assert "urn:autovision:problem:slow-body" in told
        assert '"error": "the request did not arrive in time' in told, "what clients of /v2 look for"
        too_long = client.get("/v1/model", headers={"x-long": "x" * BUFFER_BYTES})
        assert too_long.status_code in (400, 431)


def test_what_it_answers_by_itself_is_told_and_what_replicas_answer_is_not(
    place: Path, replica: Replica
) -> None:
    async def busy(request: Request) -> JSONResponse:
        return JSONResponse({"by": "a"}, 503)

    told: list[str] = []
    path = place / "victim.sock"
    victim = subprocess.Popen([sys.executable, "-c", VICTIM, str(path)], stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    try:
        assert victim.stdout.readline() == "listens\n"
        planned = plan("pets", limits=Limits(body_timeout_s=0.5))
        with running(planned, place, told.append) as (proxy, client), ThreadPoolExecutor(1) as pool:
            app = Starlette(routes=[Route("/v1/model", busy)])
            proxy.sync({"pets": {"a": replica("a", app)[1]}})
            assert client.get("/v1/model").json() == {"by": "a"}
            proxy.sync({"pets": {"victim": f"unix@{path}"}})
            asking = pool.submit(client.post, "/v1/predict", content=bytes(2 * BUFFER_BYTES))
            assert victim.stdout.readline() == "asked\n"
            victim.kill()
            victim.wait()
            assert asking.result(10).json()["type"] == "urn:autovision:problem:broken-off"
            with socket.create_connection((client.base_url.host, planned.port)) as gone:
                gone.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab")
            with socket.create_connection((client.base_url.host, planned.port)) as slow:
                slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab")
                assert slow.recv(65536).startswith(b"HTTP/1.1 408 ")
            assert client.get("/v1/model", headers={"x-long": "x" * BUFFER_BYTES}).status_code == 400
            until(lambda: len(told) >= 3)
    finally:
        victim.kill()
        victim.wait()
        victim.stdout.close()
    assert told == ["broken-off", "slow-body", "bad-request"]


def test_tritons_client_is_answered_through_it(
    place: Path, replica: Replica, world: World, png: Callable[..., bytes]
) -> None:
    world.promote("m1", wait=False)
    noise = np.random.default_rng(0).integers(0, 60, (400, 400, 3), dtype=np.uint8)
    large = io.BytesIO()
    Image.fromarray(noise).save(large, "PNG")
    assert len(large.getvalue()) > BUFFER_BYTES
    images = np.array([png(200), large.getvalue()], np.object_)
    planned = plan("shades")
    with running(planned, place) as (proxy, _):
        proxy.sync({"shades": {"a": replica("a", build_app(world.engine, settle_s=10.0))[1]}})
        with triton.InferenceServerClient(f"127.0.0.1:{planned.port}") as client:
            assert client.is_server_ready() and client.is_model_ready("shades", "m1")
            tensor = triton.InferInput("image", [2], "BYTES").set_data_from_numpy(images)
            for compression in (None, "gzip"):
                result = client.infer(
                    "shades", [tensor], request_id="seven", request_compression_algorithm=compression
                )
                assert result.as_numpy("label").tolist() == [b"bright", b"dark"]
                assert result.get_response()["id"] == "seven"
            with pytest.raises(InferenceServerException, match="'shapes' is not served here"):
                client.infer("shapes", [tensor])


def test_over_tls(place: Path, replica: Replica, tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    planned = plan("pets", cert=cert, key=key)
    context = ssl.create_default_context(cafile=str(cert))
    context.check_hostname = False
    with running(planned, place) as (proxy, _):
        proxy.sync({"pets": {"a": replica("a")[1]}})
        assert (place / "tls.pem").stat().st_mode & 0o077 == 0
        url = f"https://127.0.0.1:{planned.port}/v1/model"
        assert httpx.get(url, verify=context, trust_env=False).json()["by"] == "a"
        with pytest.raises(httpx.TransportError):
            httpx.get(url.replace("https", "http"), trust_env=False)


def test_a_port_that_is_taken_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy, "PORT_S", 0.0)
    assert PROGRAM is not None
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        planned: Any = plan("pets")
        object.__setattr__(planned, "port", taken.getsockname()[1])
        with pytest.raises(ProxyFailed, match=r"does not start on 127\.0\.0\.1:\d+: .*(?i:bind|address)"):
            HAProxy(planned, place, PROGRAM).start()


OWNER = """
import sys, time
from pathlib import Path
from autovision.serving.edge.haproxy import HAProxy, binary
from tests.unit.serving.edge.conftest import plan
proxy = HAProxy(plan("pets"), Path(sys.argv[1]), binary())
proxy.start()
print(proxy._process.pid, flush=True)
time.sleep(60)
"""


def test_it_ends_with_a_process_that_is_killed(place: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(place)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert psutil.pid_exists(pid)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_what_is_under_way_is_answered_when_it_stops(place: Path, replica: Replica) -> None:
    asked, may_answer = threading.Event(), threading.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        import asyncio

        asked.set()
        while not may_answer.is_set():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})

    with running(plan("pets"), place) as (proxy, client), ThreadPoolExecutor(2) as pool:
        proxy.sync({"pets": {"a": replica("a", slow)[1]}})
        asking = pool.submit(client.get, "/v1/model")
        assert asked.wait(5)
        stopping = pool.submit(proxy.stop)
        time.sleep(0.1)
        may_answer.set()
        assert asking.result(10).text == "done"
        stopping.result(20)


@pytest.mark.parametrize(
    ("files", "connections"), [(2**20, 20_000), (20_000, 17_500), (4096, 2048), (1024, 512)]
)
def test_connections_are_as_many_as_there_are_files_for(
    monkeypatch: pytest.MonkeyPatch, files: int, connections: int
) -> None:
    monkeypatch.setattr(haproxy.resource, "getrlimit", lambda which: (1024, files))
    assert haproxy.max_connections() == connections
