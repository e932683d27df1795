"""Licences of pretrained weights: how they are named, and which ones somebody allows.

A licence is an SPDX identifier (`Apache-2.0`; https://spdx.org/licenses) or a name of that form; case does not
matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from autovision.errors import InvalidInput

NOT_NEEDED = "none"
"""of random weights: they are nobody's"""
UNKNOWN = "unknown"

_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,99}")


def check(license_: str) -> str:
    """`license_` if it has the form of an SPDX identifier; else an `InvalidInput`."""
    if not _FORM.fullmatch(license_):
        raise InvalidInput(
            f"{license_!r} is not the name of a licence; give an SPDX identifier such as Apache-2.0 or CC-BY-NC-4.0"
        )
    return license_


def parse(names: Iterable[str]) -> tuple[str, ...]:
    """Allowed licences in one form: each once, in lower case, sorted. Names may be separated by commas, too.

    Raises `InvalidInput` for what cannot be a licence's name.
    """
    single = [part.strip() for name in names for part in name.split(",")]
    return tuple(sorted({check(part).lower() for part in single}))


def permits(allowed: Iterable[str], license_: str) -> bool:
    """Whether weights under `license_` may be used where only `allowed` (see `parse`) is; empty: anything may."""
    allowed = tuple(allowed)
    return not allowed or license_ == NOT_NEEDED or license_.lower() in allowed
