"""Heads of the same shape, trained as one: every parameter is a stack (H, *shape), every computation is of all heads.

Nothing is shared between the heads but the work: each has its own input, dropout, loss, rate, decay and limit.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autovision.features.gather import runs_of
from autovision.features.prefix import Prefix
from autovision.model.heads import Head
from autovision.model.noise import Noise
from autovision.space.config import TrialConfig
from autovision.trial.data import Labelled, averaged, identity_chunks, judged_views_of, tensors
from autovision.trial.loss import focal_losses, gamma_of, log_prior
from autovision.trial.pooled import Batch, Batches, weighting_of
from autovision.trial.stacked_optim import StackedEma, make_stacked, shrinkage
from autovision.trial.sweep import Levels, Sweep, apply, readers_of

_ROWS = 256
"""images that are predicted at once"""


@dataclass(frozen=True, eq=False)
class Member:
    """One head of a stack.

    Attributes:
        number: among all heads that are trained together.
        places: (D,) the columns that it reads, among those that a batch has.
        head: before training, standardizing its features.
    """

    number: int
    config: TrialConfig
    places: np.ndarray
    head: Head


def shape_of(member: Member) -> tuple[Hashable, ...]:
    """Members of one stack have the same."""
    width = member.config.head_width if member.config.head == "mlp" else 0
    config = member.config
    return config.head, width, len(member.places), config.optimizer, config.test_time_augmentation


@dataclass(frozen=True)
class _Input:
    """What some heads read: one way to mix a batch, and columns of it."""

    way: int
    runs: Sequence[tuple[int, int]]
    mean: Tensor
    std: Tensor

    def of(self, features: Tensor) -> Tensor:
        # Columns of a stage lie side by side: whole stretches are copied faster than one column after the other.
        columns = torch.cat([features[:, start:end] for start, end in self.runs], 1)
        return columns.sub_(self.mean).div_(self.std)


class Stack:
    """Members of one shape in training.

    Attributes:
        members: in the order of their stacked tensors.
        judged: the views over which they average.
        device: where they are.
    """

    def __init__(
        self, members: Sequence[Member], split: Labelled, batches: Batches, device: torch.device
    ) -> None:
        # Heads that can share a matrix product are neighbours; among these, the least dropout comes first.
        self.members = sorted(
            members, key=lambda m: (m.places.tobytes(), m.config.mixup, m.config.dropout, m.number)
        )
        self._kind = self.members[0].config.head
        self.judged = judged_views_of(self.members[0].config)
        self.device = device
        self._split, self._batches = split, batches
        named = [dict(member.head.named_parameters()) for member in self.members]
        self._parameters = {
            name: torch.stack([each[name].detach() for each in named]).to(device).requires_grad_()
            for name in named[0]
        }
        stacked = list(self._parameters.values())
        decay = self._vector((m.config.weight_decay for m in self.members), torch.float64)
        self._optimizer = make_stacked(self.members[0].config.optimizer, stacked, decay)
        decay = self._vector((m.config.ema for m in self.members), torch.float64)
        self._ema = StackedEma(stacked, decay) if decay.any() else None
        self._arrange()

    def _vector(self, values: Iterable[float], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(list(values), dtype=dtype, device=self.device)

    def _arrange(self) -> None:
        """Everything that follows from who the members are."""
        configs = [member.config for member in self.members]
        self._levels = Levels(np.array([c.dropout for c in configs], np.float32))
        self._inputs, read = self._distinct([self._batches.alphas.index(c.mixup) for c in configs])
        self._readers = readers_of(read, self._levels.of.tolist())
        self._plain_inputs, read = self._distinct([0] * len(configs))
        self._plain_readers = readers_of(read, [0] * len(configs))
        self._share = self._vector(c.dropout for c in configs)
        self._scale = self._vector(1 / (1 - c.dropout) for c in configs)
        self._smoothing = self._vector(c.label_smoothing for c in configs)
        self._distill = self._vector(c.distill for c in configs)
        self._even = 0.5 if self._split.multi_label else 1 / self._split.classes
        gammas = [gamma_of(c) for c in configs]
        self._gamma = self._vector(gammas)[:, None] if any(gammas) else 0.0
        self._prior = torch.stack([log_prior(self._split, c) for c in configs]).to(self.device)
        self._limit = self._vector(c.clip_norm for c in configs)
        self._way = torch.tensor([self._batches.alphas.index(c.mixup) for c in configs], device=self.device)
        self._weighting = torch.tensor(
            [self._batches.weightings.index(weighting_of(c)) for c in configs], device=self.device
        )

    def _distinct(self, ways: Sequence[int]) -> tuple[list[_Input], list[int]]:
        """The different inputs, and which of them each member reads."""
        inputs: dict[tuple[bytes, int], _Input] = {}
        read = []
        for member, way in zip(self.members, ways, strict=True):
            key = member.places.tobytes(), way
            if key not in inputs:
                mean, std = member.head.mean.to(self.device), member.head.std.to(self.device)
                inputs[key] = _Input(way, runs_of(member.places), mean, std)
            read.append(list(inputs).index(key))
        return list(inputs.values()), read

    def update(self, batch: Batch, rates: Tensor) -> Tensor:
        """One step of every member's optimizer, at these rates (H,) float64; their losses (H,) before it."""
        losses = self._losses(batch)
        parameters = list(self._parameters.values())
        # A head's loss depends on its own parameters alone, and so does its part of the gradient of the sum.
        gradients = torch.autograd.grad(losses.sum(), parameters)
        shrink = shrinkage(gradients, self._limit)
        with torch.no_grad():
            self._optimizer.step(parameters, gradients, shrink, rates)
            if self._ema is not None:
                self._ema.update(parameters)
        return losses.detach()

    def _losses(self, batch: Batch) -> Tensor:
        """(H,): each head's weighted mean over the batch."""
        noise = batch.noise()
        inputs = [each.of(batch.features[each.way]) for each in self._inputs]
        dropped = self._levels.draw(noise, inputs[0].shape[1], self.device)
        logits = self._logits(self._parameters, Sweep(inputs, self._readers, dropped), noise)
        targets = batch.targets[:, self._way]
        if batch.towards is not None:
            targets = targets + self._distill[:, None] * batch.towards[:, self._way]
        smoothing = self._smoothing[:, None]
        targets = targets * (1 - smoothing) + smoothing * self._even
        weights = batch.weights[:, self._way, self._weighting]
        each = focal_losses(logits + self._prior, targets, self._gamma, multi_label=self._split.multi_label)
        return (each * weights).sum(0) / weights.sum(0)

    def _logits(self, of: Mapping[str, Tensor], sweep: Sweep, noise: Noise | None) -> Tensor:
        """(B, H, C): what `Head.forward` computes, for all heads; without noise for inference."""
        scale = torch.ones_like(self._scale) if noise is None else self._scale
        if self._kind == "cosine":
            products = apply(F.normalize(of["out.weight"], dim=2), sweep)
            norms = (sweep.norms() * scale[:, None]).clamp(min=1e-12)
            return (products * ((of["scale"] * scale)[:, None] / norms)[:, None]).permute(2, 0, 1)
        first = "hidden" if self._kind == "mlp" else "out"
        x = apply(of[f"{first}.weight"], sweep) * scale[:, None, None] + of[f"{first}.bias"][..., None]
        if self._kind == "mlp":
            x = F.gelu(x)
            if noise is not None and self._levels.any:
                kept = noise.numbers(x.shape[1]).to(self.device).t() >= self._share[:, None, None]
                x = x * kept * scale[:, None, None]
            x = torch.baddbmm(of["out.bias"][..., None], of["out.weight"], x)
        return x.permute(2, 0, 1)

    @property
    def _judged(self) -> dict[str, Tensor]:
        if self._ema is None:
            return self._parameters
        return dict(zip(self._parameters, self._ema.average, strict=True))

    @torch.no_grad()
    def predict(self, prefix: Prefix) -> np.ndarray:
        """Logits (M, H, C) float32, by what is judged: averages of parameters, where there are any.

        The logits are the mean over the views of `prefix`.
        """

        def logits(views: np.ndarray, rows: np.ndarray) -> Tensor:
            _, features = tensors(prefix, views, rows, self.device)
            assert features is not None
            inputs = [each.of(features) for each in self._plain_inputs]
            return self._logits(self._judged, Sweep(inputs, self._plain_readers), None)

        chunks = identity_chunks(prefix, _ROWS)
        return np.concatenate([averaged(prefix, rows, logits).cpu().numpy() for _, rows in chunks])

    def tensors(self, index: int) -> dict[str, Tensor]:
        """A copy of what is judged of one member, under the names of `Suffix.trained_state`."""
        judged = {name: stacked[index] for name, stacked in self._judged.items()}
        fixed = dict(self.members[index].head.named_buffers())
        return {f"head.{name}": tensor.detach().clone() for name, tensor in (judged | fixed).items()}

    def select(self, indices: Sequence[int]) -> None:
        """Go on with these members only."""
        self.members = [self.members[index] for index in indices]
        if not self.members:
            return
        at = torch.tensor(indices, device=self.device)
        self._parameters = {
            name: stacked.detach()[at].requires_grad_() for name, stacked in self._parameters.items()
        }
        self._optimizer.select(at)
        if self._ema is not None:
            self._ema.select(at)
        self._arrange()
