"""How much arithmetic each stage of a backbone takes: what costs are predicted from."""

from __future__ import annotations

import functools

import torch
from torch.utils.flop_counter import FlopCounterMode

from autovision.model import backbone as backbones
from autovision.model.stages import stages_of
from autovision.space.config import TrialConfig


@functools.cache
def stage_gflops(backbone: str, resolution: int | None) -> tuple[float, ...]:
    """10⁹ floating-point operations of each stage's forward pass, for one image. No weights are needed."""
    config = TrialConfig(backbone=backbone, resolution=resolution)
    prep = backbones.preprocessing(config)
    counts = []
    with torch.device("meta"), torch.inference_mode():
        staged = stages_of(backbones.create(config), (prep.height, prep.width)).eval()
        x = torch.empty(1, 3, prep.height, prep.width)
        for stage in staged.stages:
            counter = FlopCounterMode(display=False)
            with counter:
                x = stage(x)
            counts.append(counter.get_total_flops() / 1e9)
    return tuple(counts)
