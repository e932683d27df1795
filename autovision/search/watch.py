"""Looks at a search while it runs: whether it may end early, and what data sets like its own have taught."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from autovision.records.searches import SearchRequest
from autovision.records.trials import TrialResult
from autovision.search import stopping
from autovision.search.driver import Driver
from autovision.search.stopping import Moment
from autovision.search.warm import Start
from autovision.space.config import TrialConfig
from autovision.trial.execution import value_of

_EVERY_S = 1.0


@dataclass
class Watch:
    """Called again and again while trials run; True ends them.

    Attributes:
        stop: whether somebody wants the search to stop.
        images: that trials are judged by.
        backbones: that the space may try.
        late_starts: gives starting points that could not be known before the first trial, once; None: not yet.
        ended_early: why the search ended by itself before its budget; None: it did not.
    """

    driver: Driver
    stop: Callable[[], bool]
    images: int
    backbones: tuple[str, ...] = ()
    late_starts: Callable[[], list[Start] | None] = lambda: None
    ended_early: str | None = None
    _looked: float = field(default=-_EVERY_S)
    _late: bool = True

    def __post_init__(self) -> None:
        self._begun_s = self.driver.clock() - self.driver.search_started
        """seconds of the search, of earlier attempts too, when this one's trials began"""

    def __call__(self) -> bool:
        if self.stop():
            self.driver.suspend()
            return True
        if self.ended_early is None and time.monotonic() - self._looked >= _EVERY_S:
            self._looked = time.monotonic()
            self.ended_early = self._reason()
            self._take_late_starts()
        return self.ended_early is not None

    def _reason(self) -> str | None:
        driver, request = self.driver, self.driver.request
        if request.patience_s is None and not request.converged:
            return None
        now_s = driver.clock() - driver.search_started
        ended = best_of_each(driver.ledger, request)
        if not ended:
            return None
        noise = stopping.noise_of(max(moment.value for moment in ended), self.images)
        if request.patience_s is not None:
            reported = [
                Moment(point.search_s, value_of(point.metrics, request.metric))
                for running in (*driver.running.values(), *driver.paused.values())
                for member in running.members
                for point in member.curve
            ]
            moments = [*all_of(driver.ledger, request), *reported]
            reason = stopping.impatient(moments, now_s, request.patience_s, noise, self._begun_s)
            if reason is not None:
                return reason
        if not request.converged:
            return None
        return stopping.converged(ended, now_s, driver.deadline - driver.clock(), noise, self._untried())

    def _untried(self) -> list[str]:
        """Backbones that have no value yet, and would have one before the budget ends."""
        driver = self.driver
        tried = {result.config["backbone"] for result in driver.ledger}
        remaining = driver.deadline - driver.clock()
        default = driver.space.config(driver.space.default())
        return [
            name
            for name in self.backbones
            if name not in tried
            and name not in driver.left_out
            and driver.cost.predicted_s(_with(default, name)) < remaining / 2
        ]

    def _take_late_starts(self) -> None:
        if self._late and (found := self.late_starts()) is not None:
            self._late = False
            self.driver.add_starts(found)


def _with(config: TrialConfig, backbone: str) -> TrialConfig:
    own = config.resolution if backbone == config.backbone else None
    return config.with_(backbone=backbone, resolution=own)


def all_of(ledger: list[TrialResult], request: SearchRequest) -> list[Moment]:
    """What the trials of a ledger came to, rung by rung."""
    return [
        Moment(point.search_s, value_of(point.metrics, request.metric))
        for result in ledger
        for point in result.curve
    ]


def best_of_each(ledger: list[TrialResult], request: SearchRequest) -> list[Moment]:
    """The best of each trial that has a value, in the order in which they ended."""
    found = [
        Moment(result.curve[-1].search_s, result.value)
        for result in ledger
        if result.value is not None and result.curve
    ]
    return sorted(found, key=lambda moment: moment.search_s)
