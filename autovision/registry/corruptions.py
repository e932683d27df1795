"""What may happen to a camera's images one day, each at one fixed severity (after Hendrycks & Dietterich 2019).

    noise      Gaussian, the same in all channels, as grain is
    blur       Gaussian, of a lens that is out of focus or dirty
    exposure   all values brighter or darker by the same factor
    jpeg       compressed until blocks can be seen
    rotation   a few degrees, to either side; the corners are filled with mirrored image

A corruption depends on the image's digest and its kind alone, so that all models see the same one. They are mild on
purpose: a person still sees what the image shows.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from autovision.errors import InvalidInput
from autovision.records.base import digest_of

SEVERITIES = {
    "noise": 0.08,
    "blur": 0.006,
    "exposure": 1.4,
    "jpeg": 20.0,
    "rotation": 6.0,
}
"""kind -> standard deviation, of the largest value; standard deviation, of the shorter side, and at least one pixel;
factor; Pillow's quality; degrees"""
KINDS = tuple(SEVERITIES)
_LARGEST = 512
"""pixels of the shorter side that are corrupted: noise and blur of a large image vanish when it is scaled down"""
SUITE = digest_of([SEVERITIES, _LARGEST, "PCG64 by digest and kind"])
"""tells apart what came of other corruptions than these"""


def corrupted(image: Image.Image, digest: str, kind: str, severity: float | None = None) -> Image.Image:
    """The image with a corruption; an image with a shorter side of more than 512 pixels is scaled down first.

    Args:
        image: in mode RGB.
        digest: SHA-256 of its bytes, in hex: what is random follows from it.
        severity: in the unit of `SEVERITIES`; None: the one there.

    Raises:
        InvalidInput: no such kind.
    """
    if kind not in _MAKE:
        raise InvalidInput(f"no corruption {kind!r}; use one of {', '.join(KINDS)}")
    rng = np.random.default_rng([int(digest[:16], 16), KINDS.index(kind)])
    return _MAKE[kind](_scaled(image), SEVERITIES[kind] if severity is None else severity, rng)


def _scaled(image: Image.Image) -> Image.Image:
    scale = _LARGEST / min(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _noise(image: Image.Image, sd: float, rng: np.random.Generator) -> Image.Image:
    grain = rng.standard_normal((image.height, image.width, 1), dtype=np.float32) * np.float32(255 * sd)
    return Image.fromarray(np.rint(np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def _blur(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(max(1.0, share * min(image.size))))


def _exposure(image: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
    by = factor if rng.random() < 0.5 else 1 / factor
    table = np.rint(by * np.arange(256)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(table[np.asarray(image)])


def _jpeg(image: Image.Image, quality: float, rng: np.random.Generator) -> Image.Image:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=int(quality))
    return Image.open(sink).convert("RGB")


def _rotation(image: Image.Image, degrees: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image)
    # As much beyond each edge as the corners of the rotated image reach.
    margin = int(np.ceil(np.sin(np.radians(degrees)) * max(image.size) / 2)) + 1
    padded = Image.fromarray(np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric"))
    turned = padded.rotate(degrees if rng.random() < 0.5 else -degrees, Image.Resampling.BICUBIC)
    return turned.crop((margin, margin, margin + image.width, margin + image.height))


_MAKE: dict[str, Callable[[Image.Image, float, np.random.Generator], Image.Image]] = {
    "noise": _noise,
    "blur": _blur,
    "exposure": _exposure,
    "jpeg": _jpeg,
    "rotation": _rotation,
}
