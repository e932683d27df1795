"""Sample weights, mixing and the loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autovision.space.config import TrialConfig
from autovision.trial.data import Labelled

_LEAST_CONFIDENCE = 0.05
"""an image is never without any weight, whatever its label's confidence"""


def sample_weights(split: Labelled, config: TrialConfig, classes: int) -> Tensor:
    """(N,) float32 with mean 1: by class frequency and by label confidence, as the configuration says."""
    weights = torch.ones(len(split))
    if config.class_weighting == "balanced":
        counts = torch.bincount(split.labels, minlength=classes).clamp(min=1)
        weights = weights * (len(split) / (classes * counts.float()))[split.labels]
    if config.confidence_weighting:
        weights = weights * split.confidence.clamp(min=_LEAST_CONFIDENCE)
    return weights / weights.mean()


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """(N, C): one-hot, smoothed (Szegedy et al. 2016)."""
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


def soft_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of the cross entropy against soft targets."""
    return -(targets * F.log_softmax(logits.float(), 1)).sum(1).mul(weights).sum() / weights.sum()


class Mixer:
    """Mixup (Zhang et al. 2018) on features and CutMix (Yun et al. 2019) on activation maps, one of them a batch."""

    def __init__(self, config: TrialConfig, rng: np.random.Generator) -> None:
        self._mixup, self._cutmix, self._rng = config.mixup, config.cutmix, rng

    def __call__(
        self, activation: Tensor | None, below: Tensor | None, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
        """Each row mixed with the row that a random permutation puts beside it."""
        is_map = activation is not None and activation.dim() == 4
        methods = [("mixup", self._mixup)] if self._mixup else []
        methods += [("cutmix", self._cutmix)] if self._cutmix and is_map else []
        if not methods or len(targets) < 2:
            return activation, below, targets, weights
        method, alpha = methods[self._rng.integers(len(methods))]
        share = float(self._rng.beta(alpha, alpha))
        other = torch.from_numpy(self._rng.permutation(len(targets)))
        if method == "cutmix":
            assert activation is not None
            activation, share = self._paste(activation, other, share)
        elif activation is not None:
            activation = activation * share + activation[other] * (1 - share)
        # Pooled taps below the cut are averages over the image, so they mix in proportion under CutMix too.
        below = None if below is None else below * share + below[other] * (1 - share)
        return (
            activation,
            below,
            targets * share + targets[other] * (1 - share),
            weights * share + weights[other] * (1 - share),
        )

    def _paste(self, maps: Tensor, other: Tensor, share: float) -> tuple[Tensor, float]:
        """A box of the other row's map over (B, C, H, W); the share of the area that is left."""
        height, width = maps.shape[2:]
        size = np.sqrt(1 - share)
        box_h, box_w = round(height * size), round(width * size)
        top = int(self._rng.integers(height - box_h + 1))
        left = int(self._rng.integers(width - box_w + 1))
        mixed = maps.clone()
        mixed[:, :, top : top + box_h, left : left + box_w] = maps[
            other, :, top : top + box_h, left : left + box_w
        ]
        return mixed, 1 - box_h * box_w / (height * width)
