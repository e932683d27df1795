"""The frozen part of a network as one module: the activation at a cut, pooled stages, or both."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autovision.model.heads import POOLS, pool
from autovision.model.network import Normalize
from autovision.model.stages import StagedBackbone
from autovision.records.models import Preprocessing


class FrozenPrefix(nn.Module):
    """uint8 pixels (B, H, W, 3) to the activation below stage number `cut`, and the pooled outputs of `stages`.

    The outputs are, of these two, those that were asked for:

    - the activation: the output of the first `cut` stages, or the normalized image (B, 3, H, W) for cut 0;
    - pooled: (B, 3·ΣC), stage by stage in ascending order, each as avg, max, gem.

    Args:
        cut: None: no activation.
        stages: indices of stages; empty: nothing pooled.
    """

    def __init__(
        self, backbone: StagedBackbone, preprocessing: Preprocessing, cut: int | None, stages: Collection[int]
    ) -> None:
        super().__init__()
        self.normalize = Normalize(preprocessing)
        self.cut, self.pooled = cut, sorted(stages)
        self.backbone = backbone.part(0, max(cut or 0, *(stage + 1 for stage in stages), 0))

    def extra_repr(self) -> str:
        """What no tensor and no child tells; a converted network is found again by what `repr` says."""
        return f"cut={self.cut}, pooled={self.pooled}"

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        x = self.normalize(pixels)
        activation, parts = x, []
        for index, stage in enumerate(self.backbone.stages):
            x = stage(x)
            if index + 1 == self.cut:
                activation = x
            if index in self.pooled:
                positions = self.backbone.spatial(x, index)
                parts += [pool(positions, how) for how in POOLS]
        wanted = ([] if self.cut is None else [activation]) + ([torch.cat(parts, 1)] if parts else [])
        return wanted[0] if len(wanted) == 1 else tuple(wanted)


@dataclass(frozen=True)
class Shapes:
    """What the stages of a backbone give for images of one size.

    Attributes:
        activations: shape of one image's activation at cut 0, 1, 2, …
        channels: of each stage.
    """

    activations: tuple[tuple[int, ...], ...]
    channels: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Of a row of everything pooled."""
        return 3 * sum(self.channels)

    def columns_of(self, stages: Collection[int]) -> np.ndarray:
        """The numbers of the columns that pooling these stages gives, ascending."""
        ends = 3 * np.cumsum(self.channels)
        return np.concatenate(
            [np.arange(ends[stage] - 3 * self.channels[stage], ends[stage]) for stage in sorted(stages)]
        )

    def stages_of(self, columns: np.ndarray) -> list[int]:
        """The stages that the columns are of."""
        ends = 3 * np.cumsum(self.channels)
        return sorted(set(np.searchsorted(ends, columns, side="right").tolist()))


def shapes_of(backbone: StagedBackbone, preprocessing: Preprocessing) -> Shapes:
    """Found by sending one image through the backbone, which is in evaluation mode."""
    device = next(backbone.parameters()).device
    with torch.inference_mode():
        x = torch.zeros(1, 3, preprocessing.height, preprocessing.width, device=device)
        activations, channels = [tuple(x.shape[1:])], []
        for index, stage in enumerate(backbone.stages):
            x = stage(x)
            activations.append(tuple(x.shape[1:]))
            channels.append(int(backbone.spatial(x, index).shape[1]))
    return Shapes(tuple(activations), tuple(channels))
