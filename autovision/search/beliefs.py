"""What each arm may come to, as far as all trials so far tell.

One Gaussian belief about all arms together: a linear model of what they differ in, with prior knowledge of what more
arithmetic, more views and unfreezing are worth as a rule, and a remainder of each arm's own (Bayesian linear regression
as a Gaussian process; Rasmussen & Williams 2006, chapter 2). So that a view that did harm with a small backbone is not
tried with all the others, and what nobody tried is neither forgotten nor taken for granted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autovision.search.arms import Arm, ArmRecord

_SPREAD = 0.03
"""how far apart arms are as a rule: one standard deviation, in units of the metric; the arms tried soon tell"""
_SPREAD_WEIGHT = 4
"""it counts as so many arms"""
_WITHIN = 0.3
"""how far apart trials, or batches, of one arm are, in units of the spread between arms"""
_WITHIN_WEIGHT = 3
_LEAST_TRUE = 0.1
"""of what trials of an arm differ in is not noise, at least"""
_PENDING = 2
"""a trial that runs counts as so many that found nothing, or else all workers would choose the same arm"""
_OWN = 0.3
"""what an arm has of its own, that nothing explains"""
_INTERCEPT = 3.0
_KINDS = {"backbone": 0.5, "weights": 0.7, "augmentation": 0.4}
"""what each value of a dimension is worth by itself; of one standard deviation, in units of the spread"""


_MOST_SHARE = 0.7
"""an arm that would eat more than this share of the seconds left is not begun: predictions err"""
_OVERHEAD_S = 0.3


@dataclass(frozen=True)
class Trend:
    """What one more of something is worth, in units of the spread: mean and standard deviation of the prior."""

    mean: float
    sd: float


_TRENDS = {
    "gflops": Trend(0.3, 0.5),
    "views": Trend(0.15, 0.3),
    "unfrozen": Trend(0.5, 1.0),
    "stages": Trend(0.0, 0.3),
    "dropped": Trend(-0.3, 0.5),
}
"""of a doubling of arithmetic and of views; of unfreezing at all, each stage unfrozen, and each stage left out"""


@dataclass(frozen=True)
class Scale:
    """Sizes that say what an arm costs: twice as much is one more.

    Attributes:
        gflops: of the backbone for one view of one image.
        views: of each image.
    """

    gflops: float
    views: float


class Beliefs:
    """About all arms of a space.

    Args:
        arms: at least one.
        scale: of an arm.
    """

    def __init__(self, arms: Sequence[Arm], scale: Callable[[Arm], Scale]) -> None:
        self._arms = list(arms)
        kinds = list(dict.fromkeys((name, value) for arm in arms for name, value in arm if name in _KINDS))
        rows = np.array([_row(dict(arm), scale(arm), kinds) for arm in arms])
        mean = np.array([0.0, *(trend.mean for trend in _TRENDS.values()), *(0.0 for _ in kinds)])
        sd = [_INTERCEPT, *(trend.sd for trend in _TRENDS.values()), *(_KINDS[name] for name, _ in kinds)]
        varied = rows - rows.mean(0)
        varied[:, 0] = 1.0
        self._prior: np.ndarray = varied @ mean
        self._covariance: np.ndarray = (varied * np.square(sd)) @ varied.T + _OWN**2 * np.eye(len(arms))

    def of(self, records: Mapping[Arm, ArmRecord], noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the best that the next trials of each arm may come to; (arms,) each.

        What an arm has reached is known; how much more there is in it shrinks with every trial that found no more,
        and is the less, the more of what its trials differ in is noise.

        Args:
            records: of the arms, in their order; at least one has values.
            noise: standard deviation of a value that has nothing to do with how good a trial is.
        """
        known = list(records.values())
        spread, within = _scales(known)
        within *= max(_LEAST_TRUE, 1 - (noise / within) ** 2)
        # An arm that only failed costs time and gives nothing, whatever the units of the metric are.
        of_each = [record.summary for record in known]
        nothing = min(each.least for each in of_each if each) - 3 * spread
        reached = np.array([each.reached if each else nothing for each in of_each])
        tried = np.array([len(record.values) + record.failed + _PENDING * record.running for record in known])
        seen = np.flatnonzero([bool(record.values or record.failed) for record in known])
        centre = float(np.mean(reached[seen]))
        across = self._covariance[:, seen]
        inner = across[seen] + np.diag((within / spread / (1 + tried[seen])) ** 2)
        told = (reached[seen] - centre) / spread - self._prior[seen]
        gain = np.linalg.solve(inner, np.column_stack([told, across.T]))
        mean = self._prior + across @ gain[:, 0]
        variance = self._covariance.diagonal() - np.einsum("as,sa->a", across, gain[:, 1:])
        sd = spread * np.sqrt(np.maximum(variance, 1e-9))
        untried = np.ones(len(known), dtype=bool)
        untried[seen] = False
        # What runs for the first time will tell as much as if it had ended.
        sd[untried] /= 1 + tried[untried]
        return centre + spread * mean, sd


