"""Reading a ledger: which trial is the best, and how many ended how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from autovision.records.trials import TrialResult, TrialState


def best_trial(ledger: Sequence[TrialResult]) -> TrialResult | None:
    """The trial with the highest value that left weights; of equals the cheapest, and then the earliest."""
    usable = [r for r in ledger if r.value is not None and r.weights_key is not None]
    return min(usable, key=rank, default=None)


def rank(result: TrialResult) -> tuple[float, ...]:
    """What trials that have a value are sorted by, the best first."""
    return (-(result.value or 0.0), *result.objectives.values(), result.number)


class Tally:
    """What `counts` gives of a growing ledger, without reading all of it each time."""

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._of = Counter[str]()
        self.best: TrialResult | None = None
        self.valued = False
        """whether any trial had a value"""

    def add(self, result: TrialResult) -> None:
        self._of.update({name: n for name, n in counts([result], self._metric).items() if name in _KINDS})
        self.consider(result)

    def consider(self, result: TrialResult) -> None:
        """A trial that has not ended may be the best so far, but does not count yet."""
        self.valued = self.valued or result.value is not None
        self.best = best_trial([result] if self.best is None else [self.best, result])

    def counts(self) -> dict[str, Any]:
        """As `counts`."""
        return {name: self._of[name] for name in _KINDS} | _told(self.best, self._metric)


_KINDS = ("complete", "pruned", "failed", "late")


def counts(ledger: Sequence[TrialResult], metric: str) -> dict[str, Any]:
    """How many trials ended how, and the best: the fields of a `ProgressEvent`."""
    states = [result.state for result in ledger]
    valued = [result.state for result in ledger if result.value is not None]
    best = best_trial(ledger)
    return {
        "complete": valued.count(TrialState.COMPLETE) + valued.count(TrialState.STOPPED),
        "pruned": states.count(TrialState.PRUNED),
        "failed": states.count(TrialState.FAILED),
        "late": states.count(TrialState.STOPPED) - valued.count(TrialState.STOPPED),
        **_told(best, metric),
    }


def _told(best: TrialResult | None, metric: str) -> dict[str, Any]:
    return {
        "best_value": best.metrics[metric] if best else None,
        "best_config": best.config if best else {},
    }
