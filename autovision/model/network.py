"""The network of a configuration: staged backbone, pooled taps, head.

pixels (B, H, W, 3) uint8 -> normalize -> stages -> pool each tapped stage -> head -> logits (B, classes)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from autovision.errors import CorruptObject, InvalidInput
from autovision.image import VIEWS, View
from autovision.model.heads import (
    POOLS,
    Adapter,
    Head,
    attends,
    pooler_of,
    statistics,
    tap_width,
    tapped_stages,
)
from autovision.model.noise import Noise, install_stochastic_depth
from autovision.model.stages import Layout, StagedBackbone, spatial
from autovision.records.models import Preprocessing
from autovision.space.config import TrialConfig


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


def trained_from(config: TrialConfig, stages: int) -> int:
    """Index of the first stage that is trained; `stages` if none is."""
    if config.unfreeze > stages:
        raise InvalidInput(f"unfreeze={config.unfreeze} is more than the {stages} stages that are kept")
    return stages - config.unfreeze


def adapted_stages(config: TrialConfig, stages: int) -> list[int]:
    """Indices of the frozen stages that have an adapter behind them."""
    top = trained_from(config, stages)
    if config.adapters > top:
        raise InvalidInput(f"adapters={config.adapters} is more than the {top} stages that stay frozen")
    return list(range(top - config.adapters, top))


def cut_of(config: TrialConfig, stages: int) -> int:
    """How many stages can be computed once and for all: everything that is trained or attended to lies above."""
    cut = trained_from(config, stages)
    if adapted := adapted_stages(config, stages):
        cut = adapted[0] + 1
    if attends(config):
        cut = min(cut, tapped_stages(config, stages)[0] + 1)
    return cut


def taps_below(config: TrialConfig, stages: int) -> list[int]:
    """The tapped stages whose pooled output is final below the cut, and need not be computed again."""
    cut, adapted = cut_of(config, stages), adapted_stages(config, stages)
    tapped = tapped_stages(config, stages)
    return [] if attends(config) else [tap for tap in tapped if tap < cut and tap not in adapted]


class Suffix(nn.Module):
    """What a trial trains: the unfrozen stages, the adapters, the pooling and the head.

    Takes the activation at the cut and the pooled taps from below it; with no map to train on, those taps alone.
    """

    def __init__(
        self, backbone: StagedBackbone, config: TrialConfig, channels: Sequence[int], classes: int
    ) -> None:
        super().__init__()
        self.config = config
        stages = len(backbone)
        self.cut, self.first_trained = cut_of(config, stages), trained_from(config, stages)
        self.upper = backbone.part(self.cut, stages)
        self.layouts = backbone.layouts
        self.prefix_tokens = backbone.prefix_tokens
        self.live_taps = [
            tap for tap in tapped_stages(config, stages) if tap not in taps_below(config, stages)
        ]
        self.adapters = _adapters(backbone, config, channels)
        self.pooler = pooler_of(config, channels)
        self.head = Head(config, tap_width(config, channels), classes)
        for index, stage in enumerate(self.upper.stages, self.cut):
            stage.requires_grad_(index >= self.first_trained)
        # None where none is wanted: what was traced or compiled stays as timm made it.
        self._depths = (
            install_stochastic_depth(self.trained_stages(), config.drop_path) if config.drop_path else []
        )

    def trained_stages(self) -> list[nn.Module]:
        """From the lowest to the topmost."""
        return list(self.upper.stages)[self.first_trained - self.cut :]

    def trained_state(self) -> dict[str, Tensor]:
        """Name -> tensor of all that training changes, and no more: what a trial leaves and a checkpoint holds."""
        frozen = tuple(f"upper.stages.{i}." for i in range(self.first_trained - self.cut))
        # BatchNorm keeps its pretrained statistics, so of a stage only parameters change.
        parameters = {name for name, _ in self.named_parameters()}
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if not name.startswith("upper.") or (name in parameters and not name.startswith(frozen))
        }

    def load_trained(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `trained_state` of an equal suffix gave. Raises `CorruptObject` if it does not fit."""
        own = self.trained_state()
        if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in tensors.items()}:
            odd = sorted(own.keys() ^ tensors.keys()) or ["shapes differ"]
            raise CorruptObject(
                f"trained tensors do not fit their configuration ({', '.join(odd[:3])}); they were written for "
                "another one, or by another version: run the trial again"
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(tensors[name])

    def features(self, activation: Tensor | None, below: Tensor | None) -> Tensor:
        """(B, D): `below` (pooled taps under the cut, (B, D_below)) and the taps above it.

        Without an activation `below` holds all taps, and the stages above the cut are not run.
        """
        if activation is None:
            assert below is not None
            return below
        taps, x = [], activation
        for index in range(self.cut - 1, len(self.layouts)):
            if index >= self.cut:
                x = self.upper.stages[index - self.cut](x)
            if str(index) in self.adapters:
                x = self.adapters[str(index)](x)
            if index in self.live_taps:
                taps.append(spatial(_gradient_as_laid_out(x), self.layouts[index], self.prefix_tokens))
        with torch.autocast(activation.device.type, enabled=False):
            above = self.pooler(taps)
        return above if below is None else torch.cat([below, above], 1)

    def forward(self, activation: Tensor | None, below: Tensor | None, noise: Noise | None = None) -> Tensor:
        """Logits (B, C); `noise` drives dropout and stochastic depth, None is for inference."""
        for depth in self._depths:
            depth.noise = noise
        features = self.features(activation, below)
        # What is new is small, and is trained in full precision.
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.float(), noise)  # type: ignore[no-any-return]

    @property
    def input_layout(self) -> Layout:
        """Of the activation at the cut."""
        return self.layouts[self.cut - 1] if self.cut else "map"


