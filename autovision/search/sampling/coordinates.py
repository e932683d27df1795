"""A space's points as rows of numbers, for estimators: a parameter is a place on the unit interval, or one of a few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autovision.space import Choice, Constant, Float, Integer, Space
from autovision.space.parameters import same

Row = NDArray[np.float64]

_MOST_VALUES = 32
"""a whole number of a wider range is treated as a real one"""


@dataclass(frozen=True)
class Axis:
    """A parameter that is no constant.

    Attributes:
        values: all that it can be, where these are few; empty for a real number.
        centres: where these lie on the unit interval, if they have an order; else empty.
        edges: the ends of the interval that belongs to each of them.
    """

    name: str
    parameter: Float | Integer | Choice
    values: tuple[Any, ...] = ()
    centres: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()

    @classmethod
    def of(cls, name: str, parameter: Float | Integer | Choice) -> Axis:
        match parameter:
            case Choice(values=choices):
                return cls(name, parameter, choices)
            case Integer(low=low, high=high) if high - low < _MOST_VALUES:
                values = [float(value) for value in range(low, high + 1)]
                own: tuple[Any, ...] = tuple(range(low, high + 1))
            case Float(low=first, high=last, step=step) if step and (last - first) / step < _MOST_VALUES:
                values = [
                    parameter.nearest(first + i * step) for i in range(round((last - first) / step) + 1)
                ]
                own = tuple(values)
            case _:
                return cls(name, parameter)
        half = (values[1] - values[0]) / 2 if len(values) > 1 else 0.5
        ends = [values[0] - half, *(value + half for value in values)]
        if parameter.log:
            ends = [math.log(max(end, values[0] / 2)) for end in ends]
        span = ends[-1] - ends[0]
        edges = tuple((end - ends[0]) / span for end in ends)
        return cls(name, parameter, own, tuple((a + b) / 2 for a, b in pairwise(edges)), edges)

    @property
    def ordered(self) -> bool:
        return not isinstance(self.parameter, Choice)

    def encode(self, value: Any) -> float:
        """The place of a real number, or the index of one of a few values."""
        if self.values:
            return float(next(i for i, own in enumerate(self.values) if same(own, value)))
        low, high = self._ends()
        at = math.log(value) if self._log else value
        return (at - low) / (high - low) if high > low else 0.5

    def decode(self, code: float) -> Any:
        if self.values:
            return self.values[int(code)]
        low, high = self._ends()
        at = low + code * (high - low)
        return self.parameter.nearest(math.exp(at) if self._log else at)

    @property
    def _log(self) -> bool:
        return isinstance(self.parameter, Float | Integer) and self.parameter.log

    def _ends(self) -> tuple[float, float]:
        assert not isinstance(self.parameter, Choice)
        low, high = float(self.parameter.low), float(self.parameter.high)
        return (math.log(low), math.log(high)) if self._log else (low, high)


class Coordinates:
    """The axes of a space; a row has one number for each, NaN where the parameter does not exist."""

    def __init__(self, space: Space) -> None:
        self.axes = [
            Axis.of(name, parameter)
            for name, parameter in space.parameters.items()
            if not isinstance(parameter, Constant)
        ]
        self.index = {axis.name: i for i, axis in enumerate(self.axes)}
        self._conditions = [self._condition(space, axis) for axis in self.axes]

    def __len__(self) -> int:
        return len(self.axes)

    def encode(self, point: Mapping[str, Any]) -> Row:
        """The row of a point, or of a part of one."""
        row = np.full(len(self.axes), np.nan)
        for name, value in point.items():
            if name in self.index:
                row[self.index[name]] = self.axes[self.index[name]].encode(value)
        return row

    def decode(self, row: Row) -> dict[str, Any]:
        """The point of a row whose inactive places are NaN."""
        return {
            axis.name: axis.decode(code) for axis, code in zip(self.axes, row, strict=True) if code == code
        }

    def hide_inactive(self, rows: Row) -> Row:
        """The rows, of shape (n, axes), with NaN where a parameter does not exist by its parents' values."""
        rows = rows.copy()
        for i, condition in enumerate(self._conditions):
            for parent, codes in condition:
                rows[~np.isin(rows[:, parent], codes), i] = np.nan
        return rows

    def _condition(self, space: Space, axis: Axis) -> list[tuple[int, list[float]]]:
        found: list[tuple[int, list[float]]] = []
        for parent, allowed in (axis.parameter.when or {}).items():
            holder = space.parameters[parent]
            if isinstance(holder, Constant):
                if not any(same(value, holder.value) for value in allowed):
                    found.append((0, []))  # never exists
                continue
            parent_axis = self.axes[self.index[parent]]
            found.append((self.index[parent], [parent_axis.encode(value) for value in allowed]))
        return found


def unconditional(axes: Sequence[Axis]) -> list[int]:
    """The axes of parameters with an order that every point has."""
    return [i for i, axis in enumerate(axes) if axis.ordered and not axis.parameter.when]
