"""The network of a configuration: staged backbone, pooled taps, head; and its frozen prefix as a feature extractor.

pixels (B, H, W, 3) uint8 -> normalize -> stages -> pool each tapped stage -> head -> logits (B, classes)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autovision.errors import InvalidInput
from autovision.model.stages import StagedBackbone
from autovision.records import Preprocessing
from autovision.space.config import Pooling, TrialConfig

POOLS = ("avg", "max", "gem")
"""every statistic that a feature row holds, in this order, for each stage"""

_GEM_P = 3.0


def pool(x: Tensor, how: Pooling) -> Tensor:
    """(B, C, L) -> (B, C), or (B, 2C) for `avgmax`."""
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


class Normalize(nn.Module):
    """uint8 (B, H, W, 3) to the backbone's input (B, 3, H, W), with the model's own mean and deviation."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self.register_buffer("scale", (1.0 / (255.0 * std)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1), persistent=False)
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale + self.shift


class Head(nn.Module):
    """Standardization by training statistics, dropout, then a linear, MLP or cosine classifier.

    Args:
        features: D, the width of the pooled taps.
        classes: C.
    """

    def __init__(self, config: TrialConfig, features: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.mean: Tensor
        self.std: Tensor
        self.kind = config.head
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = nn.Linear(features, config.head_width) if config.head == "mlp" else None
        self.out = nn.Linear(
            config.head_width if config.head == "mlp" else features, classes, bias=config.head != "cosine"
        )
        self.scale = nn.Parameter(torch.tensor(10.0)) if config.head == "cosine" else None
        if config.head != "cosine":
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def standardize_by(self, features: Tensor) -> None:
        """Take mean and deviation from training features (N, D), so that every tap weighs alike."""
        self.mean.copy_(features.mean(0))
        self.std.copy_(features.std(0).clamp(min=1e-4))

    def forward(self, features: Tensor) -> Tensor:
        x = self.dropout((features - self.mean) / self.std)
        if self.hidden is not None:
            x = self.dropout(F.gelu(self.hidden(x)))
        if self.scale is not None:
            # Cosine classifier (Gidaris & Komodakis 2018).
            return self.scale * F.linear(F.normalize(x, dim=1), F.normalize(self.out.weight, dim=1))
        return self.out(x)  # type: ignore[no-any-return]


def tapped_stages(config: TrialConfig, stages: int) -> list[int]:
    """Indices of the stages that feed the head, in ascending order."""
    return list(range(max(0, stages - config.taps), stages))


def tap_width(config: TrialConfig, channels: list[int]) -> int:
    """D: the width of the head's input, for the channels of each kept stage."""
    each = 2 if config.pooling == "avgmax" else 1
    return each * sum(channels[i] for i in tapped_stages(config, len(channels)))


class Suffix(nn.Module):
    """What a trial trains: the unfrozen stages and the head.

    Takes the activation at the cut and the pooled taps from below it; with nothing unfrozen, those taps alone.
    """

    def __init__(
        self, backbone: StagedBackbone, config: TrialConfig, channels: list[int], classes: int
    ) -> None:
        super().__init__()
        self.config = config
        self.cut = cut_of(config, len(backbone))
        self.taps = tapped_stages(config, len(backbone))
        self.upper = StagedBackbone(
            list(zip(backbone.names, backbone.stages, strict=True))[self.cut :],
            backbone.layout,
            backbone.prefix_tokens,
        )
        self.head = Head(config, tap_width(config, channels), classes)

    def features(self, activation: Tensor | None, below: Tensor | None) -> Tensor:
        """(B, D): `below` (pooled taps under the cut, (B, D_below)) and the taps above it.

        Without an activation `below` holds all taps, and the stages above the cut are not run.
        """
        if activation is None:
            assert below is not None
            return below
        parts = [] if below is None else [below]
        x = activation
        for index, stage in enumerate(self.upper.stages, self.cut):
            x = stage(x)
            if index in self.taps:
                parts.append(pool(self.upper.spatial(x).float(), self.config.pooling))
        return torch.cat(parts, 1)

    def forward(self, activation: Tensor | None, below: Tensor | None) -> Tensor:
        return self.head(self.features(activation, below))  # type: ignore[no-any-return]


def cut_of(config: TrialConfig, stages: int) -> int:
    """How many stages are frozen: the index of the first trained one."""
    if config.unfreeze > stages:
        raise InvalidInput(f"unfreeze={config.unfreeze} is more than the {stages} stages that are kept")
    return stages - config.unfreeze


class Network(nn.Module):
    """The whole network, as it is served: uint8 pixels in; logits and the head's input (the embedding) out."""

    def __init__(
        self, backbone: StagedBackbone, head: Head, config: TrialConfig, preprocessing: Preprocessing
    ) -> None:
        super().__init__()
        self.normalize = Normalize(preprocessing)
        self.backbone = backbone
        self.head = head
        self.pooling = config.pooling
        self.taps = tapped_stages(config, len(backbone))

    def extra_repr(self) -> str:
        """What no tensor and no child tells; a converted network is found again by what `repr` says."""
        return f"pooling={self.pooling}, taps={self.taps}"

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.normalize(pixels)
        parts = []
        for index, stage in enumerate(self.backbone.stages):
            x = stage(x)
            if index in self.taps:
                parts.append(pool(self.backbone.spatial(x), self.pooling))
        features = torch.cat(parts, 1)
        return self.head(features), features


class PooledExtractor(nn.Module):
    """All pooled statistics of every stage: (B, 3·ΣC), stage by stage, each as avg, max, gem."""

    def __init__(self, backbone: StagedBackbone, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.normalize = Normalize(preprocessing)
        self.backbone = backbone

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.normalize(pixels)
        parts = []
        for stage in self.backbone.stages:
            x = stage(x)
            spatial = self.backbone.spatial(x)
            parts += [pool(spatial, "avg"), pool(spatial, "max"), pool(spatial, "gem")]
        return torch.cat(parts, 1)


class CutExtractor(nn.Module):
    """The activation at a cut: the output of the first `cut` stages, or the normalized image for cut 0."""

    def __init__(self, backbone: StagedBackbone, cut: int, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.normalize = Normalize(preprocessing)
        self.stages = backbone.stages[:cut]

    def forward(self, pixels: Tensor) -> Tensor:
        x: Tensor = self.normalize(pixels)
        for stage in self.stages:
            x = stage(x)
        return x


def select_taps(pooled: Tensor, config: TrialConfig, channels: list[int], stages: list[int]) -> Tensor:
    """The columns of a `PooledExtractor` row (B, 3·ΣC) that the head reads from `stages`: (B, D)."""
    starts = [0]
    for width in channels:
        starts.append(starts[-1] + 3 * width)
    wanted = ("avg", "max") if config.pooling == "avgmax" else (config.pooling,)
    parts = []
    for index in stages:
        for how in wanted:
            at = starts[index] + POOLS.index(how) * channels[index]
            parts.append(pooled[:, at : at + channels[index]])
    return torch.cat(parts, 1)
