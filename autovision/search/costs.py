"""What a model of a configuration would cost, in the objectives that a search minimises: known before it is trained.

Size and arithmetic follow from the configuration. Latency and memory grow with the arithmetic within a family of
networks (see `autovision.search.limits`): of each, the smallest and the largest are measured, as they are served, and
those between lie on the line between these. Nothing is measured while trials run, which would slow each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from autovision.model.footprint import Footprint, size_mb
from autovision.search.limits import Family, Measure, architecture_of, gflops, heaviest
from autovision.search.objectives import MEASURED
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

    def explore(self, space: Space, usable: Callable[[TrialConfig], bool]) -> None:
        """Measure what has to be measured, some ten seconds each, before the first trial."""
        if not MEASURED & set(self.names):
            return
        families: dict[Family, list[TrialConfig]] = {}
        for config in heaviest(space):
            if usable(config):
                families.setdefault(Family.of(config), []).append(config)
        for members in families.values():
            members.sort(key=gflops)
            for config in dict.fromkeys((members[0], members[-1])):
                self._look_at(config)

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
        family = Family.of(config)
        if family not in self._measured:
            self._look_at(config)
        points = sorted(self._measured[family].items())
        values = [float(getattr(found, name)) for _, found in points]
        return float(np.interp(gflops(config), [work for work, _ in points], values))

    def _look_at(self, config: TrialConfig) -> None:
        self._measured.setdefault(Family.of(config), {})[gflops(config)] = self.measure(config)
