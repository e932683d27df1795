"""What a trial trains on: the rows of a split, what the frozen part of the network makes of them, and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from autovision.features.prefix import Prefix
from autovision.features.views import Views
from autovision.model.heads import tapped_stages
from autovision.model.network import cut_of, select_taps, taps_below
from autovision.space.config import TrialConfig

_CHUNK = 512


@dataclass(frozen=True)
class Labelled:
    """The images of one split, with what the loss needs of them.

    Attributes:
        images: N digests.
        targets: (N, C) float32: one-hot for one label an image, multi-hot for several.
        confidence: (N,) float32, 0 to 1: of the labels.
        multi_label: whether an image may have any number of labels.
        groups: (N,) of each image, those that are kept together; none: each is by itself.
        new: (N,) bool: which images the champion did not know, or knew by another label; None: nothing is new.
        times: how many images each new one counts as wherever the split judges.
        taught: (N, C) float32: what the champion says of each image that it knew, and the target of every other one;
            None: it was not asked.
    """

    images: tuple[str, ...]
    targets: Tensor
    confidence: Tensor
    multi_label: bool = False
    groups: tuple[str, ...] = ()
    new: Tensor | None = None
    times: int = 1
    taught: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> int:
        return int(self.targets.shape[1])

    @property
    def truth(self) -> np.ndarray:
        """As the metrics want it: (N,) indices of classes, or (N, C) zeros and ones for several labels."""
        return self.targets.long().numpy() if self.multi_label else self.targets.argmax(1).numpy()

    @property
    def repeats(self) -> np.ndarray:
        """(N,) how many images each counts as where the split judges."""
        if self.new is None:
            return np.ones(len(self), np.intp)
        return np.where(self.new.numpy(), self.times, 1)

    @property
    def counted(self) -> np.ndarray:
        """(M,) rows, each as often as it counts where the split judges."""
        return np.repeat(np.arange(len(self)), self.repeats)

    @property
    def counted_groups(self) -> tuple[str, ...]:
        """(M,) groups of the rows of `counted`, so that no image is kept apart from itself; none: each is by itself."""
        if self.times == 1 or self.new is None:
            return self.groups
        names = self.groups or self.images
        return tuple(names[row] for row in self.counted)


def joined(first: Labelled, second: Labelled) -> Labelled:
    """The images of both, in the order of their digests."""
    images = first.images + second.images
    order = sorted(range(len(images)), key=images.__getitem__)

    def both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
        return None if one is None or other is None else torch.cat([one, other])[order]

    return Labelled(
        tuple(images[i] for i in order),
        torch.cat([first.targets, second.targets])[order],
        torch.cat([first.confidence, second.confidence])[order],
        first.multi_label,
        new=both(first.new, second.new),
        times=first.times,
        taught=both(first.taught, second.taught),
    )


@dataclass(frozen=True)
class Inputs:
    """A split as a suffix takes it.

    Attributes:
        prefix: activations at the cut and the pooled taps below it; with no map to train on, all pooled taps.
        pooled: all pooled taps, for the head that training begins with; None where no head can be probed first.
    """

    labelled: Labelled
    prefix: Prefix
    pooled: Prefix | None

    def __len__(self) -> int:
        return len(self.labelled)


def views_of(config: TrialConfig) -> Views:
    """The views that a configuration's augmentation draws from in training."""
    return Views(config.augmentation, config.magnitude, config.views)


def judged_views_of(config: TrialConfig) -> Views:
    """The views over which a configuration averages its logits wherever it does not train."""
    return Views(config.test_time_augmentation)


class Source(Protocol):
    """What gives the frozen part of a network for images: see `FeatureSource.prefix`."""

    def prefix(
        self,
        images: Sequence[str],
        views: Views,
        *,
        cut: int | None,
        columns: np.ndarray | None,
        deadline: float,
    ) -> Prefix: ...


def load_inputs(
    source: Source,
    split: Labelled,
    config: TrialConfig,
    channels: Sequence[int],
    *,
    training: bool,
    deadline: float,
    probe: bool = True,
) -> Inputs:
    """What a configuration needs of a split: to train on, or to be judged by.

    Args:
        channels: of every stage of the whole backbone.
        deadline: seconds since the epoch; after it, `OutOfTime` is raised.
        probe: with what the head that training begins with needs.
    """
    views = views_of(config) if training else judged_views_of(config)
    keep = len(channels) - config.drop_stages
    if not config.needs_maps:
        columns = columns_of(config, channels, tapped_stages(config, keep))
        pooled = source.prefix(split.images, views, cut=None, columns=columns, deadline=deadline)
        return Inputs(split, pooled, pooled)
    under = taps_below(config, keep)
    prefix = source.prefix(
        split.images,
        views,
        cut=cut_of(config, keep),
        columns=columns_of(config, channels, under) if under else None,
        deadline=deadline,
    )
    probed = None
    if probe and config.head != "attention":
        # Views that are drawn afresh would cost a whole forward pass each: the probe sees the images themselves.
        known = views if views.number is not None else Views()
        columns = columns_of(config, channels, tapped_stages(config, keep))
        probed = source.prefix(split.images, known, cut=None, columns=columns, deadline=deadline)
    return Inputs(split, prefix, probed)


def columns_of(config: TrialConfig, channels: Sequence[int], stages: Sequence[int]) -> np.ndarray:
    """Which columns of a pooled row the head reads from `stages`."""
    total = 3 * sum(channels)
    return select_taps(torch.arange(total)[None], config, channels, stages)[0].numpy()


def tensors(
    prefix: Prefix, views: np.ndarray, rows: np.ndarray, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """The activation and the pooled columns of some rows, on a device: what `Suffix.forward` begins with."""
    activation, below = (
        None if array is None else _tensor(array).to(device, non_blocking=True).float()
        for array in prefix.take(views, rows)
    )
    if activation is not None and activation.dim() == 4:
        activation = activation.contiguous(memory_format=torch.channels_last)
    return activation, below


def _tensor(array: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if torch.cuda.is_available() else tensor


def averaged(prefix: Prefix, rows: np.ndarray, logits: Callable[[np.ndarray, np.ndarray], Tensor]) -> Tensor:
    """The mean over all views of what `logits(views, rows)` gives of these rows."""
    number = prefix.views or 1
    total = logits(np.zeros_like(rows), rows)
    for view in range(1, number):
        total = total + logits(np.full_like(rows, view), rows)
    return total / number


def identity_chunks(prefix: Prefix, size: int = _CHUNK) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(views, rows) of all images as they are, some at a time."""
    for start in range(0, prefix.images, size):
        rows = np.arange(start, min(start + size, prefix.images))
        yield np.zeros_like(rows), rows


def pooled_statistics(prefix: Prefix) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each (D,), of the pooled columns over all images as they are."""
    total, squares = (
        torch.zeros(prefix.width, dtype=torch.float64),
        torch.zeros(prefix.width, dtype=torch.float64),
    )
    for views, rows in identity_chunks(prefix):
        below = prefix.take(views, rows)[1]
        assert below is not None
        x = torch.from_numpy(below).double()
        total += x.sum(0)
        squares += x.square().sum(0)
    mean = total / prefix.images
    variance = (squares - prefix.images * mean.square()) / max(1, prefix.images - 1)
    return mean.float(), variance.clamp(min=0).sqrt().float()
