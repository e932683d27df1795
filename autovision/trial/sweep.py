"""Many heads' weights times inputs of which each head drops out another share.

All heads of a step draw the same uniform numbers, and each drops the entries whose number is below its share
(`autovision.model.noise`). In the order of their shares, heads therefore drop what the one before them dropped,
and some more. So a sweep goes over the heads in that order, with one copy of the input from which entries
disappear: each entry is written once for all heads, where a mask for each of them would cost more than what it
is multiplied with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from autovision.model.noise import Noise

_BINS = 65_536
"""of the numbers in [0, 1), each of which has 24 bits"""
_FEW = 8
"""rows of a matrix"""


@dataclass(frozen=True)
class Reader:
    """Neighbouring heads that drop the same share of the same input.

    Attributes:
        heads: which.
        level: how many smaller shares there are.
    """

    heads: slice
    level: int


def readers_of(inputs: Sequence[int], levels: Sequence[int]) -> list[list[Reader]]:
    """The readers of every input, in order, given each head's input and level; heads are sorted by both."""
    found: list[list[Reader]] = []
    start = 0
    for (number, level), group in groupby(zip(inputs, levels, strict=True)):
        stop = start + len(list(group))
        if number == len(found):
            found.append([])
        found[-1].append(Reader(slice(start, stop), level))
        start = stop
    return found


@dataclass(frozen=True)
class Dropped:
    """Which entries of an input are dropped out.

    Attributes:
        entries: (n,) their places in the flat input, the ones that the smallest share drops first.
        counts: how many of them each level drops.
    """

    entries: Tensor
    counts: Sequence[int]


class Levels:
    """The different shares that some heads drop, ascending.

    Args:
        shares: float32, of every head.

    Attributes:
        of: (H,) the level of each head's share.
    """

    def __init__(self, shares: np.ndarray) -> None:
        self._shares, self.of = np.unique(shares, return_inverse=True)
        # Numbers are looked up by their first bits; only next to a share that does not tell their level.
        edges = np.searchsorted(self._shares, np.arange(_BINS + 1, dtype=np.float32) / _BINS, side="right")
        self._level, self._unsure = edges[:-1].astype(np.uint16), edges[:-1] != edges[1:]

    @property
    def any(self) -> bool:
        """Whether any head drops anything."""
        return bool(self._shares[-1] > 0)

    def draw(self, noise: Noise, width: int, device: torch.device) -> Dropped | None:
        """What they drop of inputs of this width; None where they drop nothing, and draw nothing."""
        if not self.any:
            return None
        numbers = noise.numbers(width).numpy().ravel()
        below = np.flatnonzero(numbers < self._shares[-1])
        numbers = numbers[below]
        bins = (numbers * _BINS).astype(np.uint16)
        level = self._level[bins]
        unsure = np.flatnonzero(self._unsure[bins])
        level[unsure] = np.searchsorted(self._shares, numbers[unsure], side="right")
        entries = torch.from_numpy(below[np.argsort(level, kind="stable")])
        counts = np.bincount(level, minlength=len(self._shares)).cumsum()
        return Dropped(entries.to(device, non_blocking=True), counts.tolist())


@dataclass(frozen=True)
class Sweep:
    """Iterates over all heads, in order: neighbouring ones, and the input (B, D) as they see it.

    That input changes with the next step of the iteration. What is kept is not scaled by what is dropped.

    Attributes:
        dropped: None: nothing.
    """

    inputs: Sequence[Tensor]
    readers: Sequence[Sequence[Reader]]
    dropped: Dropped | None = None

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for x, readers in zip(self.inputs, self.readers, strict=True):
            if self.dropped is None:
                yield from ((reader.heads, x) for reader in readers)
                continue
            x, done, counts = x.clone(), 0, self.dropped.counts
            flat: Any = x.view(-1)
            entries: Any = self.dropped.entries
            if x.device.type == "cpu":  # the same statement takes numpy a third of the time
                flat, entries = flat.numpy(), entries.numpy()
            for reader in readers:
                until = counts[reader.level]
                if until > done:
                    flat[entries[done:until]] = 0.0
                    done = until
                yield reader.heads, x

    @property
    def heads(self) -> int:
        """H: how many heads there are."""
        return int(self.readers[-1][-1].heads.stop)

    def norms(self) -> Tensor:
        """(H, B): of each row as each head sees it."""
        return torch.cat([x.norm(dim=1).expand(heads.stop - heads.start, -1) for heads, x in self])


def apply(weight: Tensor, sweep: Sweep) -> Tensor:
    """(H, R, D) weights times what each head sees of its input: (H, R, B)."""
    product: Tensor = _Apply.apply(weight, sweep)
    return product


class _Context(FunctionCtx):
    sweep: Sweep
    shape: torch.Size
    """of the weight"""


class _Apply(torch.autograd.Function):
    """Goes over the inputs once more for the gradient: to keep what every head saw would fill the memory."""

    @staticmethod
    def forward(ctx: _Context, weight: Tensor, sweep: Sweep) -> Tensor:
        heads, width, features = weight.shape
        ctx.sweep, ctx.shape = sweep, weight.shape
        product = weight.new_empty(heads * width, len(sweep.inputs[0]))
        _multiply(weight.reshape(heads * width, features), sweep, product, transposed=True)
        return product.view(heads, width, -1)

    @staticmethod
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor, None]:
        heads, width, features = ctx.shape
        gradient = grads[0].new_empty(heads * width, features)
        _multiply(grads[0].reshape(heads * width, -1), ctx.sweep, gradient, transposed=False)
        return gradient.view(heads, width, features), None


def _multiply(rows: Tensor, sweep: Sweep, out: Tensor, *, transposed: bool) -> None:
    """Every head's rows times the input that it sees, or the transpose of that; `rows` and `out` are (H·R, …)."""
    width = len(rows) // sweep.heads
    arrays = (rows.numpy(), out.numpy()) if rows.device.type == "cpu" else None
    seen: Tensor | None = None
    with np.errstate(over="ignore", invalid="ignore"):  # a head that diverges is found by its loss
        for heads, x in sweep:
            at = slice(heads.start * width, heads.stop * width)
            if x is not seen:
                seen, right = x, x.t() if transposed else x
                right_array = right.numpy() if arrays else None
            if arrays and right_array is not None and at.stop - at.start <= _FEW:
                # For a few rows numpy's BLAS takes about half the time of PyTorch's.
                np.matmul(arrays[0][at], right_array, out=arrays[1][at])
            else:
                torch.mm(rows[at], right, out=out[at])
