"""Load on an HTTP server over loopback: closed loops, and an open one whose requests do not wait for one another.

A process of its own, with raw HTTP/1.1 on kept connections, so that it takes little of what the server needs:

    python tests/benchmarks/load.py '{"host": "127.0.0.1", "port": 8000, "path": "/v1/predict", "files": [...], ...}'

It prints a JSON document with what it saw. Latencies of an open loop count from when a request was due, so that a
server that stalls is not spared the requests that it kept from being sent (coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Plan:
    """What to send.

    Attributes:
        files: whose bytes are sent, in turn.
        connections: of a closed loop, each with one request at a time; of an open one, at most.
        rate: requests per second of an open loop, at random times (Poisson); None: a closed one.
        warm_s: seconds before anything is counted.
    """

    host: str
    port: int
    path: str
    files: list[str]
    seconds: float
    connections: int
    rate: float | None = None
    warm_s: float = 1.0
    content_type: str = "application/octet-stream"
    multipart: str | None = None
    """name of the form's field, for servers that take no plain bodies"""
    seed: int = 0


@dataclass
class Seen:
    """What came of it. Seconds of each good answer, since when it was due (from the load's begin), and failures."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    due: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return len(self.latencies) / self.seconds

    def quantile_ms(self, part: float, since: float = 0.0, until: float = float("inf")) -> float:
        """Of the answers that were due between two times."""
        pairs = zip(self.due, self.latencies, strict=True)
        ordered = sorted(latency for due, latency in pairs if since <= due < until)
        return 1e3 * ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


def run(plan: Plan) -> Seen:
    """In a process of its own."""
    return seen(begin(plan))


def begin(plan: Plan) -> subprocess.Popen[str]:
    """Begin without waiting for the end, which `seen` does."""
    command = [sys.executable, __file__, json.dumps(asdict(plan))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def seen(process: subprocess.Popen[str]) -> Seen:
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit("the load ended early; its error is above")
    return Seen(**json.loads(said))


class Client:
    """Sends what a plan says."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.requests = [_request(plan, Path(each).read_bytes()) for each in plan.files]
        self.sent = 0
        self.latencies: list[float] = []
        self.due: list[float] = []
        self.failures: Counter[str] = Counter()
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def run(self) -> Seen:
        begun = self.begun = time.perf_counter()
        self.counts_from = begun + self.plan.warm_s
        self.until = self.counts_from + self.plan.seconds
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._end)
        if self.plan.rate is None:
            await asyncio.gather(*(self._loop() for _ in range(self.plan.connections)))
        else:
            await self._open(self.plan.rate)
        for _, writer in self.idle:
            writer.close()
        return Seen(self.until - self.counts_from, self.latencies, self.due, dict(self.failures))

    def _end(self) -> None:
        """Send no more; those under way are waited for."""
        self.until = min(self.until, time.perf_counter())

    async def _loop(self) -> None:
        while (now := time.perf_counter()) < self.until:
            await self._one(now)

    async def _open(self, rate: float) -> None:
        rng, due, under_way = random.Random(self.plan.seed), time.perf_counter(), set()
        while (due := due + rng.expovariate(rate)) < self.until:
            if (pause_s := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause_s)
            if len(under_way) >= self.plan.connections:
                self._count(due, "no connection left")
                continue
            task = asyncio.create_task(self._one(due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        if under_way:
            await asyncio.wait(under_way, timeout=30)

    async def _one(self, due: float) -> None:
        request = self.requests[self.sent % len(self.requests)]
        self.sent += 1
        try:
            reader, writer = self._kept() or await asyncio.open_connection(self.plan.host, self.plan.port)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_length(head))
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self._count(due, type(error).__name__)
            return
        if b"connection: close" in head.lower():
            writer.close()
        else:
            self.idle.append((reader, writer))
        status = head.split(b" ", 2)[1].decode()
        self._count(due, None if status == "200" else status)

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection that is open still: servers close those that nobody used for a minute, as HTTP clients know."""
        while self.idle:
            reader, writer = self.idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return None

    def _count(self, due: float, fault: str | None) -> None:
        if due < self.counts_from:
            return
        if fault is not None:
            self.failures[fault] += 1
        elif (now := time.perf_counter()) <= self.until or self.plan.rate is not None:
            self.latencies.append(now - due)
            self.due.append(due - self.begun)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("an answer without a length")


def _request(plan: Plan, image: bytes) -> bytes:
    body, kind = image, plan.content_type
    if plan.multipart is not None:
        edge = "a1b2c3d4e5f6"
        part = (
            f'--{edge}\r\nContent-Disposition: form-data; name="{plan.multipart}"; filename="image"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = part.encode() + image + f"\r\n--{edge}--\r\n".encode()
        kind = f"multipart/form-data; boundary={edge}"
    head = (
        f"POST {plan.path} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    import uvloop

    plan: dict[str, Any] = json.loads(sys.argv[1])
    print(json.dumps(asdict(uvloop.run(Client(Plan(**plan)).run()))))


if __name__ == "__main__":
    main()
