"""What can be said of an image without a model: size, sharpness, light, colour, and whether there is anything on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autovision import image
from autovision.errors import InvalidImage
from autovision.monitoring.detectors.permutation import Floats

FIGURES = (
    "size",
    "aspect",
    "sharpness",
    "noise",
    "exposure",
    "contrast",
    "dark",
    "bright",
    "colour",
    "tint",
    "empty",
    "broken",
)
"""logarithm of the pixels; of width / height; of the Laplacian's standard deviation relative to the image's contrast;
of the standard deviation of noise (Immerkær 1996); mean brightness; its standard deviation; shares of black and of
white pixels; mean distance between the largest and smallest channel; mean red minus blue; share of blocks of 8 x 8
pixels on which there is nothing; 1 of an image that cannot be decoded. Brightness is from 0 to 1."""
VERSION = 1
"""grows when any of them comes to mean something else"""

_BROKEN = FIGURES.index("broken")
_LARGEST = 512
"""pixels of the shorter side that are looked at"""
_BLACK, _WHITE = 5, 250
_BLOCK = 8
_STILL = 2.0
_ODD = 0.25
"""of the usual range, beyond its end"""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def measure(images: Iterable[bytes], *, threads: int = 2) -> Floats:
    """(N, figures) of encoded images. One that is broken has NaN for what it does not show."""
    with ThreadPoolExecutor(threads, thread_name_prefix="quality") as pool:
        rows = list(pool.map(_of, images))
    return np.array(rows, np.float64).reshape(len(rows), len(FIGURES))


def complete(figures: Floats, like: Floats) -> Floats:
    """With the medians of `like` for what broken images do not show: they differ in being broken alone."""
    intact = like[np.isfinite(like).all(1)]
    middle = np.median(intact, axis=0) if len(intact) else np.zeros(len(FIGURES))
    filled: Floats = np.where(np.isfinite(figures), figures, middle)
    return filled


def odd(figures: Floats, usual: Floats) -> list[str]:
    """Of each image what is unusual about it, in words; empty of one that is like the usual ones."""
    intact = usual[np.isfinite(usual).all(1)]
    if not len(intact):
        return [""] * len(figures)
    low, high = np.quantile(intact, [0.005, 0.995], axis=0)
    unit = np.maximum(high - low, 1e-6)
    return [_odd(row, low, high, unit) for row in figures]


def _odd(row: Floats, low: Floats, high: Floats, unit: Floats) -> str:
    if row[_BROKEN]:
        return "the file is broken"
    beyond = np.maximum(low - row, row - high) / unit
    worst = int(beyond.argmax())
    if beyond[worst] <= _ODD:
        return ""
    return f"{FIGURES[worst]} {row[worst]:.3g}, usually {low[worst]:.3g} to {high[worst]:.3g}"


def _of(data: bytes) -> Sequence[float]:
    try:
        decoded = image.decode(data)
    except InvalidImage:
        return [1.0 if name == "broken" else float("nan") for name in FIGURES]
    width, height = decoded.size
    return [
        float(np.log(width * height)),
        float(np.log(width / height)),
        *_of_pixels(np.asarray(_scaled(decoded))),
        0.0,
    ]


def _scaled(decoded: Image.Image) -> Image.Image:
    scale = _LARGEST / min(decoded.size)
    if scale >= 1:
        return decoded
    size = max(1, round(decoded.width * scale)), max(1, round(decoded.height * scale))
    # What is much longer than wide would stay large: its middle tells as much.
    resized = decoded.resize(size, Image.Resampling.BOX)
    left, top = max(0, (size[0] - 2 * _LARGEST) // 2), max(0, (size[1] - 2 * _LARGEST) // 2)
    return resized.crop((left, top, size[0] - left, size[1] - top))


def _of_pixels(pixels: NDArray[np.uint8]) -> list[float]:
    grey = pixels.astype(np.float32) @ _LUMA
    contrast = float(grey.std())
    if min(grey.shape) >= 3:
        across = grey[:, :-2] - 2 * grey[:, 1:-1] + grey[:, 2:]
        down = grey[:-2] - 2 * grey[1:-1] + grey[2:]
        laplacian = float((across[1:-1] + down[:, 1:-1]).std())
        mixed = across[:-2] - 2 * across[1:-1] + across[2:]
        noise = float(np.abs(mixed).mean()) * np.sqrt(np.pi / 2) / 6
    else:
        laplacian = noise = 0.0
    rows, columns = (side // _BLOCK * _BLOCK for side in grey.shape)
    blocks = grey[:rows, :columns].reshape(max(rows // _BLOCK, 0), _BLOCK, max(columns // _BLOCK, 0), _BLOCK)
    still = float((blocks.std((1, 3)) < _STILL).mean()) if blocks.size else float(contrast < _STILL)
    spread = pixels.max(2).astype(np.float32) - pixels.min(2)
    return [
        float(np.log((laplacian + 0.1) / (contrast + 1.0))),
        float(np.log(noise + 0.1)),
        float(grey.mean()) / 255,
        contrast / 255,
        float((grey <= _BLACK).mean()),
        float((grey >= _WHITE).mean()),
        float(spread.mean()) / 255,
        float(pixels[..., 0].mean() - pixels[..., 2].mean()) / 255,
        still,
    ]
