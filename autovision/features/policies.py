"""RandAugment (Cubuk et al. 2020) and TrivialAugment (Müller & Hutter 2021), drawn by digest.

The operations are torchvision's, on uint8 images, with the magnitudes of its `RandAugment` and
`TrivialAugmentWide`. What is drawn comes from a SHA-256 of the image's digest and the view's name: torchvision's
own classes draw from torch's generator, which all threads of a process share. As in the usual recipes, a view is
mirrored with probability 1/2 before its operations.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from autovision.image import Pixels

LEVELS = 31
"""magnitudes are 0 to 30"""
RANDAUGMENT_OPERATIONS = 2

_FILL = [128, 128, 128]
"""what shows where an image was moved away: mid-grey, near every backbone's mean"""
_BILINEAR = InterpolationMode.BILINEAR


@dataclass(frozen=True)
class Step:
    """One operation with its argument, in the operation's own unit."""

    operation: str
    argument: float


@dataclass(frozen=True)
class Plan:
    """What is done to an image to make a view of it."""

    mirrored: bool
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class _Ranges:
    """The largest arguments of a policy's operations; those of the other levels are spread evenly below them."""

    shear: float
    """offset in pixels per pixel"""
    translate: float
    """share of the side"""
    rotate: float
    """degrees"""
    enhance: float
    """the factor is 1 plus or minus this"""
    posterize: int
    """bits that are dropped"""


_RANDAUGMENT = _Ranges(shear=0.3, translate=150 / 331, rotate=30.0, enhance=0.9, posterize=4)
_TRIVIALAUGMENT = _Ranges(shear=0.99, translate=32 / 224, rotate=135.0, enhance=0.99, posterize=6)


def _shifted(share: float, side: int) -> int:
    return int(share * side)


def _affine(
    image: Image.Image, *, translate: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0.0, 0.0)
) -> Image.Image:
    degrees = [float(np.rad2deg(np.arctan(part))) for part in shear]
    # Sheared about the upper left corner, as in the papers.
    moved: Image.Image = tv.affine(
        image,
        angle=0.0,
        translate=list(translate),
        scale=1.0,
        shear=degrees,
        interpolation=_BILINEAR,
        fill=_FILL,
        center=[0, 0] if any(shear) else None,
    )
    return moved


_PERFORM: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, _: image,
    "shear_x": lambda image, by: _affine(image, shear=(by, 0.0)),
    "shear_y": lambda image, by: _affine(image, shear=(0.0, by)),
    "translate_x": lambda image, by: _affine(image, translate=(_shifted(by, image.width), 0)),
    "translate_y": lambda image, by: _affine(image, translate=(0, _shifted(by, image.height))),
    "rotate": lambda image, by: tv.rotate(image, by, interpolation=_BILINEAR, fill=_FILL),
    "brightness": lambda image, by: tv.adjust_brightness(image, 1.0 + by),
    "color": lambda image, by: tv.adjust_saturation(image, 1.0 + by),
    "contrast": lambda image, by: tv.adjust_contrast(image, 1.0 + by),
    "sharpness": lambda image, by: tv.adjust_sharpness(image, 1.0 + by),
    "posterize": lambda image, bits: tv.posterize(image, int(bits)),
    "solarize": lambda image, threshold: tv.solarize(image, threshold),
    "autocontrast": lambda image, _: tv.autocontrast(image),
    "equalize": lambda image, _: tv.equalize(image),
}
OPERATIONS = tuple(_PERFORM)


def randaugment(image: str, view: str, magnitude: int) -> Plan:
    """Two operations of one magnitude (0 to 30), drawn for the image of that digest and the view of that name."""
    mirrored, *numbers = _numbers(image, view)
    steps = (
        _step(numbers[2 * i], numbers[2 * i + 1], magnitude, _RANDAUGMENT)
        for i in range(RANDAUGMENT_OPERATIONS)
    )
    return Plan(bool(mirrored % 2), tuple(steps))


def trivialaugment(image: str, view: str) -> Plan:
    """One operation, of a magnitude that is drawn, too."""
    mirrored, operation, sign, level, *_ = _numbers(image, view)
    return Plan(bool(mirrored % 2), (_step(operation, sign, level % LEVELS, _TRIVIALAUGMENT),))


def perform(plan: Plan, pixels: Pixels) -> Pixels:
    """The view that a plan makes of an image: uint8 (H, W, 3), of the same size."""
    image = Image.fromarray(pixels)
    if plan.mirrored:
        image = tv.horizontal_flip(image)
    for step in plan.steps:
        image = _PERFORM[step.operation](image, step.argument)
    return np.array(image)


def _numbers(image: str, view: str) -> tuple[int, ...]:
    """Eight numbers of 32 bits."""
    return struct.unpack("<8I", hashlib.sha256(f"{image}/{view}".encode()).digest())


def _step(operation: int, sign: int, level: int, ranges: _Ranges) -> Step:
    name, share = OPERATIONS[operation % len(OPERATIONS)], level / (LEVELS - 1)
    return Step(name, _argument(name, share, -1.0 if sign % 2 else 1.0, ranges))


def _argument(operation: str, share: float, sign: float, ranges: _Ranges) -> float:
    """`share` (0 to 1) of the range of an operation, in its own unit."""
    match operation:
        case "shear_x" | "shear_y":
            return sign * share * ranges.shear
        case "translate_x" | "translate_y":
            return sign * share * ranges.translate
        case "rotate":
            return sign * share * ranges.rotate
        case "brightness" | "color" | "contrast" | "sharpness":
            return sign * share * ranges.enhance
        case "posterize":
            return 8 - round(share * ranges.posterize)
        case "solarize":
            return 255.0 * (1 - share)
        case _:
            return 0.0
