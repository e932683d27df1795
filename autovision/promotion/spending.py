"""Looking at growing evidence more than once: how strict each look is, so that all together keep one level.

Of two models that are equal, either is the one that is right on an image which only one of them gets right: a fair
coin. How many such images there are at each look says nothing of how the coins fall. So given these counts, the
probability that an equal model ever passes is found exactly, from look to look (Armitage, McPherson & Rowe 1969), and
a look may use what the level leaves to it (alpha spending, Lan & DeMets 1983): it need not be known beforehand when
there are looks, or how many, and what the steps of a binomial distribution left unused before is used now.

That is exact for accuracy, as long as images stay what they were. Where labels are changed between two looks, coins are
exchanged that are counted as the same. For other metrics the coins stand for images, and it is an approximation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import binom

from autovision.metrics import Floats
from autovision.promotion.refused import Look
from autovision.significance import LEVEL

MOST = 2 * LEVEL
"""the probability with which an equal model passes, however often it is looked at"""
_HALF = 1
"""later looks after which half of it may be spent that the first look left: a gain shows early, or hardly ever

In `bench_years` 1 instead of 2 gains .0005 +- .0005 (48 years), and 10 loses .0013 +- .0008 (24 years).
"""
_ROUNDING = 1e-9
"""by which the same probability may differ that is computed in two ways"""

Walk = tuple[Floats, float, int]
"""how often the challenger was right, of those that did not pass; how many did pass; of so many coins"""
_START: Walk = np.ones(1), 0.0, 0


def levels(before: Mapping[str, Sequence[Look]], evidence: Mapping[str, int], look: int) -> dict[str, float]:
    """The level of each part that is looked at: one of their one-sided p-values has to be as small as that.

    With the first look `LEVEL` may have been spent, with all of them nearly `MOST`. What is left to this one is divided
    among the parts (Bonferroni), whichever they were before.

    Args:
        before: part -> the looks at it until now, the oldest first.
        evidence: part -> images that only one of both models gets right, those of the looks before among them. For a
            metric of which images are no coins, the images that it is taken of.
        look: its number; 0 is the first.
    """
    walks = {part: _walked(looks) for part, looks in before.items()}
    most = MOST - (MOST - LEVEL) * _HALF / (_HALF + look)
    left = max(most - sum(spent for _, spent, _ in walks.values()), 0.0) / len(evidence)
    return {part: _level(walks.get(part, _START), count, left) for part, count in evidence.items()}


def _walked(looks: Sequence[Look]) -> Walk:
    walk, spent, last = _START
    for count, asked in looks:
        walk, last = _grown(walk, count - last), max(last, count)
        passes = np.arange(len(walk)) >= _least(last, asked)
        spent += float(walk[passes].sum())
        walk = np.where(passes, 0.0, walk)
    return walk, spent, last


def _level(before: Walk, evidence: int, left: float) -> float:
    walk, _, last = before
    walk, last = _grown(walk, evidence - last), max(last, evidence)
    passing = np.cumsum(walk[::-1])[::-1]
    fitting = np.flatnonzero(passing <= left + _ROUNDING)
    least = int(fitting[0]) if len(fitting) else last + 1
    return float(binom.sf(least - 1, last, 0.5)) * (1 + _ROUNDING)


def _grown(walk: Floats, more: int) -> Floats:
    """The distribution after more coins."""
    more = max(more, 0)
    return np.convolve(walk, binom.pmf(np.arange(more + 1), more, 0.5))


def _least(evidence: int, asked: float) -> int:
    """Of so many coins, how many have to fall one way for a p-value as small as that."""
    tails = binom.sf(np.arange(evidence + 1) - 1, evidence, 0.5)
    return int(np.count_nonzero(tails > asked * (1 + _ROUNDING)))
