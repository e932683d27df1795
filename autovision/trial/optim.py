"""Optimizer, schedule and moving average: discriminative learning rates, warm-up, cosine decay, EMA."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autovision.model.network import Suffix
from autovision.space.config import TrialConfig


def parameter_groups(suffix: Suffix, config: TrialConfig) -> list[dict[str, object]]:
    """One group for what is new (head, pooling, adapters), and one per trained stage, from the top.

    Each stage's rate is `layer_decay` times that of the stage above it (discriminative learning rates, Howard &
    Ruder 2018). Norms and biases are not decayed.
    """
    new = nn.ModuleList([suffix.head, suffix.pooler, suffix.adapters])
    groups = _split_decay(new, config.lr, config.weight_decay)
    rate = config.lr * config.backbone_lr_ratio
    for stage in reversed(suffix.trained_stages()):
        groups += _split_decay(stage, rate, config.weight_decay)
        rate *= config.layer_decay
    return groups


def _split_decay(module: nn.Module, lr: float, weight_decay: float) -> list[dict[str, object]]:
    decayed = [p for p in module.parameters() if p.dim() > 1]
    others = [p for p in module.parameters() if p.dim() <= 1]
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


def rate_factor(config: TrialConfig, step: int, steps: int) -> float:
    """Of the peak rate at a step: linear warm-up, then a cosine to zero."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_rate(optimizer: Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def unlocked_stages(config: TrialConfig, epoch: int) -> int:
    """How many of the unfrozen stages, from the top, an epoch trains (gradual unfreezing, Howard & Ruder 2018)."""
    if config.unfreeze_schedule == "at_once":
        return config.unfreeze
    # One at first and one more at a time, the last of them when half of the epochs are over.
    return min(config.unfreeze, 1 + math.floor(config.unfreeze * epoch / max(1.0, config.epochs / 2)))


def unlock(suffix: Suffix, config: TrialConfig, epoch: int) -> bool:
    """Let the stages be trained that an epoch trains; whether that changed anything."""
    stages = suffix.trained_stages()
    locked = len(stages) - unlocked_stages(config, epoch)
    changed = False
    for index, stage in enumerate(stages):
        for parameter in stage.parameters():
            changed |= parameter.requires_grad != (index >= locked)
            parameter.requires_grad_(index >= locked)
            if index < locked:
                parameter.grad = None
    return changed


def averaging_decay(updates: int) -> float:
    """The most that the decay of a moving average can be after so many updates.

    At first the average would be mostly the start; it takes in more of the new until it is long enough.
    """
    return (1 + updates) / (10 + updates)


class Ema:
    """Exponential moving average of parameters (Polyak & Juditsky 1992), warmed up as in the usual recipes."""

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.updates = 0
        self.average = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, averaging_decay(self.updates))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters hold the average for the length of a block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self.parameters, self.average, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)
