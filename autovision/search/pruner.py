"""Asynchronous successive halving (Li et al. 2020), as a plain object that knows no Ray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from autovision.space.config import TrialConfig


def kind_of(config: TrialConfig) -> str:
    """Trials of a kind are pruned among themselves: a fine-tuned one starts from a trained head, and costs more."""
    return "fine-tuned" if config.needs_maps else "head"


@dataclass
class AsyncHalving:
    """At each rung a trial goes on if it is among the best 1/`reduction` that have come so far.

    Trials of different cost kinds (`group`) are compared with their own kind only. Until `reduction`
    trials have reached a rung there is nothing to compare with, and all go on.
    """

    reduction: int = 3
    _values: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    def goes_on(self, group: str, rung: int, value: float) -> bool:
        """Record the value of a trial at a rung, and decide. NaN is worse than everything."""
        score = -math.inf if math.isnan(value) else value
        values = self._values.setdefault((group, rung), [])
        values.append(score)
        if len(values) < self.reduction:
            return score > -math.inf
        return score >= self.needed(group, rung) and score > -math.inf

    def needed(self, group: str, rung: int) -> float:
        """The least value with which a trial goes on from a rung by now."""
        values = self.values(group, rung)
        if len(values) < self.reduction:
            return -math.inf
        return sorted(values, reverse=True)[max(1, len(values) // self.reduction) - 1]

    def values(self, group: str, rung: int) -> Sequence[float]:
        """Of all that have come to a rung."""
        return self._values.get((group, rung), ())
