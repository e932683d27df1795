"""The statistics of BatchNorm, estimated anew on images that nobody has labelled (Schneider et al. 2020)."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autovision.model.network import Network

_PRIOR_IMAGES = 16
"""so many images the statistics of before count as"""
_BATCH = 32


def norms(network: nn.Module) -> list[_BatchNorm]:
    """The layers that normalize by stored statistics."""
    return [
        each
        for each in network.modules()
        if isinstance(each, _BatchNorm) and each.running_mean is not None and each.running_var is not None
    ]


def re_estimated(network: Network, pixels: np.ndarray) -> Network:
    """A copy of a network whose BatchNorm statistics are those of some images, and a little those of before.

    Each layer sees what the layers below it give with the new statistics. Nothing else changes.

    Args:
        pixels: uint8 (N, H, W, 3), preprocessed for it.
    """
    moved = copy.deepcopy(network).eval()
    layers = norms(moved)
    before = [(_tensor(layer.running_mean), _tensor(layer.running_var)) for layer in layers]
    counts = [
        None if layer.num_batches_tracked is None else layer.num_batches_tracked.clone() for layer in layers
    ]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    parts = np.array_split(np.arange(len(pixels)), max(1, len(pixels) // _BATCH))
    with torch.no_grad():
        for part in parts:
            moved(torch.from_numpy(pixels[part]))
    share = len(pixels) / (len(pixels) + _PRIOR_IMAGES)
    for layer, (mean, var), count, momentum in zip(layers, before, counts, momenta, strict=True):
        layer.running_mean = mean.lerp(_tensor(layer.running_mean), share)
        layer.running_var = var.lerp(_tensor(layer.running_var), share)
        layer.num_batches_tracked, layer.momentum = count, momentum
        layer.eval()
    return moved


def _tensor(buffer: torch.Tensor | None) -> torch.Tensor:
    assert buffer is not None
    return buffer.clone()