def expected_improvement(mean: np.ndarray, sd: np.ndarray, best: float) -> np.ndarray:
    """Of normal variables over the best value so far (Močkus 1978)."""
    z = (mean - best) / sd
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(z / math.sqrt(2)))
    improvement: np.ndarray = sd * (z * below + density)
    return improvement


def _row(values: Mapping[str, object], scale: Scale, kinds: Sequence[tuple[str, object]]) -> list[float]:
    """An arm as numbers, in the order of the intercept, `_TRENDS`, and kinds."""
    unfrozen = float(str(values.get("unfreeze", 0)))
    trends = {
        "gflops": math.log2(max(scale.gflops, 1e-6)),
        "views": math.log2(max(scale.views, 1.0)),
        "unfrozen": float(unfrozen > 0),
        "stages": unfrozen,
        "dropped": float(str(values.get("drop_stages", 0))),
    }
    return [1.0, *(trends[name] for name in _TRENDS), *(float(values.get(n) == v) for n, v in kinds)]


def _scales(records: Sequence[ArmRecord]) -> tuple[float, float]:
    """Standard deviations of one between arms, and of one between the trials of an arm."""
    known = [summary for record in records if (summary := record.summary)]
    bests = np.array([each.reached for each in known])
    squares = _SPREAD_WEIGHT * _SPREAD**2 + float(np.sum(np.square(bests - bests.mean())))
    spread = math.sqrt(squares / (_SPREAD_WEIGHT + len(bests) - 1))
    squares = sum(each.squares for each in known)
    freedom = sum(each.count - 1 for each in known)
    own = _WITHIN_WEIGHT * (_WITHIN * spread) ** 2
    return spread, math.sqrt((own + squares) / (_WITHIN_WEIGHT + freedom))


def choose(
    beliefs: Beliefs,
    records: Mapping[Arm, ArmRecord],
    predicted_s: Callable[[Arm], float],
    remaining_s: float,
    more_s: Callable[[Arm], float] = lambda arm: 0.0,
    noise: float = 0.0,
) -> Arm | None:
    """The arm with the most expected improvement per second among those that still fit, or None if none does.

    Being aware of cost is what makes a short search good (Snoek et al. 2012; for fine-tuning Arango et al. 2024 found
    most of the gain in it). As long as there is no result, the cheapest arm of those that failed least: a search of
    any length should have a model.

    Args:
        records: every arm, tried or not.
        predicted_s: seconds until an arm's next trial has a result, features that are missing included.
        remaining_s: seconds left for trials.
        more_s: seconds that finishing an arm's model takes beyond what is set aside.
        noise: standard deviation of a value that has nothing to do with how good a trial is.
    """
    reached = [summary.reached for record in records.values() if (summary := record.summary)]
    if not reached:
        # Until there is a first result, all work for it: trials on the same features share the computing.
        takes_s = {arm: found_s for arm in records if math.isfinite(found_s := predicted_s(arm))}
        return next((arm for arm in takes_s if records[arm].running), None) or min(
            takes_s, key=lambda arm: (records[arm].failed, takes_s[arm]), default=None
        )
    arms = list(records)
    seconds = np.array([predicted_s(arm) for arm in arms]) + _OVERHEAD_S
    gains = expected_improvement(*beliefs.of(records, noise), max(reached)) / seconds
    for i in np.argsort(-gains, kind="stable").tolist():
        share = 1.0 if records[arms[i]].seconds else _MOST_SHARE
        if seconds[i] <= 1.0 or seconds[i] <= share * (remaining_s - more_s(arms[i])):
            chosen: Arm = arms[i]
            return chosen
    return None
