"""What is simulated: tables of features, curves of trials, what both take, and the clock."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from autovision.model import backbone as backbones
from autovision.model.stages import channels_of, stages_of
from autovision.search.costing.arithmetic import needed
from autovision.space.config import TrialConfig

START = 1_000_000.0
"""when simulations begin, in seconds since the epoch"""


@dataclass
class VirtualClock:
    """Stands where it was set; a driver reads it as it would `time.time`."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Table:
    """Frozen features of one split under one view: what is computed once, and shared."""

    backbone: str
    resolution: int | None
    view: str
    cut: int | None
    """None: pooled features of all stages"""
    split: str
    """`train` or `validation`"""


@dataclass(frozen=True)
class Rung:
    """What a trial comes to at the end of a rung."""

    rung: int
    epoch: int
    seconds: float
    """of training, since its features were there"""
    metrics: Mapping[str, float]
    """on validation"""


class Lab(Protocol):
    """Where simulated trials get their curves and costs from."""

    @property
    def images(self) -> Mapping[str, int]:
        """split -> how many"""
        ...

    @property
    def classes(self) -> int: ...

    def tables(self, config: TrialConfig) -> Sequence[Table]:
        """What has to be there before training begins."""
        ...

    def table_s(self, table: Table) -> float:
        """Seconds of one worker that computes all of a table."""
        ...

    def curve(self, config: TrialConfig, seed: int) -> Sequence[Rung]:
        """Every rung, the last one at the end of training; of a trial that fails, those before it failed."""
        ...

    def together_s(self, configs: Sequence[TrialConfig]) -> float:
        """Seconds of training heads as one computation."""
        ...


def tables_of(config: TrialConfig) -> list[Table]:
    """The tables that a trial of AutoVision reads."""
    return [
        Table(config.backbone, config.resolution, view, cut, split)
        for cut, views, splits in needed(config)
        for split in splits
        for view in views.names()
    ]


@functools.cache
def channels(backbone: str, resolution: int | None) -> list[int]:
    """Of every stage of a backbone, from its shapes alone: no weights are needed."""
    config = TrialConfig(backbone=backbone, resolution=resolution)
    prep = backbones.preprocessing(config)
    with torch.device("meta"):
        staged = stages_of(backbones.create(config), (prep.height, prep.width)).eval()
        return channels_of(staged, prep.height, prep.width)
