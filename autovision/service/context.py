"""What all routes work with, and how they come to it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request

from autovision.api import AutoVision
from autovision.records.base import now
from autovision.service.metrics import ServiceMetrics
from autovision.service.problems import Busy, TooManyStreams
from autovision.serving.auth import TokenBook
from autovision.store.protocol import Store


@dataclass(frozen=True)
class Limits:
    """What the service takes, and how long it takes over it."""

    max_body_bytes: int = 256 * 1024
    body_timeout_s: float = 15.0
    max_streams: int = 256
    """of events, of all callers"""
    max_streams_per_token: int = 16
    stream_s: float = 3600.0
    """after which a stream is ended; whoever wants to know more asks again from the last event"""
    heartbeat_s: float = 15.0
    poll_s: float = 1.0
    """between two looks at a search that is followed"""
    heavy: int = 2
    """comparisons and explanations at once, which compute"""


class Room:
    """Counts what is under way. Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._streams: Counter[str] = Counter()
        self._heavy = 0

    @property
    def streams(self) -> int:
        """Open now."""
        with self._lock:
            return self._streams.total()

    @contextmanager
    def stream(self, caller: str) -> Iterator[None]:
        """A stream's stay. Raises `Busy`, `TooManyStreams`."""
        with self._lock:
            if self._streams.total() >= self._limits.max_streams:
                raise Busy
            if self._streams[caller] >= self._limits.max_streams_per_token:
                raise TooManyStreams
            self._streams[caller] += 1
        try:
            yield
        finally:
            with self._lock:
                self._streams[caller] -= 1
                # Or a name would stay behind of everybody who ever called.
                self._streams += Counter()

    @contextmanager
    def heavy(self) -> Iterator[None]:
        """The stay of a request that computes. Raises `Busy`."""
        with self._lock:
            if self._heavy >= self._limits.heavy:
                raise Busy
            self._heavy += 1
        try:
            yield
        finally:
            with self._lock:
                self._heavy -= 1


@dataclass(frozen=True)
class Context:
    """The store, and what stands around it.

    Attributes:
        book: the tokens; None: everyone may do everything.
        closing: set when the service shuts down, so that streams end.
    """

    store: Store
    av: AutoVision
    book: TokenBook | None
    room: Room
    limits: Limits
    metrics: ServiceMetrics
    clock: Callable[[], datetime] = now
    closing: threading.Event = field(default_factory=threading.Event)


async def _context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


Ctx = Annotated[Context, Depends(_context)]
