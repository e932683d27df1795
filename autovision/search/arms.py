"""Which frozen features to work on next: expected improvement per second, with costs in seconds.

Computing frozen features is most of the cost of a short search, and all trials that need the same ones share
them. An *arm* is what decides which features a trial needs: backbone, resolution, augmentation and cut. The
sampler draws everything else. Being aware of cost is what makes a short search good (Snoek et al. 2012; for
fine-tuning Arango et al. 2024 found most of the gain in it).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
_SPREAD = 0.03
"""how far apart the best values of two arms are, as a rule; of one standard deviation, in units of the metric"""
_MOST_SHARE = 0.5
"""an arm that would eat more than this share of the seconds left is not begun"""
_OVERHEAD_S = 0.3

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


@dataclass
class ArmRecord:
    """What is known of one arm."""

    values: list[float] = field(default_factory=list)
    """the best of each trial, or of each batch of heads"""
    failed: int = 0
    """trials, and batches, that ended without a value"""
    seconds: list[float] = field(default_factory=list)
    """of each of them, without features"""
    running: int = 0


def choose(
    records: Mapping[Arm, ArmRecord], predicted_s: Callable[[Arm], float], remaining_s: float
) -> Arm | None:
    """The arm with the most expected improvement per second among those that still fit, or None if none does.

    As long as there is no result, the cheapest arm of those that failed least: a search of any length should
    have a model.

    Args:
        records: every arm, tried or not.
        predicted_s: seconds until an arm's next trial has a result, features that are missing included.
        remaining_s: seconds left for trials.
    """
    best = max((max(record.values) for record in records.values() if record.values), default=None)
    if best is None:
        # Until there is a first result, all work for it: trials on the same features share the computing.
        return next((arm for arm, record in records.items() if record.running), None) or min(
            records, key=lambda arm: (records[arm].failed, predicted_s(arm)), default=None
        )
    affordable = [
        (arm, record, seconds)
        for arm, record in records.items()
        if (seconds := predicted_s(arm) + _OVERHEAD_S) <= max(_MOST_SHARE * remaining_s, 1.0)
    ]
    if not affordable:
        return None
    effects = _effects(records)
    worst = min(min(record.values) for record in records.values() if record.values)

    def gain_per_second(item: tuple[Arm, ArmRecord, float]) -> float:
        arm, record, seconds = item
        tried = len(record.values) + record.failed + 2 * record.running
        if record.values:
            mean = max(record.values)
        else:
            # An arm that only failed costs time and gives nothing, whatever the units of the metric are.
            mean = worst - 3 * _SPREAD if record.failed else _guess(arm, effects, best)
        spread = _SPREAD / (1 + tried)
        return _expected_improvement(mean, spread, best) / seconds

    return max(affordable, key=gain_per_second)[0]


def _effects(records: Mapping[Arm, ArmRecord]) -> dict[tuple[str, Any], float]:
    """The best value seen with each value of each dimension."""
    effects: dict[tuple[str, Any], float] = {}
    for arm, record in records.items():
        for named in arm:
            if record.values:
                effects[named] = max(effects.get(named, -math.inf), max(record.values))
    return effects


def _guess(arm: Arm, effects: Mapping[tuple[str, Any], float], best: float | None) -> float:
    """An untried arm is as good as the arms that share its values; what nobody tried may be the best."""
    if best is None:
        return 0.0
    seen: Iterable[float] = [effects.get(named, best) for named in arm]
    return sum(seen) / max(1, len(arm))


def _expected_improvement(mean: float, spread: float, best: float | None) -> float:
    """Of a normal variable over the best value so far (Mockus 1978)."""
    z = 0.0 if best is None else (mean - best) / spread
    density = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + math.erf(z / math.sqrt(2)))
    return spread * (z * below + density)
