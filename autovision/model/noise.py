"""The noise of training: dropout and stochastic depth whose random numbers do not depend on who draws them.

Every step of the optimizer has a seed of its own. A worker that holds a part of the batch, a step whose gradients
are accumulated over parts, and many heads that are trained as one all draw the numbers of the whole batch and
use their own rows of them, so that each gives what one worker, one part or one head alone would have given.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from timm.layers import DropPath
from torch import Tensor, nn

_PATHS = ("drop_path", "drop_path1", "drop_path2")
"""what timm calls the place behind a residual branch where stochastic depth belongs"""


class Noise:
    """Uniform numbers for one step of training.

    Args:
        seed: of the step.
        batch: B, the rows of the whole batch.
        rows: which of them are here.
    """

    def __init__(self, seed: int, batch: int, rows: slice = slice(None)) -> None:
        # On the CPU, whatever the device: a GPU's generator gives other numbers.
        self._generator = torch.Generator().manual_seed(seed)
        self._batch, self._rows = batch, rows

    def uniform(self, x: Tensor) -> Tensor:
        """As many numbers in [0, 1) as x has elements, for the rows that are here: x's shape, on its device."""
        return self.numbers(*x.shape[1:]).to(x.device, non_blocking=True)

    def numbers(self, *shape: int) -> Tensor:
        """(B, *shape) numbers in [0, 1), for the rows that are here, on the CPU."""
        return torch.rand((self._batch, *shape), generator=self._generator)[self._rows]


def drop(x: Tensor, share: float, noise: Noise | None) -> Tensor:
    """Dropout (Srivastava et al. 2014); without noise, which is inference, x itself."""
    if noise is None or share == 0:
        return x
    keep = noise.uniform(x) >= share
    return x * keep / (1 - share)


class StochasticDepth(nn.Module):
    """Leaves out a residual branch for a random share of the rows (Huang et al. 2016); set `noise` to train."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.noise: Noise | None = None

    def extra_repr(self) -> str:
        return f"{self.share:g}"

    def forward(self, x: Tensor) -> Tensor:
        if self.noise is None:
            return x
        keep = self.noise.uniform(x[:, :1].flatten(1)[:, :1]) >= self.share
        return x * keep.view(-1, *[1] * (x.dim() - 1)) / (1 - self.share)


def install_stochastic_depth(stages: Iterable[nn.Module], most: float) -> list[StochasticDepth]:
    """Put stochastic depth behind every residual branch; its share rises linearly to `most` at the last one."""
    places = [
        (module, name)
        for stage in stages
        for module in stage.modules()
        for name in _PATHS
        # timm puts an identity, or None, where a network was built without it.
        if isinstance(getattr(module, name, ""), (nn.Identity, DropPath, StochasticDepth, type(None)))
    ]
    depths = []
    for index, (module, name) in enumerate(places):
        depth = StochasticDepth(most * (index + 1) / len(places))
        setattr(module, name, depth)
        depths.append(depth)
    return depths
