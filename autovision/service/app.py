"""The API service as an ASGI app: routes, documentation, and how errors become answers.

GET  /api/v1/health/live  /health/ready                     open to everyone, as is /api/v1/openapi.json
GET  /api/v1/me                                             any valid token
GET  /api/v1/datasets  /models  /deployments  /queue  …     scope read
POST /api/v1/searches  …/stop  …/resume                     scope submit
POST /api/v1/deployments/…/promote  …/rollback  …           scope promote
GET  /api/v1/tokens  /audit  /metrics, POST …/revoke        scope admin
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from importlib import metadata
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from autovision.api import AutoVision
from autovision.errors import AutoVisionError
from autovision.records.base import now
from autovision.service.audit import trail_of
from autovision.service.context import Context, Limits, Room
from autovision.service.hardening import Hardened
from autovision.service.metrics import ServiceMetrics
from autovision.service.problems import problem_of, rendered
from autovision.service.routes import access, datasets, deployments, health, metrics, models, searches
from autovision.service.schema import PREFIX, ServiceProblem
from autovision.serving.auth import TokenBook
from autovision.store.protocol import Store

TOKENS_WAIT_S = 2.0
"""so long a service that starts waits for its tokens; until it has them it lets nobody in"""
_ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    access.router,
    datasets.router,
    searches.router,
    models.router,
    deployments.router,
    metrics.router,
)


class Service:
    """The app. Its lifespan starts and closes the book of tokens."""

    def __init__(self, api: FastAPI, context: Context, *, local: bool) -> None:
        self.api = api
        self.context = context
        self._app = Hardened(
            api, context.store, context.limits, context.clock, context.metrics.observe, local=local
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def close(self) -> None:
        """Let streams end; to be called before the server waits for requests that are under way."""
        self.context.closing.set()


def build_app(
    store: Store,
    *,
    book: TokenBook | None = None,
    limits: Limits | None = None,
    clock: Callable[[], datetime] = now,
    local: bool = False,
) -> Service:
    """The service over a store.

    Args:
        book: who may do what; None: everyone may do everything.
        local: whether it listens on a loopback, and answers to its names alone.
    """
    limits = limits or Limits()
    room = Room(limits)
    counted = ServiceMetrics(store, lambda: room.streams)
    context = Context(store, AutoVision(store), book, room, limits, counted, clock)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if book is not None:
            book.start()
            await run_in_threadpool(book.wait_read, TOKENS_WAIT_S)
        yield
        context.closing.set()
        if book is not None:
            await run_in_threadpool(book.close)

    api = FastAPI(
        title="AutoVision",
        summary="Search, promote and watch vision models.",
        version=metadata.version("autovision"),
        openapi_url=f"{PREFIX}/openapi.json",
        # Their pages would load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers={
            AutoVisionError: _refused,
            RequestValidationError: _refused,
            HTTPException: _refused,
            Exception: _refused,
        },
    )
    api.state.context = context
    for router in _ROUTERS:
        api.include_router(router, prefix=PREFIX)
    api.openapi = lambda: _openapi(api)  # type: ignore[method-assign]
    return Service(api, context, local=local)


async def _refused(request: Request, error: Exception) -> Response:
    trail = trail_of(request)
    problem, headers = problem_of(error, trail.request_id)
    if problem.status == 405:
        # The router names the methods of the first route that fits, and not those of all.
        headers = {"allow": ", ".join(_methods(request.app, request.url.path))}
    trail.problem = problem.type.rpartition(":")[2]
    return rendered(problem, headers)


def _methods(api: FastAPI, path: str) -> list[str]:
    """What may be done with a path."""
    for template, documented in api.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path):
            return sorted(method.upper() for method in documented)
    return ["GET"]  # of the documentation itself


def _openapi(api: FastAPI) -> dict[str, Any]:
    """The documentation, with the form of errors, which no route names as a model."""
    if api.openapi_schema is None:
        made = get_openapi(title=api.title, version=api.version, summary=api.summary, routes=api.routes)
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        form = ServiceProblem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(form.pop("$defs", {}))
        schemas["ServiceProblem"] = form
        api.openapi_schema = made
    return api.openapi_schema
