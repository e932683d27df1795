"""From the tapped stages' outputs to logits: pooling, then a head.

maps (B, C, L) of each tap -> pooler -> features (B, D) -> head -> logits (B, classes)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autovision.model.noise import Noise, drop
from autovision.space.config import TrialConfig

POOLS = ("avg", "max", "gem")
"""every statistic that a feature row holds, in this order, for each stage"""

_GEM_P = 3.0
_HEAD_CHANNELS = 64
"""channels of each of the attention head's heads"""


def pool(x: Tensor, how: str) -> Tensor:
    """(B, C, L) -> (B, C), or (B, 2C) for `avgmax`; by a fixed statistic."""
    match how:
        case "avg":
            return x.mean(2)
        case "max":
            return x.amax(2)
        case "avgmax":
            return torch.cat([x.mean(2), x.amax(2)], 1)
        case "gem":
            # Generalized mean (Radenović et al. 2018) with p = 3, of the non-negative part.
            return x.clamp(min=1e-6).pow(_GEM_P).mean(2).pow(1.0 / _GEM_P)
    raise AssertionError(f"pooling {how!r} is learned")


def statistics(config: TrialConfig) -> tuple[str, ...]:
    """The fixed statistics that a configuration's pooling is made of, or begins as."""
    match config.pooling:
        case "avgmax":
            return ("avg", "max")
        case "attention":
            return ("avg",)  # what attention with a query of zeros gives
        case how:
            return (how,)


def attends(config: TrialConfig) -> bool:
    """Whether pooling is learned, and needs the positions of every tap."""
    return config.head == "attention" or config.pooling == "attention"


def tapped_stages(config: TrialConfig, stages: int) -> list[int]:
    """Indices of the stages that feed the head, in ascending order."""
    return list(range(max(0, stages - config.taps), stages))


def tap_width(config: TrialConfig, channels: Sequence[int]) -> int:
    """D: the width of the head's input, for the channels of each kept stage."""
    if config.head == "attention":
        return config.head_width
    return len(statistics(config)) * sum(channels[i] for i in tapped_stages(config, len(channels)))


class Pooler(nn.Module):
    """The taps' outputs, a (B, C, L) each, as one (B, D) in float32."""

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        raise NotImplementedError  # abstract


class FixedPooler(Pooler):
    """The same statistic of every tap, side by side."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def extra_repr(self) -> str:
        return self.how

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        return torch.cat([pool(tap.float(), self.how) for tap in taps], 1)


class AttentionPooler(Pooler):
    """A mean over the positions of each tap, weighted by their likeness to a learned query."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        # Zero: every position weighs alike at first, which is average pooling.
        self.queries = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in channels)

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        parts = []
        for tap, query in zip(taps, self.queries, strict=True):
            tap = tap.float()
            weights = (torch.einsum("bcl,c->bl", tap, query) / query.shape[0] ** 0.5).softmax(1)
            parts.append(torch.einsum("bcl,bl->bc", tap, weights))
        return torch.cat(parts, 1)


class AttentionHeadPooler(Pooler):
    """Multi-head attention pooling (Zhai et al. 2022): one learned query over all positions of all taps."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        heads = max(1, width // _HEAD_CHANNELS)
        width_each = width - width % heads
        self.projections = nn.ModuleList(nn.Linear(each, width_each) for each in channels)
        self.norm = nn.LayerNorm(width_each)
        self.query = nn.Parameter(torch.randn(width_each) * width_each**-0.5)
        self.keys_values = nn.Linear(width_each, 2 * width_each)
        self.out = nn.Linear(width_each, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.heads = heads

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        projected = [
            project(tap.float().transpose(1, 2)) for project, tap in zip(self.projections, taps, strict=True)
        ]
        tokens = self.norm(torch.cat(projected, 1))
        keys, values = self.keys_values(tokens).chunk(2, 2)
        batch, length, width = keys.shape
        query = self.query.view(1, self.heads, 1, -1)
        keys = keys.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
        values = values.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
        weights = ((query * keys).sum(3) / (width // self.heads) ** 0.5).softmax(2)
        x = self.out((weights[..., None] * values).sum(2).reshape(batch, width))
        return x + self.mlp(x)  # type: ignore[no-any-return]


def pooler_of(config: TrialConfig, channels: Sequence[int]) -> Pooler:
    """The pooler of a configuration, for the channels of each kept stage."""
    tapped = [channels[i] for i in tapped_stages(config, len(channels))]
    if config.head == "attention":
        return AttentionHeadPooler(tapped, config.head_width)
    if config.pooling == "attention":
        return AttentionPooler(tapped)
    return FixedPooler(config.pooling)


class Head(nn.Module):
    """Standardization by training statistics, dropout, then a linear, MLP or cosine classifier.

    Args:
        features: D, the width of its input.
        classes: C.
    """

    def __init__(self, config: TrialConfig, features: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.mean: Tensor
        self.std: Tensor
        self.kind = config.head
        self.dropout = config.dropout
        self.hidden = nn.Linear(features, config.head_width) if config.head == "mlp" else None
        self.out = nn.Linear(
            config.head_width if config.head == "mlp" else features, classes, bias=config.head != "cosine"
        )
        self.scale = nn.Parameter(torch.tensor(10.0)) if config.head == "cosine" else None
        if config.head != "cosine":
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def standardize(self, mean: Tensor, std: Tensor) -> None:
        """Take mean and deviation (D,) of the training features, so that every tap weighs alike."""
        self.mean.copy_(mean)
        self.std.copy_(std.clamp(min=1e-4))

    def forward(self, features: Tensor, noise: Noise | None = None) -> Tensor:
        """(B, D) to logits (B, C); `noise` drives dropout, None is for inference."""
        x = drop((features - self.mean) / self.std, self.dropout, noise)
        if self.hidden is not None:
            x = drop(F.gelu(self.hidden(x)), self.dropout, noise)
        if self.scale is not None:
            # Cosine classifier (Gidaris & Komodakis 2018).
            return self.scale * F.linear(F.normalize(x, dim=1), F.normalize(self.out.weight, dim=1))
        return self.out(x)  # type: ignore[no-any-return]


class Adapter(nn.Module):
    """A residual bottleneck behind a frozen stage (Rebuffi et al. 2017; Houlsby et al. 2019 for tokens).

    Its last layer begins as zero: at first nothing changes.
    """

    def __init__(self, channels: int, width: int, channels_first: bool) -> None:
        super().__init__()
        self.channels_first = channels_first
        self.down = nn.Linear(channels, width)
        self.up = nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(1, -1) if self.channels_first else x
        change = self.up(F.gelu(self.down(last)))
        adapted: Tensor = x + (change.movedim(-1, 1) if self.channels_first else change)
        return adapted
