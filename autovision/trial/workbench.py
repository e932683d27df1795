"""What one process keeps between its trials."""

from __future__ import annotations

from dataclasses import dataclass, field

from autovision.features.compute import FeatureSource, Helpers, nobody
from autovision.model import backbone as backbones
from autovision.model.stages import channels_of
from autovision.records.models import Preprocessing
from autovision.space.config import TrialConfig
from autovision.store.protocol import Store
from autovision.trial.splits import DataSplits, load_splits


@dataclass
class Workbench:
    """Backbones and features, by name and resolution.

    Attributes:
        budget_bytes: what all frozen features in the store may take together; None: a share of the disk.
        helpers: who else computes features that are missing.
    """

    store: Store
    threads: int
    budget_bytes: int | None = None
    helpers: Helpers = nobody
    _splits: dict[tuple[str, str | None], DataSplits] = field(default_factory=dict)
    _sources: dict[tuple[str, str, Preprocessing], FeatureSource] = field(default_factory=dict)
    _channels: dict[tuple[str, Preprocessing], list[int]] = field(default_factory=dict)

    def splits(self, dataset: str, champion: str | None = None) -> DataSplits:
        """As a successor of the champion sees them; None: of nobody."""
        if (dataset, champion) not in self._splits:
            self._splits[dataset, champion] = load_splits(self.store, dataset, champion)
        return self._splits[dataset, champion]

    def source(self, config: TrialConfig) -> FeatureSource:
        prep = backbones.preprocessing(config)
        key = (config.backbone, config.weights, prep)
        if key not in self._sources:
            loaded = backbones.load(config.with_(drop_stages=0), self.store)
            self._sources[key] = FeatureSource(
                self.store, loaded, config.backbone, prep, self.threads, self.budget_bytes, self.helpers
            )
        return self._sources[key]

    def weights_digest(self, config: TrialConfig) -> str:
        """Of a backbone's weights; where they are the same at every size, one that is loaded tells it for all."""
        for (backbone, weights, _), source in self._sources.items():
            same = (backbone, weights) == (config.backbone, config.weights)
            if same and backbones.takes_any_size(backbone):
                return source.loaded.info.digest
        return self.source(config).loaded.info.digest

    def channels(self, config: TrialConfig) -> list[int]:
        """Of every stage of the whole backbone."""
        source = self.source(config)
        key = (config.backbone, source.preprocessing)
        if key not in self._channels:
            self._channels[key] = channels_of(
                source.loaded.staged, source.preprocessing.height, source.preprocessing.width
            )
        return self._channels[key]
