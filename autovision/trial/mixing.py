"""Mixup and CutMix, on whatever the trained part of the network takes in: pooled features, activations, pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autovision.model.stages import Layout
from autovision.space.config import TrialConfig


@dataclass(frozen=True)
class Mix:
    """How the rows of a batch are mixed with other rows of it.

    Attributes:
        partner: (B,) index into the batch.
        share: how much of a row is left, 0 to 1.
        corner: for CutMix, where the box of the other row lies, as shares of the room that it has (from the top,
            from the left); None: mixup.
    """

    partner: np.ndarray
    share: float
    corner: tuple[float, float] | None

    def left(self, size: tuple[int, int]) -> float:
        """How much of a row is left on a map of this height and width: CutMix pastes whole positions."""
        if self.corner is None:
            return self.share
        (box_h, box_w), (height, width) = self._box(size), size
        return 1 - box_h * box_w / (height * width)

    def mask(self, size: tuple[int, int]) -> Tensor:
        """(H, W) bool: where CutMix pastes."""
        assert self.corner is not None
        (box_h, box_w), (height, width) = self._box(size), size
        top, left = round((height - box_h) * self.corner[0]), round((width - box_w) * self.corner[1])
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[top : top + box_h, left : left + box_w] = True
        return mask

    def _box(self, size: tuple[int, int]) -> tuple[int, int]:
        side = math.sqrt(1 - self.share)
        return round(size[0] * side), round(size[1] * side)


def draw_mix(config: TrialConfig, batch: int, maps: bool, rng: np.random.Generator) -> Mix | None:
    """Mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019); where both are on, either with the same chance.

    Args:
        maps: whether there are activation maps, into which CutMix can paste.
    """
    methods = [("mixup", config.mixup)] if config.mixup else []
    methods += [("cutmix", config.cutmix)] if config.cutmix and maps else []
    if not methods or batch < 2:
        return None
    method, alpha = methods[int(rng.integers(len(methods)))]
    share, partner = float(rng.beta(alpha, alpha)), rng.permutation(batch)
    corner = (float(rng.random()), float(rng.random())) if method == "cutmix" else None
    return Mix(partner, share, corner)


def map_size(shape: Sequence[int], layout: Layout) -> tuple[int, int] | None:
    """Height and width of the activation of one image, of this shape; None for tokens, which are no map."""
    match layout:
        case "map":
            return shape[1], shape[2]
        case "map_channels_last":
            return shape[0], shape[1]
        case "tokens":
            return None


def blend(x: Tensor, other: Tensor, share: float) -> Tensor:
    """What is an average over an image, or a target, mixes in proportion."""
    return x * share + other * (1 - share)


def paste(x: Tensor, other: Tensor, mix: Mix, layout: Layout) -> Tensor:
    """Activation maps with a box of the other's in them."""
    size = map_size(x.shape[1:], layout)
    assert size is not None
    mask = mix.mask(size).to(x.device)
    return torch.where(mask if layout == "map" else mask[..., None], other, x)
