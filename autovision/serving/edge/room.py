"""Where requests wait that no replica can take at the moment, and what an edge answers by itself.

A request that waits is held with its whole body until a replica is there, and then sent to it; a model that sleeps is
woken. Health is answered at once, and wakes nobody. What no single replica can tell is put together here: the metrics
of all of them and, where several deployments are served, the server's routes of the Open Inference Protocol.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import Any

import httpx
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from autovision.records.tokens import Scope
from autovision.serving import oip
from autovision.serving.auth import TokenBook
from autovision.serving.body import received
from autovision.serving.edge.gather import merged
from autovision.serving.edge.plan import DEPLOYMENT_HEADER, EDGE_HEADER, EdgePlan
from autovision.serving.guard import as_problem, logged_problem
from autovision.serving.metrics import Metrics
from autovision.serving.problems import NotServed, QueueFull, Refusal, headers_of, shape_of
from autovision.serving.schema import FollowStatus, Health
from autovision.serving.v2 import as_error

TOKENS_WAIT_S = 2.0
DOORS = 8
"""one of so many places of a replica's queue is for those that waited: new ones stand behind them, and fill the rest if
the replica is nearly as busy as it can be"""
HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade", "content-length", "host", "expect",
})  # fmt: skip
"""headers of one connection (RFC 9110, 7.6.1), and those that are made anew"""
_ENDED = (httpx.NetworkError, httpx.RemoteProtocolError)
"""what asking a replica comes to that has ended"""
_METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]


class NoReplica(Refusal):
    """No replica was there in time to answer; try again."""

    status = 503
    kind = "no-replica"
    title = "No replica"
    retry_after_s = 5


@dataclass(eq=False)
class _Place:
    """A target, as the room sees it.

    Attributes:
        doors: how many of those that waited may be at replicas at once: all of them together would fill the queue of
            the first one that is there, and the rest would be refused.
    """

    sleeps: bool
    doors: asyncio.Semaphore
    replicas: dict[str, httpx.AsyncClient] = field(default_factory=dict)
    there: asyncio.Event = field(default_factory=asyncio.Event)
    was_there: bool = False


class Room:
    """The app of one edge. `update` tells it of replicas, from any thread.

    Args:
        book: who may wait; None: everyone.
        wake: told the name of a target that sleeps, or may, while somebody waits for it.
    """

    def __init__(self, plan: EdgePlan, book: TokenBook | None, wake: Callable[[str], None]) -> None:
        self._plan = plan
        self._book = book
        self._wake = wake
        at_once = max(1, plan.limits.max_waiting // DOORS)
        self._places = {
            target.name: _Place(target.sleeps, asyncio.Semaphore(at_once)) for target in plan.targets
        }
        self._waiting = 0
        self._held = 0
        self._errors: Counter[str] = Counter()
        """kind of problem -> requests"""
        self._answer_s = plan.limits.body_timeout_s + plan.limits.deadline_s + 5
        """so long a replica may take"""
        self._left: set[httpx.AsyncClient] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        routes = [Route("/metrics", self._metrics, methods=["GET"])]
        if plan.single is None:
            routes += [
                Route("/v1/health", self._all_health, methods=["GET"]),
                Route("/v2", self._server, methods=["GET"]),
                Route("/v2/health/live", self._live, methods=["GET"]),
                Route("/v2/health/ready", self._all_ready, methods=["GET"]),
                Route("/v2/repository/index", self._index, methods=["POST"]),
            ]
        routes.append(Route("/{path:path}", self._any, methods=_METHODS))
        self.app = Starlette(routes=routes, lifespan=self._lifespan)

    def update(self, addresses: Mapping[str, Mapping[str, str]]) -> None:
        """Take note of the replicas there are: target -> replica -> where, as HAProxy writes it. Thread-safe."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._apply, addresses)

    def note_error(self, kind: str) -> None:
        """Count what was answered before it came here. Thread-safe."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._count_error, kind)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        if self._book is not None:
            self._book.start()
            await run_in_threadpool(self._book.wait_read, TOKENS_WAIT_S)
        yield
        if self._book is not None:
            await run_in_threadpool(self._book.close)
        for place in self._places.values():
            self._left.update(place.replicas.values())
        for client in self._left:
            await client.aclose()

    def _apply(self, addresses: Mapping[str, Mapping[str, str]]) -> None:
        for name, place in self._places.items():
            wanted = addresses.get(name, {})
            for replica in place.replicas.keys() - wanted.keys():
                self._leave(place.replicas.pop(replica))
            for replica, at in wanted.items():
                if replica not in place.replicas:
                    place.replicas[replica] = self._client(at)
            place.was_there |= bool(place.replicas)
            (place.there.set if place.replicas else place.there.clear)()

    def _leave(self, client: httpx.AsyncClient) -> None:
        """Close it once nobody can be waiting for an answer through it."""
        self._left.add(client)

        async def close() -> None:
            self._left.discard(client)
            await client.aclose()

        loop = asyncio.get_running_loop()
        loop.call_later(self._answer_s, lambda: self._closing.add(loop.create_task(close())))
        self._closing = {task for task in self._closing if not task.done()}

    def _client(self, at: str) -> httpx.AsyncClient:
        plan = self._plan
        headers = {} if plan.secret is None else {EDGE_HEADER: plan.secret}
        path = at.removeprefix("unix@")
        return httpx.AsyncClient(
            base_url="http://replica" if path != at else f"http://{at}",
            transport=httpx.AsyncHTTPTransport(uds=path if path != at else None),
            headers=headers,
            timeout=self._answer_s,
        )

    # ------------------------------------------------------------------------------------ one target

    async def _any(self, request: Request) -> Response:
        name, path = self._target(request)
        try:
            if name is None:
                raise NotServed(self._paths())
            if request.method in ("GET", "HEAD") and _asks_health(path):
                return await self._health(name, request, path)
            if request.method == "GET" and path == "/metrics":
                return await self._metrics_of([self._places[name]], request)
            return await self._once_there(name, request, path)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:  # noqa: BLE001 - answered as a problem, and logged if unexpected
            self._count_error(shape_of(error).kind)
            render = as_error if path.startswith("/v2") else as_problem
            return render(logged_problem(error), headers_of(error))

    def _count_error(self, kind: str) -> None:
        self._errors[kind] += 1

    def _target(self, request: Request) -> tuple[str | None, str]:
        """Whose request it is, as HAProxy says, or without it as the path says; and the path without the name."""
        path = request.url.path
        name = request.headers.get(DEPLOYMENT_HEADER)
        if name in self._places:
            return name, path
        first, _, rest = path.removeprefix("/").partition("/")
        if first in self._places and rest:
            return first, f"/{rest}"
        if path.startswith("/v2/models/"):
            first = path.split("/")[3]
            if first in self._places:
                return first, path
        return (self._plan.single.name if self._plan.single else None), path

    async def _health(self, name: str, request: Request, path: str) -> Response:
        place = self._places[name]
        if path.startswith("/v2/models/") and (asked := path.split("/")[3]) != name:
            raise NotServed(f"model {asked[:80]!r} is not served here; {name!r} is")
        if place.replicas:
            with suppress(*_ENDED):
                return await self._forward(place, request, path, b"")
        asleep = place.sleeps and place.was_there and not place.replicas
        if path.startswith("/v2"):
            about = {"name": name} if path.startswith("/v2/models/") else {}
            return _json(about | {"ready": asleep}, 200 if asleep else 503)
        state = Health(status="asleep" if asleep else "waiting", model=None, following=FollowStatus())
        return _json(state.model_dump(mode="json"), 200 if asleep else 503)

    async def _once_there(self, name: str, request: Request, path: str) -> Response:
        """Hold the request until there is a replica, and send it there."""
        plan, place = self._plan, self._places[name]
        if self._book is not None:
            self._book.caller(request.headers.get("authorization"), None)
        if self._waiting >= plan.room:
            raise QueueFull(f"{plan.room} requests wait for a replica already; try again in a moment")
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self._held + size > plan.room_bytes:
                raise QueueFull("as many bytes wait for a replica as may; try again in a moment")
            self._held += size
            held += size

        self._waiting += 1
        try:
            body = b""
            if request.method not in ("GET", "HEAD"):
                body = await received(request, plan.limits.max_body_bytes, plan.limits.body_timeout_s, hold)
            return await self._sent(name, place, request, path, body)
        finally:
            self._waiting -= 1
            self._held -= held

    async def _sent(self, name: str, place: _Place, request: Request, path: str, body: bytes) -> Response:
        try:
            async with asyncio.timeout(self._plan.wait_s):
                while True:
                    if not place.replicas:
                        self._wake(name)
                        await place.there.wait()
                    try:
                        async with place.doors:
                            return await self._forward(place, request, path, body)
                    except _ENDED:
                        # It ended meanwhile, which the next look at replicas will tell.
                        await asyncio.sleep(0.1)
        except TimeoutError:
            raise NoReplica(
                f"no replica of {name!r} was there within {self._plan.wait_s:g} s; try again, or look at "
                "what the server says"
            ) from None

    async def _forward(self, place: _Place, request: Request, path: str, body: bytes) -> Response:
        if not place.replicas:
            raise NoReplica
        client = random.choice(list(place.replicas.values()))
        headers = [(name, value) for name, value in request.headers.items() if name not in HOP_BY_HOP]
        query = f"?{request.url.query}" if request.url.query else ""
        answer = await client.request(request.method, f"{path}{query}", headers=headers, content=body)
        kept = {
            name: value
            for name, value in answer.headers.items()
            # httpx has undone the encoding.
            if name not in HOP_BY_HOP | {"content-encoding", "date"}
        }
        return Response(answer.content, answer.status_code, kept)

    # ----------------------------------------------------------------------------------- all targets

    async def _metrics(self, request: Request) -> Response:
        """Of all replicas; each of them checks the token."""
        name = request.headers.get(DEPLOYMENT_HEADER)
        places = [self._places[name]] if name in self._places else list(self._places.values())
        return await self._metrics_of(places, request)

    async def _metrics_of(self, places: list[_Place], request: Request) -> Response:
        texts, refused = await self._ask_all(places, request, "GET", "/metrics")
        if refused is not None:
            return refused
        if not texts and self._book is not None:
            try:
                self._book.caller(request.headers.get("authorization"), Scope.ADMIN)
            except Refusal as error:
                return as_problem(logged_problem(error), headers_of(error))
        counts = {target: len(place.replicas) for target, place in self._places.items()}
        told, errors = [text.decode() for text in texts], dict(self._errors)
        text = await run_in_threadpool(partial(merged, told, counts, self._waiting, errors))
        return Response(text, media_type=Metrics.CONTENT_TYPE)

    async def _ask_all(
        self, places: list[_Place], request: Request, method: str, path: str
    ) -> tuple[list[bytes], Response | None]:
        """What all replicas answer; the first refusal, if one did. Those that ended meanwhile are left out."""
        clients = [client for place in places for client in place.replicas.values()]
        headers = {"authorization": request.headers.get("authorization", "")}
        if not headers["authorization"]:
            headers = {}
        answers = await asyncio.gather(
            *(client.request(method, path, headers=headers) for client in clients), return_exceptions=True
        )
        found = [answer for answer in answers if isinstance(answer, httpx.Response)]
        for answer in found:
            if not answer.is_success:
                said = ("www-authenticate", "content-type", "retry-after")
                kept = {name: value for name, value in answer.headers.items() if name in said}
                return [], Response(answer.content, answer.status_code, kept)
        return [answer.content for answer in found], None

    async def _all_health(self, request: Request) -> Response:
        states = {}
        for name, place in self._places.items():
            answer = await self._health_of(place, request)
            states[name] = answer
        ready = all(state in ("ready", "asleep") for state in states.values())
        return _json(
            {"status": "ready" if ready else "waiting", "deployments": states}, 200 if ready else 503
        )

    async def _health_of(self, place: _Place, request: Request) -> str:
        texts, refused = await self._ask_all([place], request, "GET", "/v1/health")
        if texts:
            return "ready"
        return "asleep" if refused is None and place.sleeps and place.was_there else "waiting"

    async def _server(self, request: Request) -> Response:
        version = metadata.version("autovision")
        return _json({"name": "autovision", "version": version, "extensions": oip.EXTENSIONS})

    async def _live(self, request: Request) -> Response:
        return _json({"live": True})

    async def _all_ready(self, request: Request) -> Response:
        states = [await self._health_of(place, request) for place in self._places.values()]
        ready = "waiting" not in states
        return _json({"ready": ready}, 200 if ready else 503)

    async def _index(self, request: Request) -> Response:
        listed: list[Any] = []
        for name, place in self._places.items():
            texts, refused = await self._ask_all([place], request, "POST", "/v2/repository/index")
            if refused is not None:
                return refused
            reason = "it sleeps until somebody calls" if place.was_there and place.sleeps else "it starts"
            listed += (
                httpx.Response(200, content=texts[0]).json()
                if texts
                else [{"name": name, "state": "UNAVAILABLE", "reason": reason}]
            )
        return _json(listed)

    def _paths(self) -> str:
        paths = ", ".join(f"/{name}/v1/predict" for name in self._places)
        return f"several deployments are served here; ask {paths}, or /v2/models/NAME"


def _asks_health(path: str) -> bool:
    return path in ("/v1/health", "/v2/health/live", "/v2/health/ready") or (
        path.startswith("/v2/models/") and path.endswith("/ready")
    )


def _json(value: Any, status: int = 200) -> Response:
    headers = {"retry-after": "2"} if status == 503 else None
    return Response(to_json(value), status, headers, "application/json")
