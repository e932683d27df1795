"""An HTTP server around the service, on a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from autovision.errors import AutoVisionError
from autovision.service.app import Service
from autovision.serving.tls import Tls

MAX_HEADER_BYTES = 32 * 1024
MAX_CONNECTIONS = 1000
"""more are answered with 503"""
HEAD_S = 15.0
"""for the head of a request, from the connection's beginning or the request's first byte"""
_START_S = 30.0
_STOP_S = 10


class ServiceNotStarted(AutoVisionError):
    """The API service did not start; run it again with --traceback to see why."""

    exit_code = 7


class PromptProtocol(H11Protocol):
    """HTTP on one connection, which is given up when the head of a request does not come in time.

    Without that a thousand connections on which nobody says anything keep everybody else out. Bodies have a time of
    their own; see `hardening`.
    """

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._answers:
            self._wait_no_more()
        elif self._late is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    @property
    def _answers(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._late = self.loop.call_later(HEAD_S, self._give_up)

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        if not self._answers:
            self.transport.close()


class ServiceServer:
    """Serves a `Service` on TCP. A context manager: it answers inside, and refuses what comes after.

    Args:
        port: 0 takes any free one.
        tls: None: plain HTTP.
    """

    def __init__(self, service: Service, host: str, port: int, tls: Tls | None = None) -> None:
        if tls is not None:
            tls.check()
        self._service = service
        self._secure = tls is not None
        self._socket = _listener(host, port)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            service,
            # On h11, the one of the two parsers that bounds the headers of a request.
            http=PromptProtocol,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=20,
            timeout_graceful_shutdown=_STOP_S,
            log_level="critical",
            access_log=False,
            lifespan="on",
            ws="none",
            ssl_certfile=None if tls is None else tls.cert,
            ssl_keyfile=None if tls is None else tls.key,
            server_header=False,
            proxy_headers=False,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="api-service", daemon=True)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._secure else 'http'}://{host}:{self.port}"

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def __enter__(self) -> ServiceServer:
        self._thread.start()
        until = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                self.close()
                raise ServiceNotStarted
            time.sleep(0.01)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Refuse what comes, end streams, answer what is under way."""
        self._service.close()
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(2 * _STOP_S)
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


def _listener(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    return listener
