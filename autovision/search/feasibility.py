"""What of a space can be searched here, and may be: found out before the first trial."""

from __future__ import annotations

from autovision.errors import (
    AutoVisionError,
    CorruptObject,
    InvalidInput,
    InvalidWeights,
    UnsupportedBackbone,
    WeightsUnavailable,
)
from autovision.model import licenses, weights
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.space.named import backbones_of, weights_of
from autovision.store.protocol import Store
from autovision.trial.workbench import Workbench


def infeasible_backbones(space: Space, bench: Workbench, allowed: tuple[str, ...] = ()) -> dict[str, str]:
    """Backbone -> why it cannot be used here. The others are loaded then, and stay loaded.

    Args:
        allowed: licences that weights may have; empty: any.

    Raises:
        AutoVisionError: none of them can be used.
    """
    default = space.config(space.default())
    # Weights that may not be used are not fetched either.
    reasons = unlicensed_backbones(bench.store, space, allowed)
    failed: list[AutoVisionError] = []
    names = backbones_of(space)
    for name in [name for name in names if name not in reasons]:
        resolution = default.resolution if name == default.backbone else None
        try:
            bench.source(TrialConfig(backbone=name, weights=default.weights, resolution=resolution))
        except (WeightsUnavailable, UnsupportedBackbone, CorruptObject, InvalidWeights) as error:
            reasons[name] = str(error)
            failed.append(error)
    if len(reasons) == len(names):
        raise failed[0]
    return reasons


def unlicensed_backbones(store: Store, space: Space, allowed: tuple[str, ...]) -> dict[str, str]:
    """Backbone -> which licence its weights have instead of an allowed one. Nothing is read or fetched.

    A backbone that a space may draw with several weights is left out if some of them are not allowed.

    Raises:
        InvalidInput: no backbone is left.
    """
    if not allowed:
        return {}
    reasons: dict[str, str] = {}
    names = backbones_of(space)
    for name in names:
        for choice in weights_of(space):
            try:
                origin = weights.find(TrialConfig(backbone=name, weights=choice), store)
            except (WeightsUnavailable, InvalidWeights):
                continue  # cannot be used at all, which loading them will tell
            if not licenses.permits(allowed, origin.license):
                reasons[name] = (
                    f"the licence of its weights ({origin.source}) is {origin.license}, not {' or '.join(allowed)}"
                )
    if len(reasons) == len(names):
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise InvalidInput(
            f"no backbone of the space has weights under a licence that is allowed: {listed}; allow another licence, "
            "choose another space, or import weights with `autovision weights import … --license SPDX`"
        )
    return reasons
