"""What a trial trains on: rows of a data set as frozen features and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autovision.features.compute import FeatureSource
from autovision.model.network import cut_of, select_taps, tapped_stages
from autovision.space.config import TrialConfig


@dataclass(frozen=True)
class Labelled:
    """The images of one split, with what the loss needs of them."""

    images: tuple[str, ...]
    """digests"""
    labels: Tensor
    """(N,) int64, indices into the classes"""
    confidence: Tensor
    """(N,) float32, 0 to 1"""

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Features:
    """Frozen features of a split, for every view.

    Attributes:
        pooled: (V, N, D) float32, the pooled taps of the whole kept network, as it is before any training.
        below: (V, N, D_below) float32, those of them that lie below the cut; None if there are none.
        activation: (V, N, *shape) float16 at the cut; None when the head alone is trained.
    """

    pooled: Tensor
    below: Tensor | None
    activation: Tensor | None

    @property
    def views(self) -> int:
        return int(self.pooled.shape[0])


def load_features(
    source: FeatureSource,
    split: Labelled,
    config: TrialConfig,
    channels: list[int],
    *,
    training: bool,
    deadline: float,
) -> Features:
    """The features that a configuration needs of a split; validation has the identity view only.

    Args:
        channels: of every stage of the whole backbone.
        deadline: seconds since the epoch; after it, `OutOfTime` is raised.
    """
    augmentation = config.augmentation if training else "none"
    keep = len(channels) - config.drop_stages
    taps, cut = tapped_stages(config, keep), cut_of(config, keep)
    pooled = _pooled(source, split.images, config, channels, taps, augmentation, deadline)
    if config.unfreeze == 0:
        return Features(pooled, None, None)
    under = [stage for stage in taps if stage < cut]
    width = _columns(config, channels, under).size if under else 0
    activation = torch.from_numpy(source.cut(split.images, augmentation, cut, deadline=deadline))
    return Features(pooled, pooled[:, :, :width] if under else None, activation)


def _pooled(
    source: FeatureSource,
    images: Sequence[str],
    config: TrialConfig,
    channels: list[int],
    taps: list[int],
    augmentation: str,
    deadline: float,
) -> Tensor:
    columns = _columns(config, channels, taps)
    return torch.from_numpy(source.pooled(images, augmentation, columns, deadline=deadline)).float()  # type: ignore[arg-type]


def _columns(config: TrialConfig, channels: list[int], stages: list[int]) -> np.ndarray:
    """Which columns of a pooled row the head reads from `stages`."""
    total = 3 * sum(channels)
    return select_taps(torch.arange(total)[None], config, channels, stages)[0].numpy()
