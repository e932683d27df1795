"""The frozen part of a network, applied to the images of a split: stored rows, or computed anew.

Both kinds give the same numbers for the same view: what is computed is rounded to float16, as what is stored.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from autovision.dataset.loader import load_pixels
from autovision.features.gather import RowMap, runs_of
from autovision.features.shards import as_stored
from autovision.features.views import Views, apply
from autovision.image import Pixels
from autovision.model.compiled import Compiled
from autovision.model.network import Normalize
from autovision.records.models import Preprocessing
from autovision.store.protocol import Store

BATCH = 64
"""images that are sent through a network at once"""

Pair = tuple[np.ndarray | None, np.ndarray | None]


class Prefix(Protocol):
    """The frozen part of a network, applied to images of a split, row by row.

    Attributes:
        images: how many there are.
        views: of each; None: without limit. Number 0 is always the image itself.
        activation_shape: of one image; None: no activation is given.
        width: pooled columns; 0: none are given.
    """

    @property
    def images(self) -> int: ...
    @property
    def views(self) -> int | None: ...
    @property
    def activation_shape(self) -> tuple[int, ...] | None: ...
    @property
    def width(self) -> int: ...

    def take(self, views: np.ndarray, rows: np.ndarray) -> Pair:
        """Of image `rows[i]` under view `views[i]`: the activation (B, *shape) or None, pooled (B, width) or None.

        float16 (float32 for the normalized image, which is the activation at cut 0), and not to be written to.
        """


class StoredPrefix:
    """Rows of memory-mapped shards, which all processes of a node share; a batch is the only copy.

    Args:
        activation, pooled: maps (V, N) of rows; None: not wanted.
        columns: of pooled rows.
        used: called with each batch, so that what is in use is known.
    """

    def __init__(
        self,
        size: tuple[int, int],
        activation: RowMap | None,
        pooled: RowMap | None,
        columns: np.ndarray | None,
        used: Callable[[], None],
    ) -> None:
        self.views: int | None
        self.views, self.images = size
        self.activation_shape = None if activation is None else activation.shape
        self.width = 0 if columns is None else len(columns)
        self._activation, self._pooled, self._used = activation, pooled, used
        self._runs = [] if columns is None else runs_of(columns)

    def take(self, views: np.ndarray, rows: np.ndarray) -> Pair:
        self._used()
        at = (views, rows)
        return (
            None if self._activation is None else self._activation.take(at),
            None if self._pooled is None else self._pooled.take_columns(at, self._runs),
        )


@dataclass
class HeldPrefix:
    """Pooled rows that are computed once and kept in this process's memory: some kilobytes for each image.

    Attributes:
        pooled: (V, N, width) float16.
    """

    pooled: np.ndarray
    activation_shape: tuple[int, ...] | None = None

    @classmethod
    def of(cls, prefix: Prefix, check: Callable[[], None]) -> HeldPrefix:
        """All rows of a prefix that pools only; `check` is called between batches, and may raise."""
        assert prefix.views is not None
        held = np.empty((prefix.views, prefix.images, prefix.width), np.float16)
        for view, start in itertools.product(range(prefix.views), range(0, prefix.images, BATCH)):
            check()
            rows = np.arange(start, min(start + BATCH, prefix.images))
            held[view, rows] = prefix.take(np.full_like(rows, view), rows)[1]
        return cls(held)

    @property
    def views(self) -> int | None:
        return int(self.pooled.shape[0])

    @property
    def images(self) -> int:
        return int(self.pooled.shape[1])

    @property
    def width(self) -> int:
        return int(self.pooled.shape[2])

    def take(self, views: np.ndarray, rows: np.ndarray) -> Pair:
        return None, self.pooled[views, rows]


@dataclass
class ComputedPrefix:
    """Computes each batch anew.

    Attributes:
        names: digests of the images.
        pixels: gives the pixels of rows.
        network: a compiled `FrozenPrefix`.
        columns: of what the network pools, those that are wanted, in order.
        spent: told the seconds of each batch, and how many images were computed.
    """

    names: Sequence[str]
    draw: Views
    pixels: Callable[[np.ndarray], Pixels]
    network: Compiled
    activation_shape: tuple[int, ...] | None
    columns: np.ndarray | None
    spent: Callable[[float, int], None]
    rounded: bool = True
    """to float16, as stored rows are"""

    @property
    def images(self) -> int:
        return len(self.names)

    @property
    def views(self) -> int | None:
        return self.draw.number

    @property
    def width(self) -> int:
        return 0 if self.columns is None else len(self.columns)

    def take(self, views: np.ndarray, rows: np.ndarray) -> Pair:
        began = time.monotonic()
        parts = [
            self._compute(views[start : start + BATCH], rows[start : start + BATCH])
            for start in range(0, len(rows), BATCH)
        ]
        self.spent(time.monotonic() - began, len(rows))
        activation, pooled = zip(*parts, strict=True)
        return (
            None if self.activation_shape is None else _joined(activation),
            None if self.columns is None else _joined(pooled),
        )

    def _compute(self, views: np.ndarray, rows: np.ndarray) -> Pair:
        outputs = self.network(self._seen(views, rows))
        if self.rounded:
            outputs = [as_stored(output) for output in outputs]
        activation = None if self.activation_shape is None else outputs[0]
        return activation, None if self.columns is None else outputs[-1][:, self.columns]

    def _seen(self, views: np.ndarray, rows: np.ndarray) -> Pixels:
        """What the views show: uint8 (B, H, W, 3)."""
        pixels = self.pixels(rows)
        distinct = np.unique(views)
        if len(distinct) == 1:
            return apply(pixels, [self.names[row] for row in rows], self.draw.name(int(distinct[0])))
        seen = np.empty_like(pixels)
        for view in distinct:
            at = np.flatnonzero(views == view)
            images = [self.names[row] for row in rows[at]]
            seen[at] = apply(pixels[at], images, self.draw.name(int(view)))
        return seen


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class NormalizedPixels:
    """The activation at cut 0, where there is no network to compile: what `Normalize` gives, in half of its time."""

    runtime = "eager"

    def __init__(self, preprocessing: Preprocessing) -> None:
        normalize = Normalize(preprocessing)
        # Of one row of pixels, whose three channels lie next to each other.
        self._scale, self._shift = (
            part.view(3).repeat(preprocessing.width) for part in (normalize.scale, normalize.shift)
        )

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        """float32 (B, 3, H, W), its channels last in memory."""
        images, height, width, _ = pixels.shape
        values = torch.from_numpy(pixels).view(images * height, 3 * width).float()
        torch.addcmul(self._shift, values, self._scale, out=values)
        return [values.view(images, height, width, 3).permute(0, 3, 1, 2).numpy()]


@dataclass(frozen=True)
class StoredPixels:
    """Pixels of rows, from memory-mapped shards."""

    pixels: RowMap
    used: Callable[[], None]

    def __call__(self, rows: np.ndarray) -> Pixels:
        self.used()
        return self.pixels.take((np.zeros_like(rows), rows))


@dataclass(frozen=True)
class DecodedPixels:
    """Pixels of rows, decoded each time."""

    store: Store
    images: Sequence[str]
    preprocessing: Preprocessing
    threads: int

    def __call__(self, rows: np.ndarray) -> Pixels:
        names = [self.images[row] for row in rows]
        return load_pixels(self.store, names, self.preprocessing, threads=self.threads)
