"""How many replicas a deployment should have: a policy for Ray Serve's autoscaler.

Each replica tells how large a part of the time its model was at work, how long images waited for it, and how many came.
Serve itself averages what they tell, waits before it follows the policy, and keeps within the least and the most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import ray

from autovision.errors import InvalidInput
from autovision.serving.batcher import Work

BUSY, WAITED_MS, IMAGES = "busy", "waited_ms", "images_per_s"

UP_AFTER_S = 4.0
DOWN_AFTER_S = 60.0
LOOK_BACK_S = 8.0
TELL_S = 1.0
"""how often replicas tell their load"""
NODES_S = 2.0
"""how often it is looked which nodes there are"""
GONE_S = 60.0
"""so long a node is missed before one edge fewer is wanted: a head that starts again is away for a moment, and Serve,
which does not know yet which of its replicas live, would stop one that answers"""


@dataclass(frozen=True)
class Scaling:
    """Between how many replicas, and by what.

    Attributes:
        least: 0: none is kept while nobody calls.
        most: replicas, where the cluster has room for them.
        wait_ms: images that wait longer than that on the average want another replica.
        busy: share of the time that models may be at work, on the average, before another replica is wanted.
        idle_s: after so long without an image the last replica goes, where `least` is 0.
    """

    least: int = 1
    most: int = 1
    wait_ms: float = 100.0
    busy: float = 0.8
    idle_s: float = 900.0

    def __post_init__(self) -> None:
        if self.least < 0 or self.most < max(1, self.least):
            raise InvalidInput(
                f"{self.least} to {self.most} replicas are no range; use 0 or more, and at most as many as the most"
            )
        for name in ("wait_ms", "busy", "idle_s"):
            if not getattr(self, name) > 0:
                raise InvalidInput(f"{name} is {getattr(self, name)!r}; use a number above 0")
        if self.busy > 1:
            raise InvalidInput(f"busy is {self.busy!r}; it is a share of the time, at most 1")

    @property
    def fixed(self) -> bool:
        return self.least == self.most


def scaling_of(replicas: int, most: int | None, wait_ms: float, idle_s: float | None) -> Scaling:
    """As the commands say it: so many replicas, up to `most`, and none after `idle_s` seconds without an image.

    Raises `InvalidInput` where that is no range.
    """
    if replicas < 1:
        raise InvalidInput(f"{replicas} replicas cannot answer; use 1 or more, or let them sleep with idle_s")
    if most is not None and most < replicas:
        raise InvalidInput(
            f"at most {most} replicas are fewer than the {replicas} there are to be; raise the most"
        )
    least = replicas if idle_s is None else 0
    return Scaling(least, most or replicas, wait_ms, idle_s=900.0 if idle_s is None else idle_s)


class Load:
    """What one replica tells of itself.

    Args:
        work: sums since it started.
    """

    def __init__(self, work: Callable[[], Work]) -> None:
        self._work = work
        self._last: tuple[float, Work] | None = None

    def since_last(self, now: float) -> dict[str, float]:
        """By name, over the time since this was asked last (seconds, of a clock that never goes back)."""
        work, last = self._work(), self._last
        self._last = (now, work)
        if last is None or now <= last[0]:
            return {BUSY: 0.0, WAITED_MS: 0.0, IMAGES: 0.0}
        passed_s, images = now - last[0], work.images - last[1].images
        return {
            BUSY: min(1.0, (work.busy_s - last[1].busy_s) / passed_s),
            WAITED_MS: 1e3 * (work.waited_s - last[1].waited_s) / images if images else 0.0,
            IMAGES: images / passed_s,
        }


def wanted(scaling: Scaling, now: int, loads: Sequence[Mapping[str, float]]) -> int:
    """How many replicas there should be, were it so for good.

    Args:
        now: how many there are, those that start included.
        loads: what those that answer tell.
    """
    if not loads:
        return now
    if scaling.least == 0 and all(load[IMAGES] == 0 for load in loads):
        return 0
    busy = sum(load[BUSY] for load in loads)
    up = math.ceil(busy / scaling.busy - 1e-9)
    if fmean(load[WAITED_MS] for load in loads) > scaling.wait_ms:
        up = max(up, len(loads) + 1)
    # Fewer would have to be well below what brings the next one, or it would come and go.
    down = math.ceil(busy / (0.75 * scaling.busy) - 1e-9)
    return max(1, scaling.least, up if up > now else min(now, max(up, down)))


class ScalingPolicy:
    """The same for Serve, which makes one from its keywords and calls it with an `AutoscalingContext`."""

    def __init__(self, **scaling: Any) -> None:
        self._scaling = Scaling(**scaling)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        told: Mapping[str, Mapping[Any, float]] = context.aggregated_metrics or {}
        answering = set(context.running_replicas)
        loads = [
            {name: float(told.get(name, {}).get(replica, 0.0)) for name in (BUSY, WAITED_MS, IMAGES)}
            for replica in answering
            if replica in told.get(BUSY, {})
        ]
        return wanted(self._scaling, context.target_num_replicas, loads), {}


class OneOnEachNode:
    """For Serve, too: as many as the cluster has nodes now, of which some may have joined, or have gone."""

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        return max(1, sum(node["Alive"] for node in ray.nodes())), {}
