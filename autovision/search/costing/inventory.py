"""Which features the store lacks, counted without a network: that is done for hundreds of configurations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from autovision.features.shards import FeatureTable
from autovision.features.spec import FeatureSpec, pixel_spec
from autovision.features.views import IDENTITY, Views
from autovision.model import backbone as backbones
from autovision.model.inference import native_precision
from autovision.space.config import TrialConfig
from autovision.trial.workbench import Workbench

_LACKING_S, _COMPLETE_S = 20.0, 100.0
"""for so long a count is believed: while trials compute what is missing, and once nothing is"""


@dataclass
class Inventory:
    """Counts rows of features, and remembers what it counted a moment ago.

    Attributes:
        clock: seconds that only go on.
    """

    bench: Workbench
    clock: Callable[[], float] = time.monotonic
    _tables: dict[str, FeatureTable] = field(default_factory=dict)
    _counts: dict[tuple[object, ...], tuple[int, float]] = field(default_factory=dict)

    def missing(
        self, config: TrialConfig, images: Sequence[str], name: str, views: Views, cut: int | None
    ) -> int:
        """How many image views are not stored: pooled ones, or activations at a cut (0: decoded pixels).

        Args:
            name: of the images, for remembering.
        """
        key = (config.backbone, config.weights, config.resolution, name, views, cut)
        known, now = self._counts.get(key), self.clock()
        if known is not None and now < known[1]:
            return known[0]
        count = sum(self._lacking(spec, images) for spec in self._specs(config, views, cut))
        self._counts[key] = count, now + (_LACKING_S if count else _COMPLETE_S)
        return count

    def forget(self, config: TrialConfig) -> None:
        """Count anew what is missing for a backbone at this resolution."""
        own = (config.backbone, config.weights, config.resolution)
        self._counts = {key: known for key, known in self._counts.items() if key[:3] != own}

    def _lacking(self, spec: FeatureSpec, images: Sequence[str]) -> int:
        table = self._tables.setdefault(spec.digest, FeatureTable(spec))
        table.refresh(self.bench.store)
        return len(table.missing(images))

    def _specs(self, config: TrialConfig, views: Views, cut: int | None) -> list[FeatureSpec]:
        if cut == 0:
            return [pixel_spec(backbones.preprocessing(config), IDENTITY)]
        return specs_of(self.bench, config, views, cut)


def specs_of(bench: Workbench, config: TrialConfig, views: Views, cut: int | None) -> list[FeatureSpec]:
    """What names the features of these views at a cut; None: pooled ones."""
    own = FeatureSpec(
        backbone=config.backbone,
        weights_digest=bench.weights_digest(config),
        preprocessing=backbones.preprocessing(config),
        view=IDENTITY,
        output="pooled" if cut is None else "cut",
        cut=cut,
        precision=native_precision(),
    )
    return [own.with_(view=view) for view in views.names()]
