"""Whose turn it is to compute, where several models of a process share its processors.

There are as many places as there are lanes. Who computes on one thread takes one of them, who computes on all threads
takes all: two that compute on all at once take twice as long each, and whoever is called at the time waits for both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition
from time import monotonic

PATIENCE_S = 0.4
LONGEST_S = 1.0
YIELDS_AFTER_S = 0.1
POLL_S = 0.05


@dataclass(eq=False)
class Turn:
    """A turn that somebody has.

    Attributes:
        places: that it takes.
        until: when it no longer holds others up.
        wide: whether all threads were used.
    """

    turns: Turns
    places: int
    until: float
    wide: bool = False

    def widen(self) -> bool:
        """Whether nobody else computes or waits; then all threads may be used. Whoever comes now is not held up."""
        self.wide = self.turns.is_alone(self)
        return self.wide


class Turns:
    """Places, given in the order in which they are asked for; whoever yields comes after all others, but in the end,
    too.

    Args:
        places: how many there are.
        patience_s: so long one that yields lets others go before it, since it asked.
        longest_s: so long a turn holds others up: a model that hangs keeps no other from answering.
        yields_after_s: the same of a turn whose owner yields.
        clock: seconds.
    """

    def __init__(
        self,
        places: int = 1,
        *,
        patience_s: float = PATIENCE_S,
        longest_s: float = LONGEST_S,
        yields_after_s: float = YIELDS_AFTER_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.places = places
        self._patience_s = patience_s
        self._longest_s = longest_s
        self._yields_after_s = yields_after_s
        self._clock = clock
        self._changed = Condition()
        self._line: deque[object] = deque()
        """who waits, without those that yield"""
        self._held: list[Turn] = []

    @contextmanager
    def mine(self, *, yields: bool = False, places: int | None = None) -> Iterator[Turn]:
        """Waits for a turn, and has it until the context ends.

        Args:
            yields: whether what is computed can wait, since no caller does. It begins while nobody else computes, or
                once its patience is over.
            places: None: all.
        """
        turn = self._wait(self.places if places is None else min(places, self.places), yields)
        try:
            yield turn
        finally:
            with self._changed:
                self._held.remove(turn)
                if self._line or not self._held:
                    self._changed.notify_all()

    def is_alone(self, turn: Turn) -> bool:
        """Whether no other holds anybody up, and nobody waits."""
        with self._changed:
            now = self._clock()
            return not self._line and all(each is turn or now >= each.until for each in self._held)

    def _wait(self, places: int, yields: bool) -> Turn:
        me, since, in_line = object(), self._clock(), not yields
        with self._changed:
            if in_line:
                self._line.append(me)
            # One that yields leaves other places to callers, but not one that they are about to want.
            while not self._are_free(places if in_line else self.places) or (
                self._line and self._line[0] is not me
            ):
                if not in_line and self._clock() - since >= self._patience_s:
                    in_line = True
                    self._line.append(me)
                else:
                    self._changed.wait(POLL_S)
            if in_line:
                self._line.popleft()
            holds_s = self._yields_after_s if yields else self._longest_s
            turn = Turn(self, places, self._clock() + holds_s)
            self._held.append(turn)
            if self._line:
                self._changed.notify_all()
            return turn

    def _are_free(self, places: int) -> bool:
        now = self._clock()
        return sum(turn.places for turn in self._held if now < turn.until) + places <= self.places
