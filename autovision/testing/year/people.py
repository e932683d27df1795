"""Who labels: a share of the requests, days later, not always right, and some of them twice."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from autovision.records.deployments import Label
from autovision.testing.year.world import CLASSES


@dataclass
class People:
    """Annotators with words that are not yet said."""

    seed: int = 0
    share: float = 0.15
    """of the requests that are labelled"""
    wrong: float = 0.05
    """of all words"""
    twice: float = 0.2
    """of the labelled requests, on which a second one speaks, too"""
    median_days: float = 3.0
    """until a label comes; one in forty takes more than seven times as long"""
    _waiting: list[tuple[datetime, int, Label]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng([self.seed, 3])
        self._numbers = itertools.count()

    def see(self, request_id: str, truth: str, at: datetime) -> None:
        """A request that may be labelled some day."""
        rng = self._rng
        chosen, second = rng.random() < self.share, rng.random() < self.twice
        if not chosen:
            return
        for annotator in ("ada", "ben")[: 1 + second]:
            delay = timedelta(days=self.median_days * float(np.exp(rng.normal())))
            other = CLASSES[1 - CLASSES.index(truth)]
            said = other if rng.random() < self.wrong else truth
            due = at + delay
            word = Label(request_id=request_id, label=said, annotator=annotator, received_at=due)
            heapq.heappush(self._waiting, (due, next(self._numbers), word))

    def due(self, at: datetime) -> list[Label]:
        """The words that are said by then; they are not said again."""
        found = []
        while self._waiting and self._waiting[0][0] <= at:
            found.append(heapq.heappop(self._waiting)[2])
        return found

    def again(self, words: list[Label], at: datetime) -> None:
        """Words that could not be stored are said again, later."""
        for word in words:
            late = word.model_copy(update={"received_at": at})
            heapq.heappush(self._waiting, (at, next(self._numbers), late))
