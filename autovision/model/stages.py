"""A timm model as an ordered list of stages, with a cut between each two.

Below a cut a trial is frozen, above it it is trained; a network may end after any stage (elastic depth),
and any stage's output may feed the head. The composition of all stages equals `model.forward_features`.

How: `flow` follows the computation and finds where it can be cut, `grouping` decides where it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.proxy import TraceError

from autovision.errors import UnsupportedBackbone
from autovision.model.flow import Flow, Glue, evaluating
from autovision.model.grouping import groups_of
from autovision.model.layout import Layout, spatial

__all__ = ["Layout", "StagedBackbone", "channels_of", "spatial", "stages_of", "verify"]

_REMEDY = (
    "choose a backbone whose features are one tensor from stage to stage, such as EfficientNet, MobileNet, ResNet, "
    "RegNet, ConvNeXt, DenseNet, VGG, ViT, DeiT or Swin"
)
_verified: set[tuple[str, tuple[int, int]]] = set()
"""(architecture, size) whose stages were found to equal the whole, in this process"""


class StagedBackbone(nn.Module):
    """The feature layers of a timm model, in order.

    Attributes:
        stages: the stages, each mapping the previous one's output to its own.
        names: a name for each stage.
        layouts: of each stage's output.
        prefix_tokens: tokens before the patch tokens (class token, registers); 0 for maps.
    """

    def __init__(
        self,
        stages: Iterable[tuple[str, nn.Module]],
        layouts: Layout | Iterable[Layout],
        prefix_tokens: int = 0,
    ) -> None:
        super().__init__()
        named = list(stages)
        self.names = tuple(name for name, _ in named)
        self.stages = nn.ModuleList(module for _, module in named)
        self.layouts: tuple[Layout, ...] = (
            (layouts,) * len(named) if isinstance(layouts, str) else tuple(layouts)
        )
        self.prefix_tokens = prefix_tokens
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.stages)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return x

    def truncate(self, keep: int) -> None:
        """Keep the first `keep` stages only."""
        self.stages = self.stages[:keep]
        self.names = self.names[:keep]
        self.layouts = self.layouts[:keep]

    def part(self, start: int, stop: int) -> StagedBackbone:
        """The stages from `start` to before `stop`; the very same modules."""
        named = list(zip(self.names, self.stages, strict=True))[start:stop]
        return StagedBackbone(named, self.layouts[start:stop], self.prefix_tokens)

    def spatial(self, x: Tensor, stage: int) -> Tensor:
        """The output of a stage as (B, C, L): see `spatial`."""
        return spatial(x, self.layouts[stage], self.prefix_tokens)


def _forget(module: nn.Module, _: object) -> None:
    """Drop what attention layers derived from the parameters that were there before."""
    with evaluating(module):
        pass


def stages_of(model: nn.Module, size: tuple[int, int] | None = None) -> StagedBackbone:
    """The stages of a timm model; they hold the model's own modules and parameters.

    Args:
        model: any timm model whose features are one tensor, with positions, from stage to stage.
        size: height and width of the images that it will see; None: as the model is made for.

    Raises:
        UnsupportedBackbone: the model cannot be cut, or not for images of that size.
    """
    name = _name_of(model)
    size = size or _own_size(model)
    try:
        flow = Flow(model, size)
    except Exception as error:  # models do many things that cannot be followed, and fail in their own ways
        own = _own_size(model)
        raise UnsupportedBackbone(
            f"backbone {name!r} cannot be cut into stages: its computing cannot be followed for images of {size[0]} by "
            f"{size[1]} pixels ({_short(error)}); "
            + (
                f"use its own resolution, {own[0]}, or "
                if size != own and not isinstance(error, TraceError)
                else ""
            )
            + _REMEDY
        ) from error
    if flow.layout(flow.result) is None:
        gives = flow.seen(flow.result).describe()
        raise UnsupportedBackbone(
            f"backbone {name!r} cannot be cut into stages: its features are {gives}, not one map or one list of "
            f"tokens; {_REMEDY}"
        )
    staged = _staged(flow)
    if len(staged) < 2:
        raise UnsupportedBackbone(
            f"backbone {name!r} cannot be cut into stages: more than one tensor goes from each layer to the next, "
            f"or all of them share parameters; {_REMEDY}"
        )
    return staged


def verify(model: Any, staged: StagedBackbone, size: tuple[int, int]) -> None:
    """Compare the stages of a timm model with the whole, on one random image, once per architecture and size.

    Stages that are the model's own layers in a row leave nothing to compare: only `Glue` was written anew.

    Raises:
        UnsupportedBackbone: they do not give the same.
    """
    name = _name_of(model)
    if (name, size) in _verified or not any(isinstance(stage, Glue) for stage in staged.stages):
        return
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(next(model.parameters()))
    with evaluating(model), evaluating(staged), torch.no_grad():
        found, expected = staged(image), model.forward_features(image)
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3, atol=1e-4):
        raise UnsupportedBackbone(
            f"backbone {name!r} cannot be cut into stages: one after the other they do not give what the whole "
            f"model gives; {_REMEDY}"
        )
    _verified.add((name, size))


def _staged(flow: Flow) -> StagedBackbone:
    groups = groups_of(flow)
    outputs = [flow.tensor(group.stop) for group in groups]
    layouts = [layout for output in outputs if (layout := flow.layout(output)) is not None]
    tokens = [
        count
        for output, layout in zip(outputs, layouts, strict=True)
        if layout == "tokens" and (count := flow.positions(output)) is not None
    ]
    stages = [(group.name, flow.part(group.start, group.stop)) for group in groups]
    return StagedBackbone(stages, layouts, _prefix_tokens(flow.model, tokens))


def _prefix_tokens(model: nn.Module, counts: Iterable[int]) -> int:
    """How many tokens before the patches each stage gives, as the model says it, or with a class token, one.

    A class token that is not there from the first stage to the last is pooled like a patch.
    """
    has_class_token = any("cls_token" in name for name, _ in model.named_parameters())
    most = int(getattr(model, "num_prefix_tokens", has_class_token))
    return most if all(count > most and _is_square(count - most) for count in counts) else 0


def _is_square(n: int) -> bool:
    return math.isqrt(n) ** 2 == n


def _name_of(model: nn.Module) -> str:
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    return str(config.get("architecture") or type(model).__name__)


def _own_size(model: nn.Module) -> tuple[int, int]:
    embedding: Any = getattr(model, "patch_embed", None)
    if (size := getattr(embedding, "img_size", None)) is not None:
        return int(size[0]), int(size[1])
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    _, height, width = config.get("input_size", (3, 224, 224))
    return int(height), int(width)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]


def channels_of(backbone: StagedBackbone, height: int, width: int) -> list[int]:
    """The number of channels of each stage's output, found by one small forward pass."""
    sizes = []
    with evaluating(backbone), torch.inference_mode():
        x = torch.zeros(1, 3, height, width)
        for index, stage in enumerate(backbone.stages):
            x = stage(x)
            sizes.append(int(backbone.spatial(x, index).shape[1]))
    return sizes
