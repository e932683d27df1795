"""The training loop: the head on pooled features first, then the unfrozen stages from there (LP-FT).

Linear probing before fine-tuning keeps pretrained features from being distorted (Kumar et al. 2022).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autovision import metrics
from autovision.model.network import Suffix
from autovision.space.config import TrialConfig
from autovision.trial.data import Features, Labelled
from autovision.trial.loss import Mixer, sample_weights, soft_cross_entropy, soft_targets
from autovision.trial.optim import make_optimizer, set_rate

RUNGS = 3
_REDUCTION = 3
"""each rung trains three times as many epochs as the one before"""
_PROBE_EPOCHS = 30


class NotFinite(Exception):
    """The loss became infinite or NaN; lower the learning rate."""


@dataclass(frozen=True)
class Problem:
    """A split to learn from, a split to be judged by, and the classes."""

    train: Labelled
    validation: Labelled
    train_features: Features
    validation_features: Features
    classes: int
    positive: int | None


@dataclass(frozen=True)
class RungReport:
    """What training came to at the end of a rung."""

    rung: int
    epoch: int
    train_loss: float
    metrics: dict[str, float]
    """on validation"""
    logits: np.ndarray
    """(M, C) float32, of the validation images"""
    last: bool


def rung_epochs(epochs: int) -> list[int]:
    """The epochs after which a trial reports: about a ninth, a third, all of them."""
    return sorted({max(1, math.ceil(epochs / _REDUCTION ** (RUNGS - 1 - rung))) for rung in range(RUNGS)})


def train(
    suffix: Suffix,
    problem: Problem,
    config: TrialConfig,
    *,
    seed: int,
    deadline: float,
    initial: dict[str, Tensor] | None = None,
) -> Iterator[RungReport]:
    """Train `suffix` in place, yielding at each rung. At the deadline (epoch seconds) it yields once more and ends.

    Args:
        initial: tensors of a head to start from; None: a new head.

    Raises:
        NotFinite: the loss diverged.
    """
    torch.manual_seed(seed)
    suffix.eval()  # BatchNorm keeps its pretrained statistics: batches here are small, and serving folds them
    if initial is None:
        suffix.head.standardize_by(problem.train_features.pooled[0])
    else:
        suffix.head.load_state_dict(initial)
    if config.unfreeze == 0:
        yield from _fit(suffix, problem, config, seed, deadline)
        return
    head_only = replace(
        problem,
        train_features=_pooled_only(problem.train_features),
        validation_features=_pooled_only(problem.validation_features),
    )
    probe = config.with_(unfreeze=0, epochs=_PROBE_EPOCHS, cutmix=0.0)
    for _ in _fit(suffix, head_only, probe, seed, deadline):
        pass
    yield from _fit(suffix, problem, config, seed, deadline)


def _pooled_only(features: Features) -> Features:
    return replace(features, below=None, activation=None)


def _fit(
    suffix: Suffix, problem: Problem, config: TrialConfig, seed: int, deadline: float
) -> Iterator[RungReport]:
    rng = np.random.default_rng(seed)
    device = next(suffix.head.parameters()).device
    mixer = Mixer(config, rng)
    optimizer = make_optimizer(suffix, config)
    targets = soft_targets(problem.train.labels, problem.classes, config.label_smoothing)
    weights = sample_weights(problem.train, config, problem.classes)
    steps_per_epoch = math.ceil(len(problem.train) / config.batch_size)
    rungs = rung_epochs(config.epochs)
    loss_sum, rung_steps = 0.0, 0
    for epoch in range(config.epochs):
        suffix.head.train()
        for step, rows in enumerate(_batches(len(problem.train), config.batch_size, rng)):
            set_rate(optimizer, epoch * steps_per_epoch + step, config.epochs * steps_per_epoch)
            batch = (*_draw(problem.train_features, rows, rng), targets[rows], weights[rows])
            activation, below, mixed, weighed = mixer(*_to(device, *batch))
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = suffix(activation, below)
            loss = soft_cross_entropy(logits, mixed, weighed)
            if not torch.isfinite(loss):
                raise NotFinite(
                    f"loss is {loss.item()} in epoch {epoch + 1} at lr={config.lr:g}; lower the learning rate"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(suffix.parameters(), 5.0)
            optimizer.step()
            loss_sum, rung_steps = loss_sum + loss.item(), rung_steps + 1
            if time.time() >= deadline:
                break
        late = time.time() >= deadline
        if epoch + 1 in rungs or late:
            outputs = predict(suffix, problem.validation_features)
            scores = metrics.score(_softmax(outputs), problem.validation.labels.numpy(), problem.positive)
            last = late or epoch + 1 == config.epochs
            yield RungReport(
                rungs.index(epoch + 1) if epoch + 1 in rungs else len(rungs),
                epoch + 1,
                loss_sum / max(1, rung_steps),
                scores,
                outputs,
                last,
            )
            loss_sum, rung_steps = 0.0, 0
            if late:
                return


def _batches(n: int, size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    order = torch.from_numpy(rng.permutation(n))
    yield from torch.split(order, size)


def _draw(features: Features, rows: Tensor, rng: np.random.Generator) -> tuple[Tensor | None, Tensor | None]:
    """One view for each row, drawn at random: the activation and the pooled taps below it."""
    return _inputs(features, torch.from_numpy(rng.integers(features.views, size=len(rows))), rows)


def _inputs(features: Features, views: Tensor, rows: Tensor) -> tuple[Tensor | None, Tensor | None]:
    if features.activation is None:
        return None, features.pooled[views, rows]
    below = None if features.below is None else features.below[views, rows]
    return features.activation[views, rows].float(), below


def _to(device: torch.device, *tensors: Tensor | None) -> tuple[Any, ...]:
    return tuple(None if tensor is None else tensor.to(device) for tensor in tensors)


@torch.no_grad()
def predict(suffix: Suffix, features: Features, *, batch: int = 256) -> np.ndarray:
    """Logits (M, C) float32 of the identity view, with dropout off."""
    suffix.head.eval()
    device = next(suffix.head.parameters()).device
    parts = []
    for start in range(0, features.pooled.shape[1], batch):
        rows = torch.arange(start, min(start + batch, features.pooled.shape[1]))
        parts.append(suffix(*_to(device, *_inputs(features, torch.zeros_like(rows), rows))).cpu())
    return torch.cat(parts).float().numpy()


def _softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).double().softmax(1).numpy()
