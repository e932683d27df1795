"""The only place that makes timm models: names, preprocessing and the backbone of a configuration."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import get_args

import timm
import torch
from torch import nn

from autovision.errors import InvalidInput, UnknownBackbone, UnsupportedBackbone, near
from autovision.model import weights
from autovision.model.stages import StagedBackbone, stages_of, verify
from autovision.model.weights import WeightsInfo
from autovision.records.models import CropMode, Preprocessing
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
    """The model's own normalization, interpolation and crop, at the configuration's resolution.

    Raises:
        UnknownBackbone
        UnsupportedBackbone: the model wants images cropped in a way that is not known here.
    """
    own = timm.data.resolve_data_config(pretrained_cfg=_pretrained_cfg(config.backbone), model=None)
    if own["crop_mode"] not in get_args(CropMode):
        raise UnsupportedBackbone(
            f"backbone {config.backbone!r} wants images cropped by {own['crop_mode']!r}; choose a backbone with one "
            f"of {', '.join(get_args(CropMode))}"
        )
    height, width = own["input_size"][1:]
    if config.resolution is not None:
        height = width = config.resolution
    return Preprocessing(
        height=height,
        width=width,
        crop_pct=own["crop_pct"],
        crop_mode=own["crop_mode"],
        interpolation=own["interpolation"],
        mean=tuple(own["mean"]),
        std=tuple(own["std"]),
    )


def create(config: TrialConfig) -> nn.Module:
    """The bare timm model for the configuration's resolution, its weights drawn at random from a fixed seed.

    Raises:
        UnknownBackbone
        InvalidInput: the model cannot be made for that resolution.
    """
    size = _size(config)
    # What timm calls a fixed input size is one that the model is made for, and takes as an argument; the
    # other models take images of any size as they are.
    own = _pretrained_cfg(config.backbone)
    made_for = (
        {"img_size": size} if own.get("fixed_input_size") and size != _own_size(config.backbone) else {}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return timm.create_model(config.backbone, pretrained=False, **made_for)  # type: ignore[no-any-return]
        except Exception as error:  # models refuse a size in many ways
            if not made_for:
                raise
            raise InvalidInput(
                f"backbone {config.backbone!r} cannot be made for resolution={config.resolution} "
                f"({type(error).__name__}: {error}); its own is {_own_size(config.backbone)[0]}, and multiples of 32 "
                "or of its patch or window size are most likely to fit"
            ) from error


def takes_any_size(name: str) -> bool:
    """Whether a backbone has the same tensors whatever the size of the images."""
    return not _pretrained_cfg(name).get("fixed_input_size")


def _size(config: TrialConfig) -> tuple[int, int]:
    """Height and width of the images that the configuration's network takes."""
    if config.resolution is not None:
        return config.resolution, config.resolution
    return _own_size(config.backbone)


def _own_size(name: str) -> tuple[int, int]:
    own = timm.data.resolve_data_config(pretrained_cfg=_pretrained_cfg(name), model=None)
    _, height, width = own["input_size"]
    return height, width


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
    staged = stages_of(model, _size(config))
    verify(model, staged, _size(config))
    staged.truncate(kept_stages(config, len(staged)))
    return LoadedBackbone(staged.eval(), info)


def structure_of(model: nn.Module, config: TrialConfig) -> StagedBackbone:
    """The stages that the configuration keeps."""
    staged = stages_of(model, _size(config))
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
