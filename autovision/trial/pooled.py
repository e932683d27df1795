"""Pooled rows that many heads read: of a split once, of a batch once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autovision.errors import InvalidInput
from autovision.features.compute import FeatureSource
from autovision.features.prefix import Prefix
from autovision.features.views import Views
from autovision.model.heads import tapped_stages
from autovision.model.noise import Noise
from autovision.space.config import TrialConfig
from autovision.trial.data import Labelled, columns_of, judged_views_of, tensors, views_of
from autovision.trial.loss import sample_weights
from autovision.trial.mixing import blend
from autovision.trial.schedule import Step, epoch_steps


@dataclass(frozen=True)
class PooledSplit:
    """A split as heads on pooled features read it.

    Attributes:
        columns: (U,) ascending, of everything that is pooled: those that some head reads.
        prefixes: the rows, of these columns, under the views that some head draws from, or is judged by.
    """

    labelled: Labelled
    columns: np.ndarray
    prefixes: Mapping[Views, Prefix]

    def __len__(self) -> int:
        return len(self.labelled)

    def places(self, columns: np.ndarray) -> np.ndarray:
        """Where these columns are among those that the prefixes give."""
        return np.searchsorted(self.columns, columns)


def load_pooled(
    source: FeatureSource,
    split: Labelled,
    configs: Sequence[TrialConfig],
    channels: Sequence[int],
    *,
    training: bool,
    deadline: float,
) -> PooledSplit:
    """What heads need of a split: to train on, or to be judged by.

    Args:
        channels: of every stage of the whole backbone.
        deadline: seconds since the epoch; after it, `OutOfTime` is raised.
    """
    columns = np.unique(np.concatenate([head_columns(config, channels) for config in configs]))
    views = {views_of(config) if training else judged_views_of(config) for config in configs}
    prefixes = {
        each: source.prefix(split.images, each, cut=None, columns=columns, deadline=deadline)
        for each in views
    }
    return PooledSplit(split, columns, prefixes)


def head_columns(config: TrialConfig, channels: Sequence[int]) -> np.ndarray:
    """Which columns of a pooled row a head reads that is trained alone."""
    if config.needs_maps:
        raise InvalidInput(
            f"heads are trained on pooled features alone, but unfreeze={config.unfreeze}, adapters={config.adapters}, "
            f"pooling={config.pooling!r} with head={config.head!r} trains on maps; train it as a trial of its own"
        )
    return columns_of(config, channels, tapped_stages(config, len(channels) - config.drop_stages))


@dataclass(frozen=True)
class Batch:
    """One step's rows, mixed in every way that some head mixes them.

    Attributes:
        features: (B, U) for each way.
        targets: (B, ways, C), not smoothed.
        weights: (B, ways, K): by each way to weigh samples.
        towards: (B, ways, C), from the targets to what the champion says; None: it was not asked.
    """

    step: Step
    features: Sequence[Tensor]
    targets: Tensor
    weights: Tensor
    towards: Tensor | None

    def noise(self) -> Noise:
        return Noise(self.step.noise_seed, len(self.step))


class Batches:
    """The batches of heads that draw the same rows under the same views, whatever else they differ in.

    Attributes:
        alphas: the ways to mix: all values of `mixup`.
        weightings: the ways to weigh samples, as `weighting_of` has them.
    """

    def __init__(
        self, split: PooledSplit, configs: Sequence[TrialConfig], seed: int, device: torch.device
    ) -> None:
        self._labelled, self._seed, self._device = split.labelled, seed, device
        self._prefix = split.prefixes[views_of(configs[0])]
        self.alphas = sorted({config.mixup for config in configs})
        self.weightings = sorted({weighting_of(config) for config in configs})
        self._mixing = [next(c for c in configs if c.mixup == alpha) for alpha in self.alphas]
        weighing = [next(c for c in configs if weighting_of(c) == kind) for kind in self.weightings]
        self._targets = split.labelled.targets.to(device)
        taught = split.labelled.taught if any(config.distill for config in configs) else None
        self._towards = None if taught is None else taught.to(device) - self._targets
        self._weights = torch.stack([sample_weights(split.labelled, c) for c in weighing], 1).to(device)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, in order."""
        # Rows, views and noise follow from seed and epoch alone: only the mixing of these steps differs.
        ways = [
            epoch_steps(config, self._labelled, self._prefix.views, maps=False, seed=self._seed, epoch=epoch)
            for config in self._mixing
        ]
        for steps in zip(*ways, strict=True):
            yield self._batch(steps)

    def _batch(self, steps: Sequence[Step]) -> Batch:
        rows, views = steps[0].rows, steps[0].views
        _, features = tensors(self._prefix, views, rows, self._device)
        assert features is not None
        targets, weights = self._targets[rows], self._weights[rows]
        towards = None if self._towards is None else self._towards[rows]
        return Batch(
            steps[0],
            [_mixed(features, step) for step in steps],
            torch.stack([_mixed(targets, step) for step in steps], 1),
            torch.stack([_mixed(weights, step) for step in steps], 1),
            None if towards is None else torch.stack([_mixed(towards, step) for step in steps], 1),
        )


def weighting_of(config: TrialConfig) -> tuple[str, bool, float]:
    """Heads of which this is equal weigh samples alike."""
    return config.class_weighting, config.confidence_weighting, config.new_weight


def _mixed(x: Tensor, step: Step) -> Tensor:
    return x if step.mix is None else blend(x, x[step.mix.partner], step.mix.share)
