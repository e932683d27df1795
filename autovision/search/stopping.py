"""When a search may end before its budget: pure functions of what its trials came to.

    impatient   the best has not risen above noise for so long
    converged   what is left of the budget is not expected to raise it above noise

Both are off unless a request asks for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_NOISE = 0.5
"""of a standard error: two trials are judged on the same images, so that their difference is steadier than either"""
_FEWEST = 12
"""trials with a value, before anything is said about the next ones"""


@dataclass(frozen=True)
class Moment:
    """What a trial had come to at a rung.

    Attributes:
        search_s: seconds since the search began.
        value: what trials are ranked by.
    """

    search_s: float
    value: float


def noise_of(value: float, images: int) -> float:
    """By how much a value has to rise to be called better, judged on so many images."""
    spread = math.sqrt(value * (1 - value)) if 0 <= value <= 1 else abs(value)
    return _NOISE * max(spread, 0.1) / math.sqrt(max(1, images))


def impatient(
    moments: Iterable[Moment], now_s: float, patience_s: float, noise: float, begun_s: float = 0.0
) -> str | None:
    """Why a search should end that may wait `patience_s` for its best to rise; None: it should go on.

    Small steps count once they have added up to more than `noise`. Until there is a value, nothing ends.

    Args:
        begun_s: when trials began to run in this attempt: patience counts from there, if the best rose before that.
    """
    best, since = None, 0.0
    for moment in sorted(moments, key=lambda one: one.search_s):
        if not math.isnan(moment.value) and (best is None or moment.value > best + noise):
            best, since = moment.value, moment.search_s
    since = max(since, begun_s)
    if best is None or now_s - since < patience_s:
        return None
    return (
        f"the best has not risen by more than {noise:.4f}, which is noise, for {now_s - since:.0f} s "
        f"(patience {patience_s:g} s)"
    )


def expected_gain(moments: Sequence[Moment], trials: float) -> float:
    """By how much so many more trials like the latest ones should raise the best.

    The upper tail of their values is taken for exponential above a threshold (peaks over threshold, Pickands 1975).

    Args:
        moments: the best of each trial that has a value, in the order in which they ended; at least two.
    """
    best = max(moment.value for moment in moments)
    latest = [moment.value for moment in moments[-max(_FEWEST, len(moments) // 2) :]]
    ranked = sorted(latest, reverse=True)
    peaks = min(max(3, len(ranked) // 4), len(ranked) - 1)
    threshold = ranked[peaks]
    scale = sum(ranked[:peaks]) / peaks - threshold
    if scale <= 0:
        return 0.0
    exceed = trials * peaks / len(ranked) * math.exp(-(best - threshold) / scale)
    return scale * math.log1p(exceed)


def converged(
    moments: Sequence[Moment], now_s: float, remaining_s: float, noise: float, untried: Sequence[str] = ()
) -> str | None:
    """Why a search should end whose remaining seconds are worth less than `noise`; None: it should go on.

    Args:
        moments: see `expected_gain`.
        untried: backbones that fit into the remaining seconds and have no value yet: nobody knows what they give.
    """
    if len(moments) < _FEWEST or untried:
        return None
    latest = moments[-max(_FEWEST, len(moments) // 2) :]
    per_trial_s = max((now_s - latest[0].search_s) / len(latest), 1e-3)
    trials = max(0.0, remaining_s / per_trial_s)
    gain = expected_gain(moments, trials)
    if gain >= noise:
        return None
    return (
        f"the {trials:.0f} trials that the remaining {remaining_s:.0f} s would buy are expected to raise the best by "
        f"{gain:.4f}, and less than {noise:.4f} is noise"
    )
