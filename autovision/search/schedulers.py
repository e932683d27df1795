"""Which of the trials that have reported go on: decisions on plain figures, without Ray.

    halving   pauses whoever is not among the best third at its cost, and promotes it when it is (the default)
    asha      stops whoever is not among the best third at its rung, for good (as Ray Tune's ASHA does)
    median    stops whoever is worse than the median of the others at its cost
    none      lets all trials go on to their end

Population-based training (Jaderberg et al. 2017) is not among them. Its trials take over each other's weights and
change their rates on the way, so that what wins has a history and no configuration: it could not be trained again on
train and validation, told to a sampler, tried by a later search, or repeated from its seed, and all that is what a
trial is for here. The schedules that it would find are parameters instead: warm-up, cosine, rates by layer, gradual
unfreezing. And it takes a population that is at work all at once, for long beside what a checkpoint takes, where most
trainings here last seconds.
"""

from __future__ import annotations

import bisect
import heapq
import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from autovision.errors import InvalidInput, near
from autovision.space.config import TrialConfig

_REDUCTION = 3
_FIRST_COST_S = 0.01
_LEVELS = 20
"""the last one begins at about a hundred days"""
_NO_POPULATION = (
    "what population-based training ends with has no configuration that could be trained again, on more images or by a "
    "later search; schedules are parameters of the space instead"
)
_LEAST_PEERS = 3
"""with fewer, itself included, there is nothing to compare with"""


class Verdict(StrEnum):
    """What becomes of a trial that has reported."""

    GO_ON = "go on"
    PAUSE = "pause"
    """its checkpoint is kept, and it may go on later"""
    STOP = "stop"


@dataclass(frozen=True)
class Report:
    """What a trial has come to.

    Attributes:
        kind: trials are compared with those of their kind only; see `kind_of`.
        rung: counted from 0; a share of the trial's own epochs.
        cost_s: seconds of training so far, as measured, without frozen features, which others share.
        value: by which trials are ranked; NaN is worse than everything.
        done: it has ended by itself.
    """

    trial: str
    kind: str
    rung: int
    cost_s: float
    value: float
    done: bool = False

    @property
    def score(self) -> float:
        return -math.inf if math.isnan(self.value) else self.value


def kind_of(config: TrialConfig) -> str:
    """Heads on pooled features, and trials that train on maps: those start from a trained head, and cost more."""
    return "fine-tuned" if config.needs_maps else "head"


