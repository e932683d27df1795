"""An HTTP server on a thread of its own."""

from __future__ import annotations

import asyncio
import io
import logging
import logging.handlers
import socket
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from autovision.serving.listener import Listener, OnlyFrom
from tests.unit.serving.worlds import until


def over(path: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://replica", timeout=10)


def test_it_refuses_until_its_app_has_begun_and_answers_what_is_under_way_when_it_ends(
    tmp_path: Path,
) -> None:
    may_begin, asked, ended = threading.Event(), threading.Event(), threading.Event()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        while not may_begin.is_set():
            await asyncio.sleep(0.01)
        yield
        ended.set()

    async def slow(request: Request) -> PlainTextResponse:
        asked.set()
        await asyncio.sleep(0.2)
        return PlainTextResponse("done")

    path = tmp_path / "a.sock"
    listener = Listener(Starlette(routes=[Route("/", slow)], lifespan=lifespan), path, ("127.0.0.1", 0))
    listener.start()
    with over(path) as client:
        with socket.socket(socket.AF_UNIX) as early, pytest.raises(ConnectionRefusedError):
            early.connect(str(path))
        assert not listener.listening
        may_begin.set()
        until(lambda: listener.listening)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert listener.tcp is not None
        assert httpx.get(f"http://127.0.0.1:{listener.tcp[1]}/", trust_env=False).text == "done"
        asked.clear()
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(client.get("/").text))
        asking.start()
        assert asked.wait(5)
        listener.close()
        asking.join(5)
        assert answers == ["done"]
        assert ended.is_set()
        assert not path.exists()
        assert not listener.alive
        listener.close()


def test_who_does_not_know_the_secret_learns_nothing(tmp_path: Path) -> None:
    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    listener = Listener(
        OnlyFrom(Starlette(routes=[Route("/", hello)]), "x-secret", "s3"), tmp_path / "a.sock"
    )
    listener.start()
    until(lambda: listener.listening)
    try:
        with over(tmp_path / "a.sock") as client:
            assert client.get("/", headers={"x-secret": "s3"}).text == "hello"
            for headers in ({}, {"x-secret": "s"}, {"x-secret": b"\xff"}):
                refused = client.get("/", headers=headers)
                assert (refused.status_code, refused.text) == (403, "")
    finally:
        listener.close()


def test_the_log_handlers_of_others_are_left_open(tmp_path: Path) -> None:
    """Ray Serve's has to be, or Serve kills the replica when its controller was lost and is back."""
    written = logging.StreamHandler(io.StringIO())
    kept = logging.handlers.MemoryHandler(1, target=written)
    Listener(Starlette(), tmp_path / "a.sock").close()
    assert kept.target is written
