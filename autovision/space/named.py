"""What a space may name, over all its points."""

from __future__ import annotations

from autovision.space.config import TrialConfig
from autovision.space.parameters import Choice, Constant
from autovision.space.space import Space


def backbones_of(space: Space) -> list[str]:
    """The backbones that a space may name."""
    return _values_of(space, "backbone")


def weights_of(space: Space) -> list[str]:
    """The weights that a space may name: values of `TrialConfig.weights`."""
    return _values_of(space, "weights")


def _values_of(space: Space, parameter: str) -> list[str]:
    match space.parameters.get(parameter):
        case Choice(values=values):
            return [str(value) for value in values]
        case Constant(value=value):
            return [str(value)]
        case _:
            return [str(getattr(TrialConfig(), parameter))]
