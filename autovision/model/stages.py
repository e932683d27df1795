"""A timm model as an ordered list of stages, with a cut between each two.

Below a cut a trial is frozen, above it it is trained; a network may end after any stage (elastic depth),
and any stage's output may feed the head. The composition of all stages equals `model.forward_features`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from autovision.errors import UnsupportedBackbone

Layout = Literal["map", "map_channels_last", "tokens"]
"""(B, C, H, W); (B, H, W, C); (B, N, C)"""

FAMILIES = (
    "EfficientNet, MobileNet and their kin; ResNet, ResNeXt and kin; ConvNeXt; EdgeNeXt; RegNet; DenseNet; "
    "VGG; ViT and DeiT; Swin"
)


class VitStem(nn.Module):
    """Patches, position embedding and what a ViT does before its first block."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.patch_embed: nn.Module = vit.patch_embed
        self.norm_pre: nn.Module = vit.norm_pre
        # The model itself makes the position embedding, from parameters (class and register tokens, …)
        # that this stage must own, so that they are saved, moved and trained with it.
        for name, parameter in vit.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self._vit = [vit]  # in a list, so that it is not registered as a child

    def forward(self, x: Tensor) -> Tensor:
        vit = self._vit[0]
        x = vit._pos_embed(self.patch_embed(x))
        return self.norm_pre(x)  # type: ignore[no-any-return]


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


def spatial(x: Tensor, layout: Layout, prefix_tokens: int) -> Tensor:
    """A stage's output as (B, C, L): channels first, positions flattened, prefix tokens dropped."""
    match layout:
        case "map":
            return x.flatten(2)
        case "map_channels_last":
            return x.flatten(1, 2).transpose(1, 2)
        case "tokens":
            return x[:, prefix_tokens:].transpose(1, 2)


def stages_of(model: nn.Module) -> StagedBackbone:
    """The stages of a timm model.

    Raises:
        UnsupportedBackbone: the model is of a family that cannot be cut here; the families that can are named.
    """
    m: Any = model  # which attributes a timm model has is what the patterns find out
    match model:
        case nn.Module(conv_stem=_, blocks=_):
            return _efficientnet(m)
        case nn.Module(layer1=_, layer4=_, maxpool=_):
            return _resnet(m)
        case nn.Module(stem=_, s1=_, s4=_):
            names = ("stem", "s1", "s2", "s3", "s4", "final_conv")
            return StagedBackbone([(name, getattr(m, name)) for name in names], "map")
        case nn.Module(stem=_, stages=_, norm_pre=_):
            return _with_tail([("stem", m.stem), *_numbered("stages", m.stages)], m.norm_pre, "map")
        case nn.Module(patch_embed=_, blocks=_, pos_embed=_, norm=_):
            return _vit(m)
        case nn.Module(patch_embed=_, layers=_, norm=_) if type(m).__name__ == "SwinTransformer":
            first = [("patch_embed", m.patch_embed), *_numbered("layers", m.layers)]
            return _with_tail(first, m.norm, "map_channels_last")
        case nn.Module(features=_) if type(m).__name__ == "DenseNet":
            return _densenet(m)
        case nn.Module(features=_, pre_logits=_):
            return _vgg(m)
    raise UnsupportedBackbone(
        f"backbone of type {type(model).__name__!r} cannot be cut into stages; choose one of these families: {FAMILIES}"
    )


def _numbered(prefix: str, modules: Iterable[nn.Module]) -> list[tuple[str, nn.Module]]:
    return [(f"{prefix}.{i}", module) for i, module in enumerate(modules)]


def _with_tail(stages: list[tuple[str, nn.Module]], tail: nn.Module, layout: Layout) -> StagedBackbone:
    """The tail (a final norm) belongs to the last stage; an identity is left out."""
    if not isinstance(tail, nn.Identity):
        name, last = stages[-1]
        stages[-1] = (name, nn.Sequential(last, tail))
    return StagedBackbone(stages, layout)


def _efficientnet(model: Any) -> StagedBackbone:
    stem = nn.Sequential(OrderedDict(conv_stem=model.conv_stem, bn1=model.bn1))
    stages: list[tuple[str, nn.Module]] = [("stem", stem), *_numbered("blocks", model.blocks)]
    # MobileNetV3 and its like apply their last convolution after pooling: it is no feature layer there.
    if hasattr(model, "bn2"):
        stages.append(("conv_head", nn.Sequential(OrderedDict(conv_head=model.conv_head, bn2=model.bn2))))
    return StagedBackbone(stages, "map")


def _resnet(model: Any) -> StagedBackbone:
    stem = nn.Sequential(
        OrderedDict(conv1=model.conv1, bn1=model.bn1, act1=model.act1, maxpool=model.maxpool)
    )
    layers = [(f"layer{i}", getattr(model, f"layer{i}")) for i in range(1, 5)]
    return StagedBackbone([("stem", stem), *layers], "map")


def _vit(model: Any) -> StagedBackbone:
    stages: list[tuple[str, nn.Module]] = [("stem", VitStem(model)), *_numbered("blocks", model.blocks)]
    staged = _with_tail(stages, model.norm, "tokens")
    staged.prefix_tokens = int(model.num_prefix_tokens)
    return staged


def _densenet(model: Any) -> StagedBackbone:
    groups: list[tuple[str, list[nn.Module]]] = [("stem", [])]
    for name, module in model.features.named_children():
        if name.startswith("denseblock"):
            groups.append((name, []))
        groups[-1][1].append(module)
    return StagedBackbone([(name, nn.Sequential(*modules)) for name, modules in groups], "map")


def _vgg(model: Any) -> StagedBackbone:
    groups: list[list[nn.Module]] = [[]]
    for module in model.features:
        groups[-1].append(module)
        if isinstance(module, nn.MaxPool2d):
            groups.append([])
    return StagedBackbone(_numbered("features", [nn.Sequential(*group) for group in groups if group]), "map")


def channels_of(backbone: StagedBackbone, height: int, width: int) -> list[int]:
    """The number of channels of each stage's output, found by one small forward pass."""
    was_training = backbone.training
    backbone.eval()
    sizes = []
    with torch.inference_mode():
        x = torch.zeros(1, 3, height, width)
        for index, stage in enumerate(backbone.stages):
            x = stage(x)
            sizes.append(int(backbone.spatial(x, index).shape[1]))
    backbone.train(was_training)
    return sizes
