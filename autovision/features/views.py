"""Which views of an image training may draw from, and what each of them shows.

A view has a name: `identity`, `flip:1`, `crop:4`, `randaugment9:3`, `trivialaugment:17`. What it shows depends on
the pixels, the image's digest and that name alone, whoever makes it, with whatever other images, in any order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autovision import image
from autovision.errors import InvalidInput
from autovision.features import policies
from autovision.image import Pixels
from autovision.space.config import RANDOM_AUGMENTATIONS, Augmentation

IDENTITY = "identity"
MOST_VIEWS = 2**31
"""indices of views that are drawn afresh are below this"""

_NAME = re.compile(r"(flip|dihedral|crop|randaugment|trivialaugment)(\d*):(\d+)")


@dataclass(frozen=True)
class Views:
    """Which views of an image training may draw from. The first one, index 0, is always the image itself."""

    augmentation: Augmentation = "none"
    magnitude: int = 9
    """of `randaugment`, 1 to 30"""
    count: int = 0
    """of a random augmentation: how many views besides the image itself; 0: drawn afresh, without limit"""

    @property
    def number(self) -> int | None:
        """How many there are, the image itself included; None: without limit."""
        if self.augmentation not in RANDOM_AUGMENTATIONS:
            return image.view_count(self.augmentation)
        return self.count + 1 if self.count else None

    def name(self, index: int) -> str:
        """The name of view number `index`. Raises `InvalidInput` if there is none."""
        if not 0 <= index < (self.number or MOST_VIEWS):
            raise InvalidInput(
                f"augmentation {self.augmentation!r} has {self.number or MOST_VIEWS} views, and none of number {index}"
            )
        if index == 0:
            return IDENTITY
        magnitude = str(self.magnitude) if self.augmentation == "randaugment" else ""
        return f"{self.augmentation}{magnitude}:{index}"

    def names(self) -> list[str]:
        """All names in order, for views of a limited number."""
        assert self.number is not None
        return [self.name(index) for index in range(self.number)]


def apply(pixels: Pixels, images: Sequence[str], name: str) -> Pixels:
    """The view of that name of every image: uint8 (N, H, W, 3); the identity comes without a copy.

    Args:
        pixels: uint8 (N, H, W, 3).
        images: their digests, which random views are drawn by.
    """
    if name == IDENTITY:
        return pixels
    augmentation, magnitude, index = _parsed(name)
    match augmentation:
        case "randaugment":
            draw = [policies.randaugment(one, name, int(magnitude)) for one in images]
        case "trivialaugment":
            draw = [policies.trivialaugment(one, name) for one in images]
        case _:
            return np.ascontiguousarray(image.apply_view(pixels, augmentation, int(index)))
    made = [policies.perform(plan, one) for plan, one in zip(draw, pixels, strict=True)]
    return np.stack(made) if made else pixels


def _parsed(name: str) -> tuple[str, str, str]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidInput(f"{name!r} names no view; names are made by `Views.name`")
    return match[1], match[2], match[3]
