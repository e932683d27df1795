"""What of a space can be searched here: found out before the first trial."""

from __future__ import annotations

from autovision.errors import AutoVisionError, CorruptObject, UnsupportedBackbone, WeightsUnavailable
from autovision.search.requests import backbones_of
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.trial.trial import Workbench


def infeasible_backbones(space: Space, bench: Workbench) -> dict[str, str]:
    """Backbone -> why it cannot be used here. The others are loaded then, and stay loaded.

    Raises:
        AutoVisionError: none of them can be used.
    """
    default = space.config(space.default())
    reasons: dict[str, str] = {}
    failed: list[AutoVisionError] = []
    names = backbones_of(space)
    for name in names:
        resolution = default.resolution if name == default.backbone else None
        try:
            bench.source(TrialConfig(backbone=name, weights=default.weights, resolution=resolution))
        except (WeightsUnavailable, UnsupportedBackbone, CorruptObject) as error:
            reasons[name] = str(error)
            failed.append(error)
    if len(failed) == len(names):
        raise failed[0]
    return reasons
