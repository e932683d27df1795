"""The only place that calls timm: names, preprocessing and the backbone of a configuration."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import timm
import torch
from torch import nn

from autovision.errors import InvalidInput, UnknownBackbone, near
from autovision.model import weights
from autovision.model.stages import StagedBackbone, stages_of
from autovision.model.weights import WeightsInfo
from autovision.records import Preprocessing
from autovision.space.config import TrialConfig
from autovision.store.protocol import Store


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone's stages and where their weights came from."""

    staged: StagedBackbone
    info: WeightsInfo


def check_name(name: str) -> None:
    """Raises `UnknownBackbone`, with the near names, if timm has no such model."""
    if not timm.is_model(name.split(".")[0]):
        raise UnknownBackbone(
            f"no backbone {name!r} in timm {timm.__version__}{near(name, timm.list_models())}; "
            'list the names with `python -c "import timm; print(timm.list_models())"`'
        )


@functools.cache
def _pretrained_cfg(name: str) -> dict[str, object]:
    check_name(name)
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    return dict(config.to_dict()) if config is not None else {}


def preprocessing(config: TrialConfig) -> Preprocessing:
    """The model's own normalization, interpolation and crop, at the configuration's resolution."""
    own = timm.data.resolve_data_config(pretrained_cfg=_pretrained_cfg(config.backbone), model=None)
    _, height, width = own["input_size"]
    if config.resolution is not None:
        if own.get("fixed_input_size") and config.resolution != height:
            raise InvalidInput(
                f"backbone {config.backbone!r} takes {height} px only, not resolution={config.resolution}"
            )
        height = width = config.resolution
    return Preprocessing(
        height=height,
        width=width,
        crop_pct=own["crop_pct"],
        interpolation=own["interpolation"],
        mean=tuple(own["mean"]),
        std=tuple(own["std"]),
    )


def create(config: TrialConfig) -> nn.Module:
    """The bare timm model, its weights drawn at random from a fixed seed."""
    check_name(config.backbone)
    kwargs = {}
    prep = preprocessing(config)
    if (prep.height, prep.width) != tuple(_pretrained_cfg(config.backbone)["input_size"][1:]) and any(  # type: ignore[index]
        family in config.backbone for family in ("vit", "deit", "swin")
    ):
        kwargs["img_size"] = (prep.height, prep.width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(config.backbone, pretrained=False, **kwargs)  # type: ignore[no-any-return]


def load(config: TrialConfig, store: Store | None = None) -> LoadedBackbone:
    """The stages of the configuration's backbone, truncated, with its weights, in evaluation mode.

    Args:
        store: holds the weights that `store:NAME` speaks of.

    Raises:
        UnknownBackbone, UnsupportedBackbone, WeightsUnavailable, CorruptObject, InvalidWeights
        NotFound: no weights were imported under that name.
        InvalidInput: `drop_stages` leaves no stage.
    """
    model = create(config)
    info = weights.load_into(model, config, store)
    staged = structure_of(model, config)
    return LoadedBackbone(staged.eval(), info)


def structure_of(model: nn.Module, config: TrialConfig) -> StagedBackbone:
    """The stages that the configuration keeps."""
    staged = stages_of(model)
    staged.truncate(kept_stages(config, len(staged)))
    return staged


def kept_stages(config: TrialConfig, stages: int) -> int:
    """How many of a backbone's stages the configuration keeps. Raises `InvalidInput` if it is none."""
    if config.drop_stages >= stages:
        raise InvalidInput(
            f"drop_stages={config.drop_stages} leaves nothing of {config.backbone!r}, which has {stages} stages"
        )
    return stages - config.drop_stages


def count_stages(config: TrialConfig) -> int:
    """Stages that the configuration keeps."""
    return kept_stages(config, _full_depth(config.backbone))


@functools.cache
def _full_depth(name: str) -> int:
    with torch.device("meta"):
        return len(stages_of(timm.create_model(name, pretrained=False)))
