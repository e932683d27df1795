"""How long a request to S3 may take, and when it is sent again: full jitter (Brooker 2015) up to a deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Seconds, all of them. One operation sends its request as often as its deadline allows."""

    deadline_s: float = 60.0
    """of one request with all its repetitions; a large object has one for each of its parts"""
    unreachable_s: float = 8.0
    """the same while nothing has ever answered: more likely a wrong address than an outage"""
    connect_s: float = 5.0
    read_s: float = 20.0
    """without a byte from the other side"""
    least_bytes_per_s: float = 50_000.0
    """a body that comes slower than this for `read_s` seconds and more is asked for again"""
    first_pause_s: float = 0.1
    longest_pause_s: float = 5.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def tries(self, limit_s: Callable[[], float]) -> Iterator[int]:
        """Numbers of tries from 0 on, with a pause between them, until the time is up.

        Args:
            limit_s: how long from the first try on; asked after each.
        """
        begun = self.clock()
        number = 0
        while True:
            yield number
            # Drawn between nothing and the longest: those who failed together do not come back together.
            pause = random.uniform(0, min(self.longest_pause_s, self.first_pause_s * 2.0 ** min(number, 20)))
            if self.clock() - begun + pause > limit_s():
                return
            self.sleep(pause)
            number += 1

    def body_s(self, size_bytes: int) -> float:
        """How long a body of so many bytes may take."""
        return self.read_s + size_bytes / self.least_bytes_per_s
