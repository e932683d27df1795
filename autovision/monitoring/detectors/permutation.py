"""Permutation tests that do as much work as their verdict needs.

Whether rows came lately or are of before is dealt anew, again and again, and the statistic compared with what it is
then. The p-value is exact however few deals are made: they end when a fixed number of them reached the observed value
(Besag & Clifford 1991), which takes a hundred without drift, or at a number that resolves the level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""members (B, N), ones where a row is dealt to the window -> (B,) values, large where the two parts differ"""

ENOUGH = 20
"""deals that reach the observed value end the test: such a p-value is no alarm"""
LEAST = 2000
"""deals, from which thresholds are estimated"""
MOST = 40_000
"""deals; levels that these cannot tell are read off an exponential tail"""
_CHUNK = 500
_TAIL_SHARE = 0.02
_TAIL_LEAST = 5


@dataclass(frozen=True)
class Outcome:
    """The outcome of one test."""

    score: float
    threshold: float
    """an alarm at or above: the quantile of the deals that were made, or of an exponential tail through the largest"""
    p_value: float
    alarm: bool
    null: Floats
    """(deals,) values of the statistic"""


def permutation_test(
    statistic: Statistic, n: int, m: int, *, alpha: float, rng: np.random.Generator, most: int = MOST
) -> Outcome:
    """Whether the last `m` of n + m rows look drawn as the first `n`; an alarm has probability `alpha` at most."""
    observed = np.zeros((1, n + m))
    observed[0, n:] = 1
    score = float(statistic(observed)[0])
    wanted = min(max(math.ceil(1 / alpha), LEAST), most)
    values: list[Floats] = []
    deals = reached = 0
    p_value: float | None = None
    while deals < wanted and (p_value is None or deals < LEAST):
        count = min(_CHUNK, wanted - deals)
        values.append(statistic(deal(count, n, m, rng)))
        at = np.flatnonzero(values[-1] >= score)
        if p_value is None and reached + len(at) >= ENOUGH:
            p_value = ENOUGH / (deals + int(at[ENOUGH - reached - 1]) + 1)
        reached += len(at)
        deals += count
    null = np.concatenate(values)
    if p_value is None:
        p_value = _smallest(null, score, reached, alpha)
    alarm = p_value <= alpha
    threshold = _threshold(null, alpha)
    # An estimate never contradicts the verdict, which is exact.
    threshold = min(threshold, score) if alarm else max(threshold, math.nextafter(score, math.inf))
    return Outcome(score, threshold, p_value, alarm, null)


def deal(count: int, n: int, m: int, rng: np.random.Generator) -> Floats:
    """(count, n + m) with `m` ones in each row."""
    chosen = np.argpartition(rng.random((count, n + m), np.float32), m - 1, axis=1)[:, :m]
    members = np.zeros((count, n + m))
    np.put_along_axis(members, chosen, 1.0, axis=1)
    return members


def _smallest(null: Floats, score: float, reached: int, alpha: float) -> float:
    """The p-value where all deals were made."""
    if (len(null) + 1) * alpha < 1:
        start, excess, share = _tail(null)
        if score > start:
            return share * math.exp(-min((score - start) / excess, 600.0))
    return (1 + reached) / (1 + len(null))


def _tail(null: Floats) -> tuple[float, float, float]:
    """Where the exponential tail begins, its mean excess, and the probability of being beyond its begin.

    Excesses over a high threshold: Pickands 1975, with shape 0.
    """
    beyond = max(int(len(null) * _TAIL_SHARE), _TAIL_LEAST)
    highest = np.sort(null)[-beyond - 1 :]
    start = float(highest[0])
    excess = max(float(np.mean(highest[1:] - start)), float(np.finfo(np.float64).tiny))
    return start, excess, (beyond + 1) / (len(null) + 1)


def _threshold(null: Floats, alpha: float) -> float:
    """The least score whose p-value is at most `alpha`."""
    allowed = math.floor(alpha * (len(null) + 1) + 1e-9) - 1
    if allowed < _TAIL_LEAST:
        start, excess, share = _tail(null)
        return start + excess * math.log(max(share / alpha, 1.0))
    return math.nextafter(float(np.sort(null)[-1 - allowed]), math.inf)
