"""Whether labelled requests show that a model answers worse than it should: exact about how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import betaincinv


@dataclass(frozen=True)
class Share:
    """Of `n` answers, those that are right."""

    n: int
    right: int

    @property
    def value(self) -> float:
        return self.right / self.n if self.n else math.nan

    def interval(self, alpha: float) -> tuple[float, float]:
        """Bounds beyond which the true share is with probability `alpha` at most, on each side.

        Clopper and Pearson's exact ones (1934): those of Wilson, of which the one that matters here is the upper one,
        are broken by a share of 0.9 in 100 answers twice as often as they say.
        """
        if not self.n:
            return 0.0, 1.0
        wrong = self.n - self.right
        low = float(betaincinv(self.right, wrong + 1, alpha)) if self.right else 0.0
        high = float(betaincinv(self.right + 1, wrong, 1 - alpha)) if wrong else 1.0
        return low, high


def least_difference(higher: Share, lower: Share, alpha: float) -> float:
    """Lower bound of the difference of two shares of independent images, too high with probability `alpha` at most.

    From the exact bounds of both (Zou and Donner 2008), as Newcombe (1998, method 10) does from Wilson's.
    """
    down = higher.value - higher.interval(alpha)[0]
    up = lower.interval(alpha)[1] - lower.value
    return higher.value - lower.value - math.hypot(down, up)
