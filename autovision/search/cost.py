"""Seconds that a trial will take, from the arithmetic in it and the speed that was measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from autovision.features.views import Views
from autovision.model.flops import stage_gflops
from autovision.model.network import cut_of
from autovision.search.arms import Arm
from autovision.space.config import TrialConfig
from autovision.trial.data import judged_views_of, views_of
from autovision.trial.trial import DataSplits, Workbench

_FIRST_GFLOPS_S = 20.0
"""one CPU thread, until there is a measurement"""
_TRAIN_SLOWDOWN = 4.0
"""a training step against compiled inference: backward pass, and PyTorch instead of the compiler"""
_SETUP_S = 4.0
"""loading and compiling a backbone that this worker has not used yet"""
_PROBE_S = 1.0


@dataclass
class CostModel:
    """Predicts the seconds of a trial; learns from every trial that computed features."""

    bench: Workbench
    splits: DataSplits
    _rates: list[float] = field(default_factory=list)
    _missing: dict[str, tuple[int, int]] = field(default_factory=dict)

    def observe(self, gflops: float, seconds: float) -> None:
        """Features of `gflops` in all were computed in `seconds`."""
        if gflops > 0 and seconds > 0.5:
            self._rates.append(gflops / seconds)

    @property
    def gflops_s(self) -> float:
        return statistics.median(self._rates[-9:]) if self._rates else _FIRST_GFLOPS_S

    def feature_gflops(self, config: TrialConfig) -> float:
        """The arithmetic of the features that a configuration needs and the store does not have."""
        stages = stage_gflops(config.backbone, config.resolution)
        source, views = self.bench.source(config), views_of(config)
        total = 0.0
        for cut in self._outputs(config, len(stages)):
            # Views that are drawn afresh are computed while training; the head is probed on the images themselves.
            seen = views if views.number is not None else Views()
            missing = source.missing(self.splits.train.images, seen, cut)
            missing += source.missing(self.splits.validation.images, judged_views_of(config), cut)
            total += missing * sum(stages if cut is None else stages[:cut])
        return total

    def _outputs(self, config: TrialConfig, stages: int) -> list[int | None]:
        """The cuts of which a configuration reads activations; None: pooled features of all stages."""
        pooled: list[int | None] = [] if config.head == "attention" else [None]
        return [*pooled, cut_of(config, stages - config.drop_stages)] if config.needs_maps else pooled

    def training_s(self, config: TrialConfig) -> float:
        """Seconds until the first rung, without features."""
        if not config.needs_maps:
            return _PROBE_S
        stages = stage_gflops(config.backbone, config.resolution)
        keep = len(stages) - config.drop_stages
        per_image = sum(stages[cut_of(config, keep) : keep]) * _TRAIN_SLOWDOWN
        if views_of(config).number is None:
            per_image += sum(stages[: cut_of(config, keep)])
        first_rung = max(1, config.epochs // 9)
        return _PROBE_S + per_image * len(self.splits.train) * first_rung / self.gflops_s

    def predicted_total_s(self, config: TrialConfig) -> float:
        """Seconds until the end, features that are missing included."""
        first_rung = max(1, config.epochs // 9)
        training = (self.training_s(config) - _PROBE_S) * config.epochs / first_rung
        return self.predicted_s(config) - self.training_s(config) + _PROBE_S + training

    def predicted_s(self, config: TrialConfig) -> float:
        """Seconds until the first rung, features that are missing included."""
        gflops = self.feature_gflops(config)
        return (gflops / self.gflops_s + _SETUP_S if gflops else 0.0) + self.training_s(config)


def config_of(arm: Arm, defaults: Mapping[str, object]) -> TrialConfig:
    """The configuration that stands for an arm: the space's default with the arm's values."""
    known = {
        name: value for name, value in {**defaults, **dict(arm)}.items() if name in TrialConfig.model_fields
    }
    return TrialConfig.model_validate(known)
