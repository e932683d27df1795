"""What holds for every request, whatever route it takes: an id, a bounded body that is JSON, headers, the audit log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime

from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autovision.service import audit
from autovision.service.context import Limits
from autovision.service.problems import (
    FromElsewhere,
    NotJson,
    TooLarge,
    TooSlow,
    WrongHost,
    WrongMediaType,
    problem_of,
    rendered,
)
from autovision.serving.client import is_loopback
from autovision.serving.problems import Refusal
from autovision.store import keys
from autovision.store.protocol import Store

REQUEST_ID_HEADER = "x-request-id"
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""of every answer. None allows another origin anything: CORS is off"""
_HSTS = "max-age=31536000"
_EMPTY = b""
_SAFE = ("GET", "HEAD", "OPTIONS")
Observe = Callable[[str, str | None, int, float], None]
"""method, route, status and seconds of an answer"""


class Hardened:
    """An app with what all its requests have in common around it.

    A body is read here, to its last byte, before any route sees it: never more than the limit, never for longer than
    its time, and only if it is JSON without NaN, infinities and halves of surrogate pairs.

    Args:
        observe: told of every answer when it begins.
        local: whether it listens on a loopback, where it may be open: pages in a browser of this machine, whose name
            leads here (DNS rebinding), are then refused by the name.
    """

    def __init__(
        self,
        app: ASGIApp,
        store: Store,
        limits: Limits,
        clock: Callable[[], datetime],
        observe: Observe,
        *,
        local: bool = False,
    ) -> None:
        self._app = app
        self._local = local
        self._store = store
        self._limits = limits
        self._clock = clock
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        at, began = self._clock(), time.monotonic()
        trail = audit.begin(scope, keys.timestamped_id(at))
        secure = scope.get("scheme") == "https"

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if secure:
                    headers.setdefault("strict-transport-security", _HSTS)
                headers[REQUEST_ID_HEADER] = trail.request_id
                self._observe(scope["method"], _route_of(scope), message["status"], time.monotonic() - began)
                if trail.counts:
                    await run_in_threadpool(audit.note, self._store, trail, message["status"], self._clock())
            await send(message)

        try:
            self._check_origin(scope)
            body = await self._body(scope, receive)
        except ClientDisconnect:
            return
        except Refusal as error:
            await rendered(*problem_of(error, trail.request_id))(scope, receive, answer)
            return
        await self._app(scope, _replayed(body, receive), answer)

    def _check_origin(self, scope: Scope) -> None:
        """Raises for what only a browser sends that was led here: nobody gave its page the right to."""
        headers = Headers(scope=scope)
        if scope["method"] not in _SAFE and "origin" in headers:
            raise FromElsewhere
        if self._local and not is_loopback(_host_of(headers.get("host", ""))):
            raise WrongHost

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        limit, request = self._limits.max_body_bytes, Request(scope, receive)
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared[:20]) > limit:
            raise _too_large(limit)
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                async for part in request.stream():
                    size += len(part)
                    if size > limit:
                        raise _too_large(limit)
                    parts.append(part)
        except TimeoutError:
            raise TooSlow(
                f"the body did not arrive within {self._limits.body_timeout_s:g} s; send it again"
            ) from None
        body = _EMPTY.join(parts)
        if body:
            _check(request.headers, body)
        return body


def _route_of(scope: Scope) -> str | None:
    """The documented path, without `/api/v1`, of the route that a request took; None: it took none."""
    return getattr(scope.get("route"), "path", None)


def _host_of(header: str) -> str:
    """The host of a `Host` header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


def _check(headers: Headers, body: bytes) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" or headers.get("content-encoding", "identity").lower() != "identity":
        raise WrongMediaType
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise NotJson(f"the body is not JSON: {error}; send an object, in UTF-8") from None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read already, and then what comes after it: that the client is gone."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than the {limit:,} bytes that the service takes; send less")
