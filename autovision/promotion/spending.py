"""Looking at growing evidence more than once: how strict each look is, so that all together keep one level.

Of two models that are equal, either is the one that is right on an image which only one of them gets right: a fair
coin. How many such images there are at each look says nothing of how the coins fall. So given these counts, the
probability that an equal model ever passes is found exactly, from look to look (Armitage, McPherson & Rowe 1969), and
a look may use what the level leaves to it (alpha spending, Lan & DeMets 1983): it need not be known beforehand when
there are looks, or how many, and what the steps of a binomial distribution left unused before is used now.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from autovision.metrics import Floats
from autovision.promotion.refused import Look
from autovision.significance import LEVEL

MOST = 2 * LEVEL
"""the probability with which an equal model passes, however often it is looked at"""

_ROUNDING = 1e-9
"""by which the same probability may differ that is computed in two ways"""


def level(before: Sequence[Look], evidence: int, *, tested: int = 1) -> float:
    """The level of a look: a one-sided p-value has to be as small as that.

    The first look may spend `LEVEL`; with r times its evidence all looks together may have spent
    `MOST` - (`MOST` - `LEVEL`) / r.

    Args:
        before: the looks until now, the oldest first.
        evidence: images that only one of both models gets right, those of the looks before among them. For a metric
            of which images are no coins, the images that it is taken of.
        tested: parts that are looked at side by side, of which one has to pass: each has its share (Bonferroni).
    """
    walk, spent, last = np.ones(1), 0.0, 0
    for count, asked in before:
        walk, last = _grown(walk, count - last), max(last, count)
        passes = np.arange(len(walk)) >= _least(last, asked)
        spent += float(walk[passes].sum())
        walk[passes] = 0.0
    walk, last = _grown(walk, evidence - last), max(last, evidence)
    beginning = max(before[0][0], 1) if before else max(last, 1)
    most = (MOST - (MOST - LEVEL) * min(beginning / max(last, 1), 1.0)) / tested
    passing = spent + np.cumsum(walk[::-1])[::-1]
    fitting = np.flatnonzero(passing <= most + _ROUNDING)
    least = int(fitting[0]) if len(fitting) else last + 1
    return float(binom.sf(least - 1, last, 0.5)) * (1 + _ROUNDING)


def _grown(walk: Floats, more: int) -> Floats:
    """The distribution of how often the challenger was right, of those that did not pass, after more coins."""
    more = max(more, 0)
    return np.convolve(walk, binom.pmf(np.arange(more + 1), more, 0.5))


def _least(evidence: int, asked: float) -> int:
    """Of so many coins, how many have to fall one way for a p-value as small as that."""
    tails = binom.sf(np.arange(evidence + 1) - 1, evidence, 0.5)
    return int(np.count_nonzero(tails > asked * (1 + _ROUNDING)))
