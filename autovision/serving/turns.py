"""Whose turn it is to compute, where several models of a process share its processors.

Two that compute at once take twice as long each, and whoever is called at the time waits for both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from time import monotonic

PATIENCE_S = 0.4
LONGEST_S = 1.0
YIELDS_AFTER_S = 0.1
POLL_S = 0.05


class Turns:
    """One at a time, in the order in which they asked; whoever yields comes after all others, but in the end, too.

    Args:
        patience_s: so long one that yields lets others go before it, since it asked.
        longest_s: so long a turn holds others up: a model that hangs keeps no other from answering.
        yields_after_s: the same of a turn whose owner yields.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        patience_s: float = PATIENCE_S,
        longest_s: float = LONGEST_S,
        yields_after_s: float = YIELDS_AFTER_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._patience_s = patience_s
        self._longest_s = longest_s
        self._yields_after_s = yields_after_s
        self._clock = clock
        self._changed = Condition()
        self._line: deque[object] = deque()
        """who waits, without those that yield"""
        self._holder: object | None = None
        self._until = 0.0
        """when the holder's turn no longer holds others up"""

    @contextmanager
    def mine(self, *, yields: bool = False) -> Iterator[None]:
        """Waits for a turn, and has it until the context ends.

        Args:
            yields: whether what is computed can wait, since no caller does.
        """
        me = object()
        self._wait(me, yields)
        try:
            yield
        finally:
            with self._changed:
                if self._holder is me:
                    self._holder = None
                    self._changed.notify_all()

    def _wait(self, me: object, yields: bool) -> None:
        since, in_line = self._clock(), not yields
        with self._changed:
            if in_line:
                self._line.append(me)
            while not self._is_free() or (self._line and self._line[0] is not me):
                if not in_line and self._clock() - since >= self._patience_s:
                    in_line = True
                    self._line.append(me)
                else:
                    self._changed.wait(POLL_S)
            if in_line:
                self._line.popleft()
            holds_s = self._yields_after_s if yields else self._longest_s
            self._holder, self._until = me, self._clock() + holds_s
            self._changed.notify_all()

    def _is_free(self) -> bool:
        return self._holder is None or self._clock() >= self._until
