"""The workers that train one trial together: each computes its part of every batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from torch import nn

T = TypeVar("T")


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
        """Forward and backward passes of a wrapped module add to this worker's gradients only."""
        yield

    def align(self, module: nn.Module) -> None:
        """Make every worker's parameters and buffers those of the first."""

    def jointly(self, work: Callable[[], T]) -> T:
        """What a worker's own work gives; if any worker's fails, all of them raise what it failed with."""
        return work()

    def is_joint(self, error: BaseException) -> bool:
        """Whether all workers raise this error at the same point, so that none of them waits for the others."""
        return True

    def late(self, deadline: float) -> bool:
        """Whether the deadline, in seconds since the epoch, has come for any worker; asked like `any`."""
        return time.time() >= deadline

    def any(self, flag: bool) -> bool:
        """Whether any worker says so; asked by all at the same point."""
        return flag

    def total(self, value: float) -> float:
        """The sum of all workers' values."""
        return value

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """All workers' rows, in the order of their ranks."""
        return rows
