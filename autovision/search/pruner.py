"""Asynchronous successive halving (Li et al. 2020), as a plain object that knows no Ray."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


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
        best = sorted(values, reverse=True)[: max(1, len(values) // self.reduction)]
        return score >= best[-1] and score > -math.inf
