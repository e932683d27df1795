"""Whether labelled requests show that a model answers worse than it should: exact about how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Share:
    """Of `n` answers, those that are right."""

    n: int
    right: int

    @property
    def value(self) -> float:
        return self.right / self.n if self.n else math.nan

    def interval(self, alpha: float) -> tuple[float, float]:
        """Wilson's score interval (1927), which the share is beyond with probability `alpha` on each side."""
        if not self.n:
            return 0.0, 1.0
        z = NormalDist().inv_cdf(1 - alpha)
        spread = z * math.sqrt(self.value * (1 - self.value) / self.n + z * z / (4 * self.n * self.n))
        middle = self.value + z * z / (2 * self.n)
        scale = 1 + z * z / self.n
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def least_difference(higher: Share, lower: Share, alpha: float) -> float:
    """Lower bound of the difference of two shares of independent images, wrong with probability `alpha`.

    Newcombe's hybrid score interval (1998, method 10).
    """
    down = higher.value - higher.interval(alpha)[0]
    up = lower.interval(alpha)[1] - lower.value
    return higher.value - lower.value - math.hypot(down, up)
