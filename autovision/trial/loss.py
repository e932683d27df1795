"""Targets, sample weights and the loss: for one label an image and for several."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from autovision.space.config import TrialConfig
from autovision.trial.data import Labelled

_LEAST_CONFIDENCE = 0.05
"""an image is never without any weight, whatever its label's confidence"""


def class_shares(split: Labelled) -> Tensor:
    """(C,) float32: the share of the images that have each class; of a class that none has, that of half an image."""
    return split.targets.sum(0).clamp(min=0.5) / len(split)


def sample_weights(split: Labelled, config: TrialConfig) -> Tensor:
    """(N,) float32 with mean 1: by class frequency, label confidence and what is new, as the configuration says."""
    weights = torch.ones(len(split))
    if config.class_weighting == "balanced":
        weights = balanced_weights(split)
    if config.confidence_weighting:
        weights = weights * split.confidence.clamp(min=_LEAST_CONFIDENCE)
    if split.new is not None:
        weights = torch.where(split.new, config.new_weight * weights, weights)
    return weights / weights.mean()


def balanced_weights(split: Labelled) -> Tensor:
    """(N,) float32: the inverse frequency of an image's class; the mean of those of its classes, if it has several."""
    inverse = 1 / (split.targets.shape[1] * class_shares(split))
    labels = split.targets.sum(1)
    # An image without any label weighs as one of a class of average frequency.
    return torch.where(labels > 0, split.targets @ inverse / labels.clamp(min=1), torch.ones(()))


def soft_targets(split: Labelled, smoothing: float, distill: float = 0.0) -> Tensor:
    """(N, C): smoothed (Szegedy et al. 2016), towards all classes alike; for several labels towards one half.

    Args:
        distill: share of what the champion says of the images that it knew. Cross entropy to such a mixture has the
            gradient of that share of the divergence from the champion's answer (KL) and of the rest of the cross
            entropy to the label: it is distillation (Hinton et al. 2015) that mixup, views and fused heads know as
            any other target.
    """
    even = 0.5 if split.multi_label else 1 / split.classes
    targets = split.targets
    if distill and split.taught is not None:
        targets = targets + distill * (split.taught - targets)
    return targets * (1 - smoothing) + smoothing * even


def log_prior(split: Labelled, config: TrialConfig) -> Tensor:
    """(C,) float32: what logit adjustment (Menon et al. 2021) adds to the logits in training."""
    shares = class_shares(split).clamp(max=1 - 0.5 / len(split))
    prior = torch.logit(shares) if split.multi_label else torch.log(shares)
    return config.logit_adjustment * prior


def losses(logits: Tensor, targets: Tensor, config: TrialConfig, *, multi_label: bool) -> Tensor:
    """The loss of each image, as the configuration says: logits and targets (…, C) to (…)."""
    return focal_losses(logits, targets, gamma_of(config), multi_label=multi_label)


def gamma_of(config: TrialConfig) -> float:
    """The focal loss's exponent; 0 is cross entropy."""
    return config.focal_gamma if config.loss == "focal" else 0.0


def focal_losses(logits: Tensor, targets: Tensor, gamma: float | Tensor, *, multi_label: bool) -> Tensor:
    """The loss of each image: logits and targets (…, C) to (…).

    Cross entropy over the classes; the mean of the classes' binary cross entropies for several labels. As focal
    loss (Lin et al. 2017) each term is weighed by (1 - p)^gamma, p being the probability of that term's truth.

    Args:
        gamma: of all, or what broadcasts with the logits; 0: cross entropy.
    """
    logits = logits.float()
    if multi_label:
        yes, no = F.logsigmoid(logits), F.logsigmoid(-logits)
        return -(targets * _focal(yes, gamma) + (1 - targets) * _focal(no, gamma)).mean(-1)
    return -(targets * _focal(F.log_softmax(logits, -1), gamma)).sum(-1)


def _focal(log_p: Tensor, gamma: float | Tensor) -> Tensor:
    if isinstance(gamma, float) and gamma == 0:
        return log_p
    # Never below a hair: the derivative of a power of zero is not finite for gamma below one.
    return (1 - log_p.exp()).clamp(min=1e-6).pow(gamma) * log_p


def probabilities(logits: Tensor, *, multi_label: bool) -> Tensor:
    """(…, C) float64: of exactly one class being right, or of each class by itself."""
    return logits.double().sigmoid() if multi_label else logits.double().softmax(-1)
