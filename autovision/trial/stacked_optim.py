"""Clipping, AdamW, SGD and moving averages for many heads at once, whose parameters are stacked: (H, *shape).

Each is the update rule of its like in `torch.optim` and `autovision.trial.optim`, with rates, decays and limits
that differ from head to head. Heads are updated a block at a time, so that a block's tensors stay in the cache
from the first operation to the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from autovision.trial.optim import averaging_decay

_BLOCK = 65_536
"""elements that are updated at once"""


def _blocks(parameter: Tensor) -> Iterator[slice]:
    heads = len(parameter)
    size = max(1, _BLOCK * heads // max(1, parameter.numel()))
    return (slice(start, start + size) for start in range(0, heads, size))


def _beside(values: Tensor, parameter: Tensor) -> Tensor:
    """A value (H,) of each head, in a shape that broadcasts with their parameter (H, *shape)."""
    return values.to(parameter.dtype).view(-1, *[1] * (parameter.dim() - 1))


def shrinkage(gradients: Sequence[Tensor], limits: Tensor) -> Tensor:
    """(H,): by what each head's gradients are multiplied, so that their norm is at most its limit; limit 0: 1."""
    norms = torch.stack([g.reshape(len(g), -1).norm(dim=1) for g in gradients]).norm(dim=0)
    return torch.where(limits > 0, (limits / (norms + 1e-6)).clamp(max=1.0), 1.0)


class StackedOptimizer(Protocol):
    """Changes stacked parameters by their gradients."""

    def step(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], shrink: Tensor, rates: Tensor
    ) -> None:
        """One step.

        Args:
            gradients: they may be changed.
            shrink: (H,) float32, what each head's gradients are multiplied by first.
            rates: (H,) float64, each head's learning rate.
        """

    def select(self, heads: Tensor) -> None:
        """Forget all heads but these."""


class StackedAdamW:
    """AdamW (Loshchilov & Hutter 2019).

    Args:
        decays: (H,) float64 for each parameter.
    """

    def __init__(self, parameters: Sequence[Tensor], decays: Sequence[Tensor]) -> None:
        self._decays = list(decays)
        self._means = [torch.zeros_like(p) for p in parameters]
        self._squares = [torch.zeros_like(p) for p in parameters]
        self._steps = 0

    @torch.no_grad()
    def step(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], shrink: Tensor, rates: Tensor
    ) -> None:
        beta, beta_of_squares, eps = 0.9, 0.999, 1e-8
        self._steps += 1
        sizes = -rates / (1 - beta**self._steps)
        correction = (1 - beta_of_squares**self._steps) ** 0.5
        for p, gradient, mean, square, decay in zip(
            parameters, gradients, self._means, self._squares, self._decays, strict=True
        ):
            shrunk, kept, size = (_beside(v, p) for v in (shrink, 1 - rates * decay, sizes))
            for at in _blocks(p):
                g, m, v = gradient[at].mul_(shrunk[at]), mean[at], square[at]
                m.lerp_(g, 1 - beta)
                v.mul_(beta_of_squares).addcmul_(g, g, value=1 - beta_of_squares)
                torch.sqrt(v, out=g)
                g.div_(correction).add_(eps)
                torch.div(m, g, out=g)
                p[at].mul_(kept[at]).addcmul_(g, size[at])

    def select(self, heads: Tensor) -> None:
        self._decays, self._means, self._squares = (
            [each[heads] for each in kept] for kept in (self._decays, self._means, self._squares)
        )


class StackedSGD:
    """Stochastic gradient descent with Nesterov's momentum, and decay as a part of the gradient.

    Args:
        decays: (H,) float64 for each parameter.
    """

    def __init__(self, parameters: Sequence[Tensor], decays: Sequence[Tensor]) -> None:
        self._decays = list(decays)
        self._momenta = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], shrink: Tensor, rates: Tensor
    ) -> None:
        momentum = 0.9
        for p, gradient, velocity, decay in zip(
            parameters, gradients, self._momenta, self._decays, strict=True
        ):
            shrunk, pull, size = (_beside(v, p) for v in (shrink, decay, -rates))
            for at in _blocks(p):
                g = gradient[at].mul_(shrunk[at]).addcmul_(p[at], pull[at])
                v = velocity[at].mul_(momentum).add_(g)
                p[at].addcmul_(g.add_(v, alpha=momentum), size[at])

    def select(self, heads: Tensor) -> None:
        self._decays, self._momenta = (
            [each[heads] for each in kept] for kept in (self._decays, self._momenta)
        )


def make_stacked(
    kind: Literal["adamw", "sgd"], parameters: Sequence[Tensor], weight_decay: Tensor
) -> StackedOptimizer:
    """An optimizer for stacked parameters. As everywhere, norms and biases are not decayed.

    Args:
        weight_decay: (H,) float64.
    """
    decays = [weight_decay if p.dim() > 2 else torch.zeros_like(weight_decay) for p in parameters]
    return StackedSGD(parameters, decays) if kind == "sgd" else StackedAdamW(parameters, decays)


class StackedEma:
    """The moving average of each head's parameters: `autovision.trial.optim.Ema`.

    Args:
        decays: (H,) float64; 0: the average is the parameter itself.
    """

    def __init__(self, parameters: Sequence[Tensor], decays: Tensor) -> None:
        self._decays, self._updates = decays, 0
        self.average = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, parameters: Sequence[Tensor]) -> None:
        self._updates += 1
        taken = 1 - self._decays.clamp(max=averaging_decay(self._updates))
        for average, p in zip(self.average, parameters, strict=True):
            weight = _beside(taken, p)
            for at in _blocks(p):
                average[at].lerp_(p[at], weight[at])

    def select(self, heads: Tensor) -> None:
        self._decays, self.average = self._decays[heads], [each[heads] for each in self.average]
