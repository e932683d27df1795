"""Replicas that say who they are, on sockets of the Unix domain, in a folder short enough for their addresses."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from autovision.serving.edge.plan import EdgePlan, Target
from autovision.serving.listener import Listener
from autovision.serving.ports import claim_port
from tests.unit.serving.worlds import until

METHODS = ["GET", "POST", "PUT"]


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="av-"))
    yield folder
    shutil.rmtree(folder)


def said(name: str) -> Starlette:
    """An app that answers with its name and what it was asked."""

    async def say(request: Request) -> JSONResponse:
        body = await request.body()
        told: dict[str, Any] = {"by": name, "path": request.url.path, "query": request.url.query}
        return JSONResponse(told | {"bytes": len(body), "headers": dict(request.headers)})

    return Starlette(routes=[Route("/{path:path}", say, methods=METHODS)])


Replica = Callable[..., tuple[Listener, str]]


@pytest.fixture
def replica(place: Path) -> Iterator[Replica]:
    """Start a replica; where it answers, as HAProxy writes it."""
    running: list[Listener] = []

    def start(name: str, app: Any = None) -> tuple[Listener, str]:
        path = place / f"{name}.sock"
        listener = Listener(app or said(name), path, stop_s=2)
        listener.start()
        running.append(listener)
        until(lambda: listener.listening)
        return listener, f"unix@{path}"

    yield start
    for listener in running:
        listener.close()


def plan(*names: str, sleeps: bool = False, **more: Any) -> EdgePlan:
    targets = tuple(Target(name, f"autovision-{name}", sleeps) for name in names)
    return EdgePlan("s1", "memory://", "127.0.0.1", claim_port("127.0.0.1", 0), targets, **more)
