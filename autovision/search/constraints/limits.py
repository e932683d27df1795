"""Which architectures of a space meet a request's limits on latency, memory and size: found out before any training.

Size follows from a configuration. Latency and memory are measured, on the runtime that serves, and grow with the
arithmetic of a network within a *family*: one backbone, one test-time augmentation, with adapters or without, one kind
of pooling. So of each family the largest member is measured, and if that is too slow the smallest, and then
where the limit lies between them, by bisection. The other parts are those that take most, so that whoever is admitted
stays below the limit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from autovision.errors import InvalidInput
from autovision.image import VIEWS
from autovision.model import backbone as backbones
from autovision.model.flops import stage_gflops
from autovision.model.footprint import Footprint, architecture_of, size_mb
from autovision.model.heads import attends
from autovision.records.searches import Excess, SearchRequest
from autovision.space import Choice, Constant, Float, Integer, Parameter, Space
from autovision.space.config import TrialConfig

Measure = Callable[[TrialConfig], Footprint]
_Limited = Literal["latency", "memory", "size"]

_GRID = 9
"""values of a range that are considered"""
_SIZES = ("resolution", "drop_stages")
"""what makes one member of a family larger than another"""


@dataclass(frozen=True)
class Family:
    """Networks whose cost grows with their arithmetic."""

    backbone: str
    augmentation: str
    adapted: bool
    attends: bool

    @classmethod
    def of(cls, config: TrialConfig) -> Family:
        return cls(config.backbone, config.test_time_augmentation, config.adapters > 0, attends(config))


@dataclass
class Limits:
    """What a request allows, and what was found out about it.

    Attributes:
        classes: of the data set.
        notes: what was left out, and by how much it misses the limits.
        excesses: the same as figures.
    """

    request: SearchRequest
    classes: int
    measure: Measure
    notes: list[str] = field(default_factory=list)
    excesses: list[Excess] = field(default_factory=list)
    _largest: dict[Family, float] = field(default_factory=dict)
    _sizes: dict[TrialConfig, float] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        request = self.request
        return any((request.max_latency_ms, request.max_memory_mb, request.max_size_mb))

    @property
    def _measured(self) -> bool:
        return bool(self.request.max_latency_ms or self.request.max_memory_mb)

    def explore(self, space: Space, left_out: frozenset[str] = frozenset()) -> None:
        """Find out what of a space meets the limits.

        Args:
            left_out: backbones that cannot be used anyway.

        Raises:
            InvalidInput: nothing does.
        """
        if not self.any:
            return
        families: dict[Family, list[TrialConfig]] = {}
        for config in heaviest(space):
            if config.backbone not in left_out:
                families.setdefault(Family.of(config), []).append(config)
        admitted = 0
        for family, members in families.items():
            members.sort(key=gflops)
            fitting: Sequence[TrialConfig] = [
                member for member in members if self._size_fault(member) is None
            ]
            if len(fitting) < len(members):
                smallest = min(members, key=self._size)
                self._note(
                    f"{_spoken(family)}: {len(members) - len(fitting)} of {len(members)} sizes have more than "
                    f"{self.request.max_size_mb:g} MB of weights; the smallest has {self._size(smallest):.1f} MB"
                )
                least = min(self._size(member) for member in members if self._size_fault(member) is not None)
                self._exceeded(family, "size", least, self.request.max_size_mb)
            if fitting and self._measured:
                fitting = self._bisect(family, fitting)
            admitted += len(fitting)
        if not admitted:
            raise InvalidInput(
                f"nothing in the space {space.to_json()['name']!r} meets the limits: {'; '.join(self.notes)}; raise "
                "a limit, or choose a space with smaller backbones or resolutions"
            )

    def fault(self, config: TrialConfig) -> str | None:
        """Why a configuration breaks a limit; None: it does not."""
        if not self.any:
            return None
        if (fault := self._size_fault(config)) is not None:
            return fault
        if self._measured and gflops(config) > self._largest.get(Family.of(config), -math.inf) * (1 + 1e-9):
            return "slower, or of more memory, than the largest network of its family that meets the limits"
        return None

    def _bisect(self, family: Family, members: Sequence[TrialConfig]) -> Sequence[TrialConfig]:
        """The members, in the order of their arithmetic, up to the largest that meets the limits."""
        good, bad = -1, len(members)  # the last known to meet them, the first known not to
        fault = ""
        missed: Footprint | None = None
        at = bad - 1
        while good + 1 < bad:
            found = self.measure(members[at])
            if (reason := self._measured_fault(found)) is None:
                good = at
            else:
                bad, missed = at, found
                fault = f"{_spoken_size(members[at])} takes {reason} ({found.runtime})"
            at = 0 if good < 0 and bad == len(members) - 1 and bad > 0 else (good + bad) // 2
        if fault:
            kept = f"up to {_spoken_size(members[good])}" if good >= 0 else "nothing"
            self._note(f"{_spoken(family)}: {fault}; {kept} meets the limits")
        if missed is not None:
            self._exceeded(family, "latency", missed.latency_ms, self.request.max_latency_ms, missed.runtime)
            self._exceeded(family, "memory", missed.memory_mb, self.request.max_memory_mb, missed.runtime)
        self._largest[family] = gflops(members[good]) if good >= 0 else -math.inf
        return members[: good + 1]

    def _measured_fault(self, found: Footprint) -> str | None:
        request = self.request
        faults = [
            f"{value:.1f} {unit}, more than {limit:g} {unit}"
            for value, limit, unit in (
                (found.latency_ms, request.max_latency_ms, "ms"),
                (found.memory_mb, request.max_memory_mb, "MB of memory"),
            )
            if limit is not None and value > limit
        ]
        return " and ".join(faults) or None

    def _size_fault(self, config: TrialConfig) -> str | None:
        limit = self.request.max_size_mb
        if limit is None or (size := self._size(config)) <= limit:
            return None
        return f"{size:.1f} MB of weights, more than {limit:g} MB"

    def _size(self, config: TrialConfig) -> float:
        key = architecture_of(config)
        if key not in self._sizes:
            self._sizes[key] = size_mb(key, self.classes)
        return self._sizes[key]

    def _note(self, text: str) -> None:
        self.notes.append(text)

    def _exceeded(
        self, family: Family, what: _Limited, value: float, limit: float | None, runtime: str = ""
    ) -> None:
        """Keep by how much a limit is missed, if it is."""
        if limit is not None and value > limit:
            unit = "ms" if what == "latency" else "MB"
            self.excesses.append(
                Excess(
                    networks=_spoken(family), of=what, value=value, limit=limit, unit=unit, runtime=runtime
                )
            )


def gflops(config: TrialConfig) -> float:
    """Of one answer, without the head: the arithmetic of the kept stages, for each of its views."""
    stages = stage_gflops(config.backbone, config.resolution)
    keep = backbones.kept_stages(config, len(stages))
    return sum(stages[:keep]) * len(VIEWS[config.test_time_augmentation])


def heaviest(space: Space) -> Iterator[TrialConfig]:
    """Of every backbone, size and kind of network in a space: the configuration whose other parts take most."""
    default = space.config(space.default())
    axes: dict[str, Sequence[Any]] = {
        name: values_of(space.parameters.get(name), getattr(default, name))
        for name in ("backbone", *_SIZES, "test_time_augmentation", "head", "pooling", "adapters")
    }
    axes["head"] = _either(axes["head"], "attention", ("mlp", "linear", "cosine"))
    axes["pooling"] = _either(axes["pooling"], "attention", ("avgmax", "gem", "avg", "max"))
    axes["adapters"] = sorted({min(axes["adapters"]), max(axes["adapters"])})
    widest = {
        name: max(values_of(space.parameters.get(name), getattr(default, name)))
        for name in ("taps", "head_width", "adapter_width")
    }
    seen = set()
    for values in itertools.product(*axes.values()):
        config = TrialConfig(**widest | dict(zip(axes, values, strict=True))).resolved()
        stages = len(stage_gflops(config.backbone, config.resolution))
        keep = stages - config.drop_stages
        if keep >= 1 and config.adapters <= keep and config not in seen:
            seen.add(config)
            yield config.with_(taps=min(config.taps, keep))


def values_of(parameter: Parameter | None, default: Any) -> list[Any]:
    """The values that a parameter may have, the ends and some in between of a range; the default without one."""
    match parameter:
        case Choice(values=values):
            return list(values)
        case Constant(value=value):
            return [value]
        case Integer(low=low, high=high):
            return sorted({round(low + (high - low) * i / (_GRID - 1)) for i in range(_GRID)})
        case Float(low=low, high=high):
            return [low, high]
    return [default]


def _either(values: Sequence[Any], special: Any, order: Sequence[Any]) -> list[Any]:
    """The special one if it is there, and of the others the one that takes most."""
    others = [value for value in order if value in values][:1]
    return [*([special] if special in values else []), *others]


def _spoken(family: Family) -> str:
    parts = [family.backbone]
    if family.augmentation != "none":
        parts.append(f"averaged over {len(VIEWS[family.augmentation])} views")
    parts += ["with adapters"] if family.adapted else []
    parts += ["with attention"] if family.attends else []
    return " ".join(parts)


def _spoken_size(config: TrialConfig) -> str:
    prep = backbones.preprocessing(config)
    dropped = f" without its last {config.drop_stages} stages" if config.drop_stages else ""
    return f"{prep.height} px{dropped}"
