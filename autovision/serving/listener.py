"""An HTTP server on a thread of its own: how replicas, and an edge's room, take requests without Ray between."""

from __future__ import annotations

import hmac
import socket
import threading
from pathlib import Path

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

BACKLOG = 1024
KEEP_ALIVE_S = 600
"""an edge keeps connections for less"""


class Listener:
    """Serves an ASGI app on a socket of the Unix domain and, if wanted, on TCP. `start` before use, `close` after.

    It begins to listen once the app's lifespan has begun: whoever connects before is refused, and goes elsewhere.

    Args:
        path: of the socket, which must not exist; only this user can connect.
        tcp: (host, port) to listen on, too; port 0: any free one.
    """

    def __init__(
        self,
        app: ASGIApp,
        path: Path | None = None,
        tcp: tuple[str, int] | None = None,
        *,
        cert: Path | None = None,
        key: Path | None = None,
        stop_s: int = 15,
    ) -> None:
        self._path = path
        self._sockets: list[socket.socket] = []
        self.tcp: tuple[str, int] | None = None
        """where it listens on TCP, with the port that was free"""
        config = uvicorn.Config(
            app,
            # The configuration that uvicorn brings would close the handlers of all others, without which Ray Serve
            # does not know a replica again once its controller was lost, and kills it.
            log_config=None,
            log_level="critical",
            access_log=False,
            lifespan="on",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=stop_s,
            ssl_certfile=cert,
            ssl_keyfile=key,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._stop_s = stop_s
        if path is not None:
            self._sockets.append(_unix(path))
        if tcp is not None:
            self._sockets.append(_tcp(*tcp))
            self.tcp = self._sockets[-1].getsockname()[:2]

    def start(self) -> None:
        self._thread.start()

    @property
    def listening(self) -> bool:
        return self._server.started and self._thread.is_alive()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Refuse what comes, answer what is under way, end the app's lifespan. May be called again."""
        self._server.should_exit = True
        if self._thread.is_alive():
            # The app's own end comes after the requests'.
            self._thread.join(2 * self._stop_s)
        for each in self._sockets:
            each.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        self._server.run(sockets=self._sockets)


def _unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


def _tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


class OnlyFrom:
    """Lets requests through that carry a secret; others learn nothing."""

    def __init__(self, app: ASGIApp, header: str, secret: str) -> None:
        self._app = app
        self._header = header
        self._secret = secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            said = Headers(scope=scope).get(self._header, "")
            if not hmac.compare_digest(said.encode("latin-1"), self._secret):
                await Response(status_code=403)(scope, receive, send)
                return
        await self._app(scope, receive, send)
