"""Optimiser and schedule: discriminative learning rates, warm-up, cosine decay."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import Optimizer

from autovision.model.network import Suffix
from autovision.space.config import TrialConfig

_WARMUP = 0.05
"""share of the steps"""


def parameter_groups(suffix: Suffix, config: TrialConfig) -> list[dict[str, object]]:
    """One group for the head and one per unfrozen stage, each stage's rate `layer_decay` times that above it.

    Discriminative learning rates after Howard & Ruder 2018. Norms and biases are not decayed.
    """
    groups = _split_decay(suffix.head, config.lr, config.weight_decay)
    rate = config.lr * config.backbone_lr_ratio
    unfrozen = list(suffix.upper.stages) if config.unfreeze else []
    for stage in reversed(unfrozen):
        groups += _split_decay(stage, rate, config.weight_decay)
        rate *= config.layer_decay
    return groups


def _split_decay(module: nn.Module, lr: float, weight_decay: float) -> list[dict[str, object]]:
    decayed = [p for p in module.parameters() if p.requires_grad and p.dim() > 1]
    others = [p for p in module.parameters() if p.requires_grad and p.dim() <= 1]
    groups: list[dict[str, object]] = []
    if decayed:
        groups.append({"params": decayed, "lr": lr, "peak": lr, "weight_decay": weight_decay})
    if others:
        groups.append({"params": others, "lr": lr, "peak": lr, "weight_decay": 0.0})
    return groups


def make_optimizer(suffix: Suffix, config: TrialConfig) -> Optimizer:
    groups = parameter_groups(suffix, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=config.lr)


def set_rate(optimizer: Optimizer, step: int, steps: int) -> None:
    """Linear warm-up, then cosine decay to zero, of each group's peak rate."""
    warmup = max(1, round(_WARMUP * steps))
    if step < warmup:
        factor = (step + 1) / warmup
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
