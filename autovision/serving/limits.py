"""What requests may hold of a server, one by one and together: bytes, images, time.

A command line says them as `NAME=NUMBER`.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TypeVar

from autovision.errors import InvalidInput, near
from autovision.serving.problems import DeadlineExceeded, QueueFull, TooManyAtOnce, TooManyImages

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What is refused, and when."""

    max_body_bytes: int = 32 * 2**20
    """of one request; more are refused with 413"""
    max_images: int = 32
    """in one request; more are refused with 413"""
    max_waiting: int = 128
    """images in a replica's queue; more are refused with 503"""
    body_timeout_s: float = 30.0
    """from a request's headers to the end of its body; a slower client is cut off with 408"""
    deadline_s: float = 30.0
    """from the end of the body to the answer; then 504, and an image that still waits is not predicted any more"""
    max_held_bytes: int = 512 * 2**20
    """of all requests that are being read or answered; more are refused with 503"""
    max_images_per_token: int = 64
    """that one token may have in this replica at once; more are refused with 429"""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise InvalidInput(f"limit {name} is {value!r}; use a number above 0")

    @classmethod
    def parse(cls, settings: Iterable[str]) -> Limits:
        """Limits from texts such as `max_images=8`; those that are not named are as they are without.

        Raises `InvalidInput` for an unknown name, one that is given twice, and what is no number above 0.
        """
        kinds: dict[str, type[int] | type[float]] = {
            each.name: int if isinstance(each.default, int) else float for each in fields(cls)
        }
        given: dict[str, float] = {}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if name not in kinds or not equals:
                known = ", ".join(kinds)
                raise InvalidInput(f"limit {setting!r}{near(name, kinds)}; give NAME=NUMBER, of {known}")
            if name in given:
                raise InvalidInput(f"limit {name} is given twice; give it once")
            try:
                given[name] = kinds[name](text)
            except ValueError:
                kind = "a whole number" if kinds[name] is int else "a number"
                raise InvalidInput(f"limit {name} is {text!r}; it is {kind} above 0") from None
        return cls(**given)  # type: ignore[arg-type]


class Visit:
    """What one request holds while it is being read and answered."""

    def __init__(self, gate: Gate, caller: str | None) -> None:
        self._gate = gate
        self._caller = caller
        self._bytes = 0
        self._images = 0

    def hold_bytes(self, size: int) -> None:
        """Raises `QueueFull` if all requests together would hold too many."""
        gate = self._gate
        if gate.held_bytes + size > gate.limits.max_held_bytes:
            raise QueueFull("the server holds as many bytes of requests as it may; try again in a moment")
        gate.held_bytes += size
        self._bytes += size

    def hold_images(self, count: int) -> None:
        """Raises `TooManyImages` for one request that has too many, `TooManyAtOnce` for a caller that has."""
        limits = self._gate.limits
        # More would be told to come back for ever: the queue, or the caller's share, never has room for them.
        most = min(limits.max_images, limits.max_waiting)
        if self._caller is not None:
            most = min(most, limits.max_images_per_token)
        if self._images + count > most:
            raise TooManyImages(
                f"the request holds {self._images + count} images, and {most} are taken at once; send them in "
                "several requests"
            )
        if self._caller is not None:
            of_caller = self._gate.images
            if of_caller[self._caller] + count > limits.max_images_per_token:
                raise TooManyAtOnce
            of_caller[self._caller] += count
        self._images += count

    def leave(self) -> None:
        """Give everything back."""
        self._gate.held_bytes -= self._bytes
        if self._caller is not None:
            left = self._gate.images[self._caller] - self._images
            if left > 0:
                self._gate.images[self._caller] = left
            else:
                # Or a name would stay behind of every token that ever called.
                del self._gate.images[self._caller]


class Gate:
    """Counts what all requests hold. Used on one event loop, so it needs no lock."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held_bytes = 0
        self.images: Counter[str] = Counter()
        """images in the server, by the token's id"""

    @contextmanager
    def visit(self, caller: str | None) -> Iterator[Visit]:
        """A request's stay; `caller` is None where nobody has to say who they are."""
        visit = Visit(self, caller)
        try:
            yield visit
        finally:
            visit.leave()


async def within(seconds: float, awaited: Awaitable[T]) -> T:
    """What is awaited, or `DeadlineExceeded` after so many seconds, and it is cancelled."""
    try:
        async with asyncio.timeout(seconds) as deadline:
            return await awaited
    except TimeoutError:
        if deadline.expired():
            raise DeadlineExceeded(
                f"not answered within {seconds:g} s; try again, or allow the request more time"
            ) from None
        raise
