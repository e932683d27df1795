"""Rows out of many memory-mapped arrays, in one indexing operation.

A batch draws its rows from everywhere: 64 rows of 8 views lie in some 60 shards, and a loop over shards is a loop
over rows. Numpy gathers rows of one array only, but that array need not be one piece of memory: `RowMap` looks
at the addresses of all shards through one array that begins at the lowest of them and has a row beginning at
every element. Only the rows that begin where a shard has one are ever read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


class RowMap:
    """Rows of one shape and type, wherever they lie.

    Args:
        shards: C-contiguous arrays (n, *shape) of one type; they are kept, and never copied.
        shard, row: integer arrays of one shape: where each entry of the map lies.
    """

    def __init__(
        self,
        shards: Sequence[npt.NDArray[Any]],
        shard: npt.NDArray[np.int64],
        row: npt.NDArray[np.int64],
    ) -> None:
        first = shards[0]
        self.shape = first.shape[1:]
        self.dtype = first.dtype
        self._shards = tuple(shards)  # what keeps the memory behind the addresses
        width = int(np.prod(self.shape))
        address = np.array([each.ctypes.data for each in shards], np.int64)
        lowest, end = int(address.min()), max(int(each.ctypes.data) + each.nbytes for each in shards)
        self._window = _window(lowest, (end - lowest) // self.dtype.itemsize - width + 1, width, self.dtype)
        self._start = (address - lowest)[shard] // self.dtype.itemsize + row * width

    def take(self, index: tuple[npt.NDArray[np.int64], ...]) -> npt.NDArray[Any]:
        """The rows at `index` of the map: (B, *shape), a copy."""
        rows: npt.NDArray[Any] = self._window[self._start[index]]
        return rows.reshape(-1, *self.shape)

    def take_columns(
        self, index: tuple[npt.NDArray[np.int64], ...], runs: Sequence[tuple[int, int]]
    ) -> npt.NDArray[Any]:
        """The same of flat rows, only the columns of `runs` (start, end), one behind the other."""
        start = self._start[index]
        return np.concatenate([self._window[start, a:b] for a, b in runs], 1)


class _Memory:
    """What numpy asks for an array's address, shape and strides."""

    def __init__(self, interface: dict[str, object]) -> None:
        self.__array_interface__ = interface


def _window(address: int, rows: int, width: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Read-only: row k is the `width` elements that begin k elements behind `address`."""
    interface = {
        "data": (address, True),
        "typestr": dtype.str,
        "shape": (rows, width),
        "strides": (dtype.itemsize, dtype.itemsize),
        "version": 3,
    }
    return np.asarray(_Memory(interface))


def runs_of(columns: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Column numbers as stretches (start, end) of consecutive ones, in their order."""
    if not columns.size:
        return []
    breaks = np.flatnonzero(np.diff(columns) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(columns, breaks)]