class Scheduler(ABC):
    """Takes in reports as they come, in whatever order trials happen to report.

    Trials are compared at *levels*: of each, what it had come to there. One that passed over a level had there what it
    had come to before; one that has ended is there at every later level with what it ended with.
    """

    behind = Verdict.STOP
    """what becomes of a trial that has less than it needs"""

    def __init__(self) -> None:
        self._last: dict[str, Report] = {}
        self._places: dict[str, tuple[str, int]] = {}
        """trial -> kind and level of its last report"""
        self._scores: dict[tuple[str, int], list[float]] = {}
        """ascending, by kind and level"""
        self._waiting: dict[tuple[str, int], list[tuple[float, str]]] = {}
        """paused trials, where they are compared, the best first; each with its score, negated"""

    @abstractmethod
    def level(self, report: Report) -> int:
        """Where a report is compared with others."""

    @abstractmethod
    def _threshold(self, scores: Sequence[float]) -> float:
        """What a trial needs among these, which ascend."""

    def judge(self, report: Report) -> Verdict:
        """Record a report, and decide."""
        self._record(report)
        if report.score == -math.inf:
            return Verdict.STOP
        return Verdict.GO_ON if report.score >= self.needed(report) else self.behind

    def _record(self, report: Report) -> None:
        level, before = self.level(report), self._last.get(report.trial)
        if before is not None:
            known = self.level(before)
            if known >= level:
                level = known  # what it has come to there is this by now
                self.scores(before).remove(before.score)
            for passed in range(known + 1, level):
                self._insert(report.kind, passed, before.score)
        self._insert(report.kind, level, report.score)
        if report.done:
            for later in range(level + 1, _LEVELS):
                self._insert(report.kind, later, report.score)
        self._last[report.trial] = report
        self._places[report.trial] = (report.kind, self.level(report))

    def _insert(self, kind: str, level: int, score: float) -> None:
        bisect.insort(self._scores.setdefault((kind, level), []), score)

    def scores(self, report: Report) -> list[float]:
        """What the trials that it is compared with have come to there, its own included; ascending."""
        return self._scores.get((report.kind, self.level(report)), [])

    def needed(self, report: Report) -> float:
        """The least value with which a trial goes on from there by now; minus infinity: any."""
        return self._needed_at((report.kind, self.level(report)))

    def _needed_at(self, place: tuple[str, int]) -> float:
        scores = self._scores.get(place, [])
        return self._threshold(scores) if len(scores) >= _LEAST_PEERS else -math.inf

    # Which of the paused ones go on is asked before every trial, and thousands may be paused: they are kept in order.

    def waits(self, trial: str) -> None:
        """A trial that has reported is paused, and may be promoted."""
        bisect.insort(self._waiting.setdefault(self._places[trial], []), (-self._last[trial].score, trial))

    def waits_no_more(self, trial: str) -> None:
        """A paused trial goes on, or ends."""
        waiting = self._waiting[self._places[trial]]
        del waiting[bisect.bisect_left(waiting, (-self._last[trial].score, trial))]

    def promoted(self) -> list[str]:
        """Those of the paused trials that go on now, the best first."""
        found: list[tuple[float, str]] = []
        for place, waiting in self._waiting.items():
            if waiting:
                found += waiting[: bisect.bisect_right(waiting, -self._needed_at(place), key=lambda w: w[0])]
        return [trial for _, trial in sorted(found)]

    def best_first(self) -> Iterator[str]:
        """The paused trials, whether they would be promoted or not."""
        return (trial for _, trial in heapq.merge(*self._waiting.values()))


class _ByCost(Scheduler):
    """Compares trials that have cost about as much: a cheap one that got far is what a dear one has to beat."""

    def level(self, report: Report) -> int:
        """Each level costs three times as much as the one before, from a hundredth of a second on."""
        steps = math.log(max(report.cost_s, _FIRST_COST_S) / _FIRST_COST_S) / math.log(_REDUCTION)
        return min(round(steps), _LEVELS - 1)


def _best_third(scores: Sequence[float]) -> float:
    return scores[len(scores) - max(1, len(scores) // _REDUCTION)]


class Halving(_ByCost):
    """Asynchronous successive halving (Li et al. 2020) on measured cost, with a reduction of three.

    Who is not among the best third is paused, not stopped: when more trials have come to that cost, it may be.
    """

    behind = Verdict.PAUSE

    def _threshold(self, scores: Sequence[float]) -> float:
        return _best_third(scores)


class PlainHalving(Scheduler):
    """Asynchronous successive halving by rungs that only stops, as Ray Tune has it; but NaN is the worst value."""

    def level(self, report: Report) -> int:
        return report.rung

    def _threshold(self, scores: Sequence[float]) -> float:
        return _best_third(scores)


class MedianStopping(_ByCost):
    """Stops whoever is worse than the median of the others (Golovin et al. 2017): no early risks."""

    def _threshold(self, scores: Sequence[float]) -> float:
        return statistics.median(scores)


class Patient(PlainHalving):
    """Lets all trials go on to their end."""

    def _threshold(self, scores: Sequence[float]) -> float:
        return -math.inf


SCHEDULERS: dict[str, type[Scheduler]] = {
    "halving": Halving,
    "asha": PlainHalving,
    "median": MedianStopping,
    "none": Patient,
}


def scheduler_of(name: str) -> Scheduler:
    """A new scheduler. Raises `InvalidInput` for a name that there is not."""
    if name not in SCHEDULERS:
        why = f" ({_NO_POPULATION})" if name.lower().startswith(("pbt", "population")) else ""
        raise InvalidInput(
            f"there is no scheduler {name!r}; choose one of {', '.join(SCHEDULERS)}{near(name, SCHEDULERS)}{why}"
        )
    return SCHEDULERS[name]()
