"""The space of a re-search: a deployment's space, and what only a successor of a model can choose.

Added is what the space does not name itself, with the value that changes nothing among its values:

    new_weight   from 1 to old / new, 16 at most: how much each new image counts in the loss. At most all new ones
                 together count as all old ones do; where there are as many, nothing is added
    distill      0 to 0.75: how much of the champion's own answers is learnt of the images that it knew
    l2_sp        0 to 0.1, where stages are unfrozen: how strongly these are held where they began, which for a start
                 from the champion is the champion

A constant in the deployment's space (`distill = 0.0`) keeps a re-search from choosing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autovision.space.parameters import Choice, Constant, Float, Integer, Parameter, Value, declaration_of
from autovision.space.space import Space

_MOST_WEIGHT = 16.0
_LEAST_RATIO = 1.1
"""of old and new images, below which there is nothing to weigh"""


def for_successor(space: Mapping[str, Any], old: int, new: int) -> dict[str, Any]:
    """The JSON form of the space of a re-search, of that of a deployment's. The same again gives the same.

    Args:
        old, new: how many images of train the champion knew, and how many it did not.

    Raises:
        InvalidSpace: it is not the JSON form of a valid space.
    """
    read = Space.from_json(dict(space))
    added: dict[str, Parameter] = {"distill": Choice(0.0, 0.25, 0.5, 0.75)}
    ratio = old / new if new else 1.0
    if ratio >= _LEAST_RATIO:
        # Drawn in the logarithm, so that the old images stay ahead in all draws and far ahead in most.
        added["new_weight"] = Float(1.0, min(round(ratio, 1), _MOST_WEIGHT), log=True, default=1.0)
    unfrozen, always = _unfrozen(read.parameters.get("unfreeze"))
    if unfrozen:
        added["l2_sp"] = Choice(0.0, 1e-3, 1e-2, 1e-1, when=None if always else {"unfreeze": unfrozen})
    form = read.to_json()
    lacking = {name: declaration_of(each) for name, each in added.items() if name not in read.parameters}
    made = {**form, "parameters": {**form["parameters"], **lacking}}
    return Space.from_json(made).to_json()


def _unfrozen(parameter: Parameter | None) -> tuple[tuple[int, ...], bool]:
    """The numbers of unfrozen stages that are above 0, and whether there are no others."""
    values: Sequence[Value]
    match parameter:
        case Integer(low=low, high=high):
            values = range(low, high + 1)
        case Choice(values=of):
            values = of
        case Constant(value=value):
            values = (value,)
        case _:
            values = ()
    found = tuple(int(value) for value in values if isinstance(value, int | float) and value > 0)
    return found, parameter is not None and parameter.when is None and len(found) == len(values)
