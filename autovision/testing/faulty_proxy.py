"""An HTTP proxy on loopback through which requests go wrong, in ways that are drawn or dictated.

    with FaultyProxy("http://127.0.0.1:5000", rate=0.2, seed=1) as proxy:
        store = open_store(f"s3://bucket?endpoint={proxy.url}")

Whether the server has seen a request that went wrong is what the client cannot know; each `Fault` says which it is.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit


class Fault(Enum):
    """What becomes of one request."""

    ERROR_BEFORE = "answered with 500; the server has not seen it"
    ERROR_AFTER = "carried out, and answered with 500"
    SLOW_DOWN = "answered with 503 SlowDown; the server has not seen it"
    RESET_BEFORE = "reset; the server has not seen it"
    RESET_AFTER = "carried out, then reset without an answer"
    CUT_UPLOAD = "half of its body reaches the server, then both connections are reset"
    CUT_ANSWER = "carried out; the answer breaks off in its middle"
    STALL = "carried out; the answer stops in its middle until the client, or the proxy, gives up"
    TRICKLE = "carried out; the answer comes in small pieces with pauses"
    TWICE = "carried out twice; the second answer is given"
    LATE = "reset, and carried out a moment later"


_TRICKLE_S, _LATE_S = 0.002, 0.03
_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)
_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "expect"}


class _Request(NamedTuple):
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes


class _Answer(NamedTuple):
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    length: str


class FaultyProxy:
    """Forwards requests to `upstream`; of those, a share of `rate` meets one of `faults`.

    An answer that stalls is given up after `stall_s` even if the client still waits.

    Args:
        dropped: headers, in lower case, that do not come through: as with a server that does not know them.

    Attributes:
        seen: how often each fault has happened.
    """

    def __init__(
        self,
        upstream: str,
        *,
        rate: float = 0.0,
        faults: Sequence[Fault] = tuple(Fault),
        seed: int = 0,
        stall_s: float = 0.5,
        dropped: Sequence[str] = (),
    ) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.rate, self.faults, self._stall_s = rate, tuple(faults), stall_s
        self.dropped = tuple(dropped)
        self.seen: Counter[Fault] = Counter()
        self.requests = 0
        self._random = random.Random(seed)
        self._next: list[Fault | bytes | None] = []
        self._lock = threading.Lock()
        self._on_its_way = 0
        self._arrived = threading.Condition(self._lock)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="faulty-proxy", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Waking `accept` up needs more than closing what it waits on.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def dictate(self, *faults: Fault | bytes | None) -> None:
        """What becomes of the next requests in turn: a fault, an answer in the server's place, or None of that."""
        with self._lock:
            self._next.extend(faults)

    def settle(self) -> None:
        """Return when every request that is on its way to the server has been carried out."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._on_its_way == 0)

    # ---------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        upstream = HTTPConnection(*self._upstream, timeout=30)
        with client, suppress(OSError, HTTPException):
            lines = _Lines(client)
            while (request := _read(lines, client)) is not None:
                known = [each for each in request.headers if not each[0].lower().startswith(self.dropped)]
                request = request._replace(headers=known if self.dropped else request.headers)
                if not self._answer(client, request, upstream, self._drawn()):
                    break
        upstream.close()

    def _drawn(self) -> Fault | bytes | None:
        with self._lock:
            self.requests += 1
            drawn: Fault | bytes | None = None
            if self._next:
                drawn = self._next.pop(0)
            elif self._random.random() < self.rate:
                drawn = self._random.choice(self.faults)
            if isinstance(drawn, Fault):
                self.seen[drawn] += 1
            return drawn

    def _answer(
        self, client: socket.socket, request: _Request, upstream: HTTPConnection, fault: Fault | bytes | None
    ) -> bool:
        """Whether the connection is still of use."""
        match fault:
            case bytes():
                client.sendall(fault)
            case Fault.ERROR_BEFORE | Fault.SLOW_DOWN:
                _send(client, request, _error(fault))
            case Fault.RESET_BEFORE:
                _reset(client)
            case Fault.LATE:
                self._late(client, request, upstream)
            case Fault.CUT_UPLOAD:
                if request.body:
                    _forward_half(self._upstream, request)
                _reset(client)
            case _:
                answer = _forward(upstream, request)
                return self._after(client, request, answer, upstream, fault)
        return fault in (Fault.ERROR_BEFORE, Fault.SLOW_DOWN)

    def _late(self, client: socket.socket, request: _Request, upstream: HTTPConnection) -> None:
        with self._lock:
            self._on_its_way += 1
        try:
            _reset(client)
            time.sleep(_LATE_S)
            _forward(upstream, request)
        finally:
            with self._arrived:
                self._on_its_way -= 1
                self._arrived.notify_all()

    def _after(
        self,
        client: socket.socket,
        request: _Request,
        answer: _Answer,
        upstream: HTTPConnection,
        fault: Fault | None,
    ) -> bool:
        match fault:
            case Fault.RESET_AFTER:
                _reset(client)
            case Fault.ERROR_AFTER:
                _send(client, request, _error(fault))
                return True
            case Fault.TWICE:
                _send(client, request, _forward(upstream, request))
                return True
            case Fault.CUT_ANSWER | Fault.STALL:
                whole = _bytes_of(request, answer)
                client.sendall(whole[: max(1, len(whole) - max(1, len(answer.body) // 2))])
                if fault is Fault.STALL:
                    client.settimeout(self._stall_s)
                    with suppress(OSError):
                        client.recv(1)  # nothing comes; that it ends tells that the client has gone
                _reset(client)
            case Fault.TRICKLE:
                whole = _bytes_of(request, answer)
                step = max(1, len(whole) // 20)
                for begin in range(0, len(whole), step):
                    client.sendall(whole[begin : begin + step])
                    time.sleep(_TRICKLE_S)
                return True
            case _:
                _send(client, request, answer)
                return True
        return False


class _Lines:
    """Reads a socket by lines and sizes, without keeping it from being closed as a file made of it would."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._held = b""

    def line(self) -> str:
        while b"\n" not in self._held and self._more():
            pass
        line, _, self._held = self._held.partition(b"\n")
        return line.decode("latin-1").strip()

    def read(self, size: int) -> bytes:
        while len(self._held) < size and self._more():
            pass
        data, self._held = self._held[:size], self._held[size:]
        return data

    def _more(self) -> bool:
        data = self._connection.recv(1 << 18)
        self._held += data
        return bool(data)


