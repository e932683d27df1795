"""The workers that train one trial together: each computes its part of every batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from torch import nn


class World:
    """One worker alone; `autovision.trial.distributed` has the one of several.

    Attributes:
        rank: of this worker, from 0.
        size: how many workers there are.
    """

    rank = 0
    size = 1

    def part(self, batch: int) -> slice:
        """The rows of a batch that are this worker's."""
        return slice(batch * self.rank // self.size, batch * (self.rank + 1) // self.size)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, its gradients averaged over all workers by every backward pass."""
        return module

    @contextmanager
    def unsynchronized(self, module: nn.Module) -> Iterator[None]:
        """Backward passes of a wrapped module add to this worker's gradients only."""
        yield

    def any(self, flag: bool) -> bool:
        """Whether any worker says so; asked by all at the same point."""
        return flag

    def total(self, value: float) -> float:
        """The sum of all workers' values."""
        return value

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """All workers' rows, in the order of their ranks."""
        return rows
