"""The statistics of BatchNorm, moved as unlabelled images ask for it (Schneider et al. 2020).

The statistics that a network holds need not be those of the images that it was taught on: those of frozen stages are of
what the backbone was trained on, and the head has learnt from what comes of that. So they are not replaced. Each layer
is given those with which new images come out of it as the ones of before did: no image changes what it would be if the
new ones were like those of before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autovision.model.network import Network

_PRIOR_IMAGES = 16
"""so many images the statistics of before count as"""
_BATCH = 32

_Moments = tuple[torch.Tensor, torch.Tensor]
"""mean and variance of each channel"""


def norms(network: nn.Module) -> list[_BatchNorm]:
    """The layers that normalize by stored statistics."""
    return [
        each
        for each in network.modules()
        if isinstance(each, _BatchNorm) and each.running_mean is not None and each.running_var is not None
    ]


def re_estimated(network: Network, pixels: np.ndarray, usual: np.ndarray) -> Network:
    """A copy of a network whose BatchNorm statistics have moved as the images have, but for a little.

    Each layer sees what the layers below it give with the new statistics. Nothing else changes.

    Args:
        pixels: uint8 (N, H, W, 3), preprocessed for it.
        usual: uint8 (M, H, W, 3), the same of images like those that it was taught on.
    """
    moved = copy.deepcopy(network).eval()
    layers = norms(moved)
    stored = [(_tensor(layer.running_mean), _tensor(layer.running_var)) for layer in layers]
    before = _seen(moved, usual, [lambda layer, moments: None] * len(layers))
    follow = [partial(_follow, own, was) for own, was in zip(stored, before, strict=True)]
    after = _seen(moved, pixels, follow)
    share = len(pixels) / (len(pixels) + _PRIOR_IMAGES)
    for layer, own, was, now in zip(layers, stored, before, after, strict=True):
        mean, var = _moved(own, was, now, layer.eps)
        layer.running_mean, layer.running_var = own[0].lerp(mean, share), own[1].lerp(var, share)
    return moved


def _moved(own: _Moments, was: _Moments, now: _Moments, eps: float) -> _Moments:
    """The statistics with which what is like `now` comes out as what was like `was` did with its `own`.

    Args:
        eps: of the layer, below which a variance is none: a channel that is constant on both stays as it is.
    """
    ratio = ((now[1] + eps) / (was[1] + eps)).clamp(1e-4, 1e4)
    return now[0] - ratio.sqrt() * (was[0] - own[0]), own[1] * ratio


def _follow(own: _Moments, was: _Moments, layer: _BatchNorm, moments: _Moments) -> None:
    layer.running_mean, layer.running_var = _moved(own, was, moments, layer.eps)


def _seen(
    network: Network, pixels: np.ndarray, act: Sequence[Callable[[_BatchNorm, _Moments], None]]
) -> list[_Moments]:
    """What each layer is given for some images, as the mean over batches; `act` is called before it computes."""
    layers = norms(network)
    sums: list[list[torch.Tensor]] = [[] for _ in layers]
    parts = np.array_split(np.arange(len(pixels)), max(1, len(pixels) // _BATCH))

    def watch(index: int, layer: nn.Module, inputs: Any) -> None:
        channels = inputs[0].detach().transpose(0, 1).flatten(1)
        moments = channels.mean(1), channels.var(1, correction=0)
        assert isinstance(layer, _BatchNorm)
        act[index](layer, moments)
        sums[index].append(torch.stack(moments))

    hooks = [layer.register_forward_pre_hook(partial(watch, index)) for index, layer in enumerate(layers)]
    try:
        with torch.no_grad():
            for part in parts:
                network(torch.from_numpy(pixels[part]))
    finally:
        for hook in hooks:
            hook.remove()
    means = [torch.stack(each).mean(0) for each in sums]
    return [(each[0], each[1]) for each in means]


def _tensor(buffer: torch.Tensor | None) -> torch.Tensor:
    assert buffer is not None
    return buffer.clone()
