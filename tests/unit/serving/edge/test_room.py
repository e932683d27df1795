"""What an edge answers without a replica, or once there is one again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from autovision.records.tokens import Scope
from autovision.serving.auth import TokenBook
from autovision.serving.edge.gather import merged
from autovision.serving.edge.plan import EdgePlan
from autovision.serving.edge.room import Room
from autovision.serving.limits import Limits
from autovision.serving.listener import Listener
from autovision.store import MemoryStore, tokens
from tests.unit.serving.edge.conftest import Replica, plan
from tests.unit.serving.worlds import until

AT = datetime(2026, 3, 1, tzinfo=UTC)


class Rooms:
    """A room that listens, and what it asked to be woken."""

    def __init__(self, planned: EdgePlan, folder: Path, book: TokenBook | None = None) -> None:
        self.woken: list[str] = []
        self.room = Room(planned, book, self.woken.append)
        self.listener = Listener(self.room.app, folder / "room.sock", stop_s=2)
        self.listener.start()
        until(lambda: self.listener.listening)
        transport = httpx.HTTPTransport(uds=str(folder / "room.sock"))
        self.http = httpx.Client(transport=transport, base_url="http://edge", timeout=20)

    def update(self, **addresses: Mapping[str, str]) -> None:
        self.room.update(addresses)
        until(lambda: {name: place.replicas.keys() for name, place in self.room._places.items()
                       if place.replicas} == {name: at.keys() for name, at in addresses.items() if at})  # fmt: skip


@pytest.fixture
def rooms(place: Path) -> Iterator[Callable[..., Rooms]]:
    made: list[Rooms] = []

    def make(planned: EdgePlan, book: TokenBook | None = None) -> Rooms:
        made.append(Rooms(planned, place, book))
        return made[-1]

    yield make
    for each in made:
        each.http.close()
        each.listener.close()


@contextmanager
def asking(rooms: Rooms, *request: Any, **more: Any) -> Iterator[Callable[[], httpx.Response]]:
    """A request that waits in the room."""
    with ThreadPoolExecutor(1) as pool:
        before = rooms.room._waiting
        future = pool.submit(rooms.http.request, *request, **more)
        until(lambda: rooms.room._waiting > before)
        yield lambda: future.result(15)


def test_a_request_waits_for_a_replica_and_wakes_it(rooms: Callable[..., Rooms], replica: Replica) -> None:
    here = rooms(plan("pets", sleeps=True))
    with asking(
        here, "POST", "/v1/predict?a=b", content=b"image", headers={"x-autovision-meta-camera": "3"}
    ) as asked:
        assert here.woken == ["pets"]
        here.update(pets={"a": replica("a")[1]})
        told = asked().json()
    assert (told["by"], told["path"], told["query"], told["bytes"]) == ("a", "/v1/predict", "a=b", 5)
    assert told["headers"]["x-autovision-meta-camera"] == "3"


def test_a_request_outlives_a_replica_that_ends_meanwhile(
    rooms: Callable[..., Rooms], replica: Replica, place: Path
) -> None:
    here = rooms(plan("pets"))
    here.update(pets={"gone": f"unix@{place / 'gone.sock'}"})
    with asking(here, "POST", "/v1/predict", content=b"image") as asked:
        here.update(pets={"a": replica("a")[1]})
        assert asked().json()["by"] == "a"


def test_who_waits_too_long_or_finds_no_room_is_told_to_try_again(rooms: Callable[..., Rooms]) -> None:
    here = rooms(plan("pets", wait_s=0.6, room=1, room_bytes=10))
    with asking(here, "POST", "/v1/predict", content=b"image") as asked:
        full = here.http.post("/v2/models/pets/infer", content=b"image")
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        assert "1 requests wait" in full.json()["error"]
        late = asked()
    assert (late.status_code, late.json()["type"]) == (503, "urn:autovision:problem:no-replica")
    assert "within 0.6 s" in late.json()["detail"]
    large = here.http.post("/v1/predict", content=bytes(11))
    assert (large.status_code, large.json()["title"]) == (503, "Overloaded")
    assert (here.room._waiting, here.room._held) == (0, 0)
    told = here.http.get("/metrics").text
    assert 'autovision_edge_errors_total{kind="queue-full"} 2.0' in told
    assert 'autovision_edge_errors_total{kind="no-replica"} 1.0' in told


def test_those_who_waited_do_not_fill_the_queue_of_the_first_replica(
    rooms: Callable[..., Rooms], replica: Replica
) -> None:
    at_once: list[int] = [0]

    async def busy(request: Request) -> Response:
        at_once.append(at_once[-1] + 1)
        if at_once[-1] > 4:  # as many as its queue has places for
            return JSONResponse({}, 503)
        await asyncio.sleep(0.02)
        at_once.append(at_once[-1] - 1)
        return JSONResponse({})

    here = rooms(plan("pets", limits=Limits(max_waiting=32)))
    with ThreadPoolExecutor(30) as pool:
        asked = [pool.submit(here.http.post, "/v1/predict", content=b"image") for _ in range(30)]
        until(lambda: here.room._waiting == 30)
        here.update(
            pets={"a": replica("a", Starlette(routes=[Route("/v1/predict", busy, methods=["POST"])]))[1]}
        )
        assert {each.result(20).status_code for each in asked} == {200}
    assert max(at_once) == 4, "and those few at once"


def test_health_is_told_at_once_and_wakes_nobody(
    rooms: Callable[..., Rooms], replica: Replica, place: Path
) -> None:
    here = rooms(plan("pets", sleeps=True))
    assert here.http.get("/v1/health").json()["status"] == "waiting"
    here.update(pets={"a": replica("a")[1]})
    assert here.http.get("/v1/health").json()["by"] == "a"
    here.update(pets={"gone": f"unix@{place / 'gone.sock'}"})
    gone = here.http.get("/v1/health")
    assert (gone.status_code, gone.json()["status"]) == (503, "waiting")
    here.update()
    asleep = here.http.get("/v1/health")
    assert (asleep.status_code, asleep.json()["status"]) == (200, "asleep")
    ready = here.http.get("/v2/models/pets/ready")
    assert (ready.status_code, ready.json()) == (200, {"name": "pets", "ready": True})
    unknown = here.http.get("/v2/models/pests/ready")
    assert (unknown.status_code, unknown.json()["error"]) == (
        404,
        "model 'pests' is not served here; 'pets' is",
    )
    assert here.http.head("/v1/health").status_code == 200
    assert here.woken == []


def test_strangers_wake_nobody(rooms: Callable[..., Rooms], replica: Replica) -> None:
    store = MemoryStore()
    made = tokens.create(store, "line-1", [Scope.PREDICT], AT)
    here = rooms(plan("pets", sleeps=True), TokenBook(store))
    for headers in ({}, {"authorization": "Bearer nothing"}):
        assert here.http.post("/v1/predict", content=b"image", headers=headers).status_code == 401
    assert here.http.get("/metrics").status_code == 401
    assert here.woken == []
    headers = {"authorization": f"Bearer {made.secret}"}
    with asking(here, "POST", "/v1/predict", content=b"image", headers=headers) as asked:
        here.update(pets={"a": replica("a")[1]})
        assert asked().json()["headers"]["authorization"] == f"Bearer {made.secret}"


def text_of(replica: str, count: int) -> bytes:
    registry = CollectorRegistry()
    counter = Counter("autovision_requests", "Images.", ("replica", "kind"), registry=registry)
    counter.labels(replica, "ok").inc(count)
    histogram = Histogram("autovision_latency_seconds", "Time.", ("replica",), registry=registry)
    histogram.labels(replica).observe(count)
    return generate_latest(registry)


def measured(name: str, count: int) -> Starlette:
    async def metrics(request: Request) -> Response:
        return Response(text_of(name, count), media_type="text/plain")

    async def index(request: Request) -> Response:
        return JSONResponse([{"name": name, "version": "m-1", "state": "READY", "reason": ""}])

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ready"})

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/v2/repository/index", index, methods=["POST"]),
            Route("/v1/health", health),
        ]
    )


def test_metrics_are_those_of_all_replicas(rooms: Callable[..., Rooms], replica: Replica) -> None:
    here = rooms(plan("pets", "cats"))
    here.update(
        pets={"p1": replica("p1", measured("p1", 3))[1], "p2": replica("p2", measured("p2", 5))[1]},
        cats={"c1": replica("c1", measured("c1", 7))[1]},
    )
    text = here.http.get("/metrics").text
    assert [line for line in text.splitlines() if line.startswith("autovision_requests_total{")] == [
        'autovision_requests_total{kind="ok",replica="p1"} 3.0',
        'autovision_requests_total{kind="ok",replica="p2"} 5.0',
        'autovision_requests_total{kind="ok",replica="c1"} 7.0',
    ]
    assert text.count("# TYPE autovision_latency_seconds histogram") == 1
    assert 'autovision_latency_seconds_bucket{le="5.0",replica="p2"} 1.0' in text
    assert 'autovision_replicas{deployment="pets"} 2.0' in text
    of_cats = here.http.get("/metrics", headers={"x-autovision-deployment": "cats"}).text
    assert 'replica="c1"' in of_cats and 'replica="p1"' not in of_cats


def test_a_replicas_refusal_is_passed_on_as_it_is(rooms: Callable[..., Rooms], replica: Replica) -> None:
    async def later(request: Request) -> Response:
        return Response(b"{}", 429, {"retry-after": "7", "x-inner": "1"}, "application/problem+json")

    here = rooms(plan("pets"))
    here.update(pets={"a": replica("a", Starlette(routes=[Route("/metrics", later)]))[1]})
    refused = here.http.get("/metrics")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    assert refused.headers["content-type"] == "application/problem+json"
    assert "x-inner" not in refused.headers


def test_what_the_proxy_answered_is_counted_with_the_rest(rooms: Callable[..., Rooms]) -> None:
    here = rooms(plan("pets"))
    for _ in range(2):
        here.room.note_error("slow-body")
    until(lambda: 'autovision_edge_errors_total{kind="slow-body"} 2.0' in here.http.get("/metrics").text)


def test_metrics_of_one_replica_are_what_it_says() -> None:
    one = text_of("a", 3).decode().splitlines()
    assert merged(["\n".join(one) + "\n"], {}, 0, {}).decode().splitlines()[: len(one)] == one


def test_a_server_of_several_speaks_for_all(rooms: Callable[..., Rooms], replica: Replica) -> None:
    here = rooms(plan("pets", "cats"))
    here.update(pets={"pets": replica("pets", measured("pets", 1))[1]})
    health = here.http.get("/v1/health")
    assert (health.status_code, health.json()["deployments"]) == (503, {"pets": "ready", "cats": "waiting"})
    listed = here.http.post("/v2/repository/index").json()
    assert [(each["name"], each["state"]) for each in listed] == [("pets", "READY"), ("cats", "UNAVAILABLE")]
    assert here.http.get("/v2/health/live").json() == {"live": True}
    assert here.http.get("/v2/health/ready").status_code == 503
    here.update(
        pets={"pets": f"unix@{here.listener._path and here.listener._path.parent / 'pets.sock'}"},
        cats={"cats": replica("cats", measured("cats", 1))[1]},
    )
    assert here.http.get("/v2/health/ready").json() == {"ready": True}
    assert here.http.get("/v2").json()["name"] == "autovision"
    nowhere = here.http.post("/v1/predict", content=b"x")
    assert nowhere.status_code == 404
    assert "/pets/v1/predict, /cats/v1/predict" in nowhere.json()["detail"]


def test_without_haproxy_the_room_reads_the_path(rooms: Callable[..., Rooms], replica: Replica) -> None:
    here = rooms(plan("pets", "cats"))
    here.update(pets={"p": replica("p")[1]}, cats={"c": replica("c")[1]})
    paths = {
        "/pets/v1/predict": ("p", "/v1/predict"),
        "/v2/models/cats/infer": ("c", "/v2/models/cats/infer"),
    }
    for path, expected in paths.items():
        told = here.http.post(path, content=b"x").json()
        assert (told["by"], told["path"]) == expected


def test_without_haproxy_metrics_below_a_name_are_those_of_all_its_replicas(
    rooms: Callable[..., Rooms], replica: Replica
) -> None:
    here = rooms(plan("pets", "cats"))
    here.update(
        pets={name: replica(name, measured(name, 3))[1] for name in ("p1", "p2")},
        cats={"c1": replica("c1", measured("c1", 7))[1]},
    )
    of_pets = here.http.get("/pets/metrics").text
    assert all(f'replica="{name}"' in of_pets for name in ("p1", "p2"))
    assert 'replica="c1"' not in of_pets
