"""Sizes as people write them: `20GB`, `512 MiB`."""

from __future__ import annotations

import re

from autovision.errors import InvalidInput

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str, variable: str) -> int:
    """A size such as `20GB`, `512 MiB` or `1000000`. Raises `InvalidInput` that names `variable`, its place."""
    match = _SIZE.fullmatch(text)
    if match is None or match[2].upper() not in _UNITS:
        raise InvalidInput(
            f"{variable} is {text!r}, which is no size; write a number of bytes, or one with a unit "
            f"({', '.join(list(_UNITS)[1:])}), such as 20GB"
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


def readable(size: int) -> str:
    """`987 MB`"""
    for unit in ("GB", "MB", "KB"):
        if size >= _UNITS[unit]:
            return f"{size / _UNITS[unit]:.3g} {unit}"
    return f"{size} bytes"