def _gradient_as_laid_out(x: Tensor) -> Tensor:
    """`x`, whose gradient will be channels-last if `x` is.

    Pooling gives a gradient that is laid out otherwise, which slows the backward passes of norm and convolution.
    """
    if x.requires_grad and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        x.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))  # type: ignore[no-untyped-call]
    return x


def _adapters(backbone: StagedBackbone, config: TrialConfig, channels: Sequence[int]) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            str(index): Adapter(channels[index], config.adapter_width, backbone.layouts[index] == "map")
            for index in adapted_stages(config, len(backbone))
        }
    )


def shown(x: Tensor, view: View) -> Tensor:
    """(B, C, H, W) as a view shows it that only flips and turns."""
    if view.flip:
        x = x.flip(3)
    match view.quarter_turns % 4:
        case 1:
            return x.transpose(2, 3).flip(2)
        case 2:
            return x.flip((2, 3))
        case 3:
            return x.transpose(2, 3).flip(3)
    return x


class Network(nn.Module):
    """The whole network, as it is served: uint8 pixels in; logits and the head's input (the embedding) out.

    Both are means over the views of its test-time augmentation, which for most is the image itself.
    """

    def __init__(
        self,
        backbone: StagedBackbone,
        config: TrialConfig,
        preprocessing: Preprocessing,
        channels: Sequence[int],
        classes: int,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(preprocessing)
        self.backbone = backbone
        self.adapters = _adapters(backbone, config, channels)
        self.pooler = pooler_of(config, channels)
        self.head = Head(config, tap_width(config, channels), classes)
        self.taps = tapped_stages(config, len(backbone))
        self.augmentation = config.test_time_augmentation

    def take(self, suffix: Suffix) -> Network:
        """With what was trained above this very backbone: the suffix's stages must be its own."""
        self.adapters, self.pooler, self.head = suffix.adapters, suffix.pooler, suffix.head
        return self

    def extra_repr(self) -> str:
        """What no tensor and no child tells; a converted network is found again by what `repr` says."""
        return f"taps={self.taps}, test_time_augmentation={self.augmentation}"

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.normalize(pixels)
        views = VIEWS[self.augmentation]
        if len(views) > 1:
            x = torch.cat([shown(x, view) for view in views])
        taps = []
        for index, stage in enumerate(self.backbone.stages):
            x = stage(x)
            if str(index) in self.adapters:
                x = self.adapters[str(index)](x)
            if index in self.taps:
                taps.append(self.backbone.spatial(x, index))
        features = self.pooler(taps)
        logits = self.head(features)
        if len(views) > 1:
            logits, features = (
                each.view(len(views), -1, each.shape[1]).mean(0) for each in (logits, features)
            )
        return logits, features


def select_taps(
    pooled: Tensor, config: TrialConfig, channels: Sequence[int], stages: Sequence[int]
) -> Tensor:
    """The columns of a row (B, 3·ΣC) of all stages, pooled, that the head reads from `stages`: (B, D).

    Such a row holds stage by stage its avg, max and gem: see `autovision.features.extract`.
    """
    starts = [0]
    for width in channels:
        starts.append(starts[-1] + 3 * width)
    parts = []
    for index in stages:
        for how in statistics(config):
            at = starts[index] + POOLS.index(how) * channels[index]
            parts.append(pooled[:, at : at + channels[index]])
    return torch.cat(parts, 1)