def _read(lines: _Lines, client: socket.socket) -> _Request | None:
    first = lines.line()
    if not first:
        return None
    method, target, _ = first.split(" ", 2)
    headers = []
    while (line := lines.line()) != "":
        name, _, value = line.partition(":")
        headers.append((name, value.strip()))
    said = {name.lower(): value for name, value in headers}
    if said.get("expect", "").lower() == "100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    size = int(said.get("content-length", 0))
    body = lines.read(size)
    return _Request(method, target, headers, body) if len(body) == size else None


def _forward(upstream: HTTPConnection, request: _Request) -> _Answer:
    try:
        return _ask(upstream, request)
    except (HTTPException, OSError):
        upstream.close()  # the server has closed an idle connection
        return _ask(upstream, request)


def _ask(upstream: HTTPConnection, request: _Request) -> _Answer:
    upstream.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
    for name, value in request.headers:
        if name.lower() not in _HOP:
            upstream.putheader(name, value)
    if request.body or request.method in ("PUT", "POST"):
        upstream.putheader("Content-Length", str(len(request.body)))
    upstream.endheaders(request.body or None)
    answer = upstream.getresponse()
    body = answer.read()
    headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
    return _Answer(
        answer.status, answer.reason, headers, body, answer.getheader("content-length") or str(len(body))
    )


def _forward_half(address: tuple[str, int], request: _Request) -> None:
    with socket.create_connection(address, timeout=30) as server:
        head = [f"{request.method} {request.target} HTTP/1.1"]
        head += [f"{name}: {value}" for name, value in request.headers if name.lower() != "expect"]
        server.sendall("\r\n".join([*head, "", ""]).encode("latin-1"))
        server.sendall(request.body[: len(request.body) // 2])
        _reset(server)


def _bytes_of(request: _Request, answer: _Answer) -> bytes:
    empty = request.method == "HEAD" or answer.status in (204, 304)
    length = answer.length if request.method == "HEAD" else str(len(answer.body))
    head = [f"HTTP/1.1 {answer.status} {answer.reason}"]
    head += [f"{name}: {value}" for name, value in answer.headers]
    head += [] if answer.status in (204, 304) else [f"Content-Length: {length}"]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + (b"" if empty else answer.body)


def _send(client: socket.socket, request: _Request, answer: _Answer) -> None:
    client.sendall(_bytes_of(request, answer))


def _error(fault: Fault) -> _Answer:
    if fault is Fault.SLOW_DOWN:
        return _Answer(
            503, "Slow Down", [("Content-Type", "application/xml")], _SLOW_DOWN, str(len(_SLOW_DOWN))
        )
    return _Answer(500, "Internal Server Error", [], b"", "0")


def _reset(connection: socket.socket) -> None:
    """Close with RST: the other side sees an error, not an end."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
