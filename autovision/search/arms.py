"""What decides which frozen features a trial needs.

Computing frozen features is most of the cost of a short search, and all trials that need the same ones share
them. An *arm* is backbone, resolution, augmentation and cut. The sampler draws everything else.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autovision.space import Choice, Constant, Integer, Space

_DIMENSIONS = ("backbone", "weights", "resolution", "augmentation", "unfreeze", "drop_stages")
FEATURES = (
    "backbone",
    "weights",
    "resolution",
    "augmentation",
    "views",
    "unfreeze",
    "test_time_augmentation",
)
"""parameters of which heads that are trained together must have the same values, for their features to be the same"""
SHAPE = ("drop_stages", "taps", "pooling", "head", "head_width", "optimizer", "batch_size")
"""parameters of which heads must have the same values, for all of their steps to be one computation"""
_MOST_ARMS = 400
_GOOD = 3
"""what an arm has come to is the mean of the best of its trials, or batches: one of so many"""

Arm = tuple[tuple[str, Any], ...]
"""parameter and value of each dimension that the space has"""


def arms_of(space: Space) -> list[Arm]:
    """All arms of a space, one where nothing is to choose; none if a dimension is continuous or they are too many."""
    axes = []
    for name in _DIMENSIONS:
        parameter = space.parameters.get(name)
        if parameter is None or isinstance(parameter, Constant) or parameter.when:
            continue
        match parameter:
            case Choice(values=values):
                axes.append([(name, value) for value in values])
            case Integer(low=low, high=high) if high - low < 16:
                axes.append([(name, value) for value in range(low, high + 1)])
            case _:
                return []
    combinations = [tuple(arm) for arm in itertools.product(*axes)]
    return (
        [] if len(combinations) > _MOST_ARMS else list(dict.fromkeys(_canonical(arm) for arm in combinations))
    )


def _canonical(arm: Arm) -> Arm:
    """Pooled features hold every stage, so that with nothing unfrozen the depth is the sampler's to choose."""
    values = dict(arm)
    if values.get("unfreeze") == 0:
        values.pop("drop_stages", None)
    return tuple(values.items())


def arm_of(point: Mapping[str, Any], arms: Sequence[Arm]) -> Arm | None:
    """The arm that a point of the space belongs to."""
    arm = _canonical(tuple((name, point[name]) for name in _DIMENSIONS if name in point))
    named = dict(arm)
    return next((known for known in arms if all(named.get(name) == value for name, value in known)), None)


@dataclass(frozen=True)
class Summary:
    """Of the values of an arm.

    Attributes:
        reached: what the arm has come to, the mean of the good ones. Of noisy values the best one is a matter of luck,
            and of how many there are; an arm that was tried often would look better than it is, and be tried still
            more.
        squares: sum of the squared distances from their mean.
    """

    count: int
    reached: float
    least: float
    squares: float


@dataclass
class ArmRecord:
    """What is known of one arm."""

    values: list[float] = field(default_factory=list)
    """of each trial, or the typical good one of each batch of heads"""
    failed: int = 0
    """trials, and batches, that ended without a value"""
    seconds: list[float] = field(default_factory=list)
    """of each of them, without features"""
    each_s: list[float] = field(default_factory=list)
    """of each trial of them, on average"""
    running: int = 0
    _summary: Summary | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def summary(self) -> Summary | None:
        """None without values, to which some may be added, and from which none is taken away."""
        if self.values and (self._summary is None or self._summary.count != len(self.values)):
            values = np.array(self.values)
            squares = float(np.sum(np.square(values - values.mean())))
            self._summary = Summary(len(values), upper_mean(self.values, _GOOD), float(values.min()), squares)
        return self._summary


def upper_mean(values: Sequence[float], part: int) -> float:
    """Of the best ones, one of so many: unlike the best of all, it does not rise with their number alone."""
    return float(np.mean(sorted(values)[-max(1, len(values) // part) :]))
