"""What a model of a configuration would cost, in the objectives that a search minimises: known before it is trained.

Size and arithmetic follow from the configuration. Latency and memory grow with the arithmetic within a family of
networks (see `autovision.search.constraints.limits`): of each, the largest and the smallest are measured, as they are
served, and those between lie on the line between these. Nothing is measured while trials run, which would slow each
other; so where there is no time to measure all families first, the others are taken to be like those that were.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from autovision.model.footprint import Footprint, architecture_of, size_mb
from autovision.search.constraints.limits import Family, Measure, gflops, heaviest
from autovision.search.multiobjective.objectives import MEASURED
from autovision.space import Space
from autovision.space.config import TrialConfig


@dataclass
class Costs:
    """The costs of configurations.

    Attributes:
        names: of `objectives.COSTS`.
        classes: of the data set.
    """

    names: Sequence[str]
    classes: int
    measure: Measure
    _measured: dict[Family, dict[float, Footprint]] = field(default_factory=dict)
    _known: dict[TrialConfig, dict[str, float]] = field(default_factory=dict)

    def explore(
        self, space: Space, usable: Callable[[TrialConfig], bool], until: Callable[[], bool] = lambda: False
    ) -> str | None:
        """Measure what has to be measured, some ten seconds each, before the first trial.

        Args:
            until: whether it is time to stop; one is measured anyhow.

        Returns:
            What was not measured, in words; None: nothing.
        """
        if not MEASURED & set(self.names):
            return None
        families: dict[Family, list[TrialConfig]] = {}
        for config in heaviest(space):
            if usable(config):
                families.setdefault(Family.of(config), []).append(config)
        largest = [max(members, key=gflops) for members in families.values()]
        smallest = [min(members, key=gflops) for members in families.values()]
        wanted = list(dict.fromkeys([*largest, *smallest]))
        for done, config in enumerate(wanted):
            if done and until():
                return (
                    f"{done} of {len(wanted)} architectures were measured in the time there is for it; "
                    "what the others cost follows from these and their arithmetic"
                )
            self._measured.setdefault(Family.of(config), {})[gflops(config)] = self.measure(config)
        return None

    def __call__(self, config: TrialConfig) -> dict[str, float]:
        """Objective -> cost."""
        if not self.names:
            return {}
        key = architecture_of(config)
        if key not in self._known:
            self._known[key] = {name: self._cost(name, key) for name in self.names}
        return self._known[key]

    def _cost(self, name: str, config: TrialConfig) -> float:
        if name == "gflops":
            return gflops(config)
        if name == "size_mb":
            return size_mb(config, self.classes)
        points = sorted(self._measured.get(Family.of(config), {}).items())
        if len(points) < 2:
            return self._like_the_others(name, config)
        values = [float(getattr(found, name)) for _, found in points]
        return float(np.interp(gflops(config), [work for work, _ in points], values))

    def _like_the_others(self, name: str, config: TrialConfig) -> float:
        """From one network of the family, else from all that were measured: as slow for its arithmetic, as large."""
        own = self._measured.get(Family.of(config), {})
        families = [own] if own else self._measured.values()
        known = [(work, float(getattr(found, name))) for each in families for work, found in each.items()]
        if name == "latency_ms":
            return gflops(config) * statistics.median(value / work for work, value in known)
        return float(statistics.median(value for _, value in known))
