"""Memory that training a configuration takes, before it is begun: counted by `trial.memory` on two empty images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autovision.model.heads import tapped_stages
from autovision.model.network import cut_of, taps_below
from autovision.space.config import TrialConfig
from autovision.trial.data import Inputs, columns_of, views_of
from autovision.trial.memory import Footprint, predict
from autovision.trial.splits import DataSplits
from autovision.trial.state import Problem, Training
from autovision.trial.trial import Trial
from autovision.trial.workbench import Workbench

_COUNTS = (
    *("backbone", "weights", "resolution", "drop_stages", "taps", "pooling", "head", "head_width"),
    *("adapters", "adapter_width", "unfreeze", "optimizer"),
)


@dataclass(frozen=True)
class _Shapes:
    """A prefix of which only the shapes are asked for."""

    images: int
    views: int | None
    activation_shape: tuple[int, ...] | None
    width: int

    def take(self, views: object, rows: object) -> tuple[None, None]:
        raise NotImplementedError("it has shapes and no rows")


def key_of(config: TrialConfig) -> str:
    """Configurations with the same key take the same memory, the number of images of a batch apart."""
    values = [getattr(config, name) for name in _COUNTS]
    mixes = bool(config.mixup or config.cutmix)
    return repr((*values, mixes, bool(config.ema), bool(config.patience), bool(config.l2_sp)))


def footprint(bench: Workbench, splits: DataSplits, config: TrialConfig) -> Footprint:
    """What a training run of a configuration will take. Needs the backbone, and no features."""
    trial = Trial(bench, splits.version.id, config, seed=0, deadline=math.inf)
    channels = bench.channels(config)
    keep = len(channels) - config.drop_stages
    shape = None
    stages = tapped_stages(config, keep)
    if config.needs_maps:
        shape = bench.source(config).shapes.activations[cut_of(config, keep)]
        stages = taps_below(config, keep)
    width = len(columns_of(config, channels, stages)) if stages else 0
    prefix = _Shapes(len(splits.train), views_of(config).number, shape, width)
    inputs = Inputs(splits.train, prefix, None)
    run = Training(trial.suffix, Problem(inputs, inputs, splits.positive), config, 0)
    return predict(run)
