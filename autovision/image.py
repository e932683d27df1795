"""From image bytes to the pixels that a network sees: the one path of training, evaluation and serving.

    decode      bytes -> an RGB image, upright, 8 bits a channel; or `InvalidImage`
    preprocess  an RGB image -> the (height, width, 3) pixels of a model's input
    load        both at once
    apply_view  pixels -> pixels: the deterministic augmentations that training may draw from

Normalization (mean, standard deviation) happens inside the compiled network.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from autovision.errors import ImageTooLarge, InvalidImage, InvalidInput, near
from autovision.records.models import Preprocessing

Pixels = npt.NDArray[np.uint8]

MAX_BYTES = 64 << 20
MAX_PIXELS = 50_000_000
EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
"""file names that end so, in lower case, are taken for images"""
BACKGROUND = (255, 255, 255)
"""what shows through transparent pixels: white, as in the viewers and pages where people label images"""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_PLUGINS = (
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
    BmpImagePlugin,
    TiffImagePlugin,
    GifImagePlugin,
)  # importing them is what registers the formats
_PILLOW_MODULES = r"PIL\."
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LONG = 8
"""ratio of the sides above which an image is not resized as a whole"""
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


# ------------------------------------------------------------------------------------------------ decoding


def decode(data: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image in `data`, upright by its EXIF orientation, in mode RGB with 8 bits a channel.

    JPEG, PNG, WebP, BMP, TIFF and GIF; of several frames or pages the first. How other modes become RGB:

    - 16-bit grey: 0 to 65535 becomes 0 to 255, rounded; 16-bit colour keeps its upper eight bits.
    - 32-bit integers: the same, if all values are within 0 to 65535; else refused.
    - 32-bit floats: 0.0 to 1.0 becomes 0 to 255, rounded; other values are refused.
    - transparency (alpha channel or transparent colour): composited on `BACKGROUND`.
    - 1-bit, grey, palette, CMYK, YCbCr: as Pillow converts them. Colour profiles are not applied.

    The size is read from the header, so an image over the limit is refused before it is decoded.

    Raises:
        ImageTooLarge: more than `max_bytes` bytes or `max_pixels` pixels (width times height).
        InvalidImage: not one of the formats, truncated, damaged, or values that cannot be scaled.
    """
    decoded = _decode(data, max_bytes, max_pixels)
    return decoded if decoded.mode == "RGB" else decoded.convert("RGB")


def _decode(data: bytes, max_bytes: int, max_pixels: int) -> Image.Image:
    """`decode`, but grey images stay in mode L: a third of the work for what comes next."""
    if len(data) > max_bytes:
        raise ImageTooLarge(
            f"the image file has {len(data):,} bytes, and {max_bytes:,} are allowed; scale the image down"
        )
    _hush_pillow()
    try:
        opened = _open(data)
        _check_size(opened, max_pixels)
        opened.load()
        return _to_8_bit(_upright(opened))
    except InvalidImage:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(
            f"the image has more than the {max_pixels:,} pixels that are allowed ({_reason(error)}); "
            "scale it down"
        ) from error
    except Exception as error:  # Pillow's parsers answer hostile bytes with almost any type of exception
        raise InvalidImage(
            f"the image cannot be decoded: {_reason(error)}; it is damaged or incomplete: save it anew"
        ) from error


def _hush_pillow() -> None:
    """Pillow warns of what it forgives, such as odd metadata; here an image is taken or refused, no more.

    `warnings.catch_warnings` swaps the filters of the whole process and is not safe in threads.
    """
    if not any(getattr(entry[3], "pattern", None) == _PILLOW_MODULES for entry in warnings.filters):
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES)


def _open(data: bytes) -> ImageFile.ImageFile:
    """Parse the header. The formats are opened directly: `Image.open` would warn of sizes below our limit."""
    if not data:
        raise InvalidImage("the image file is empty; save or send it again")
    for name in _FORMATS:
        factory, accepts = Image.OPEN[name]
        if accepts is None or accepts(data[:16]) is True:
            return factory(io.BytesIO(data), "")
    raise InvalidImage(
        f"this is not a JPEG, PNG, WebP, BMP, TIFF or GIF file, whatever its name says: it begins with "
        f"{data[:12]!r}; convert it to one of these formats"
    )


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise InvalidImage(f"the image is {width} by {height} pixels; save it anew")
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"the image is {width:,} by {height:,} pixels, {width * height:,} in all, and {max_pixels:,} are "
            "allowed; scale it down"
        )


def _upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation wants it shown. Damaged EXIF data says nothing about the pixels."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
        transpose = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    except Exception:  # noqa: BLE001 - the parser raises almost any type on damaged data
        return image
    return image if transpose is None else image.transpose(transpose)


def _to_8_bit(image: Image.Image) -> Image.Image:
    """In mode RGB or L, and without what the file's format left in `info`."""
    if image.mode.startswith("I;16"):
        return _from_16_bit(np.asarray(image))
    if image.mode == "I":
        return _from_32_bit(np.asarray(image))
    if image.mode == "F":
        return _from_float(np.asarray(image))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", rgba.size, BACKGROUND)
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    plain = image if image.mode in ("RGB", "L") else image.convert("RGB")
    bare = plain.crop((0, 0, *plain.size))
    bare.info = {}
    return bare


def _from_16_bit(values: npt.NDArray[Any]) -> Image.Image:
    wide = values.astype(np.uint32)
    return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))


def _from_32_bit(values: npt.NDArray[Any]) -> Image.Image:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InvalidImage(
            f"the image has 32-bit integers from {low} to {high}, of which only 0 to 65535 can be scaled; "
            "save it with 8 or 16 bits"
        )
    return _from_16_bit(values)


def _from_float(values: npt.NDArray[Any]) -> Image.Image:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 1.0):  # also false for NaN
        raise InvalidImage(
            f"the image has floating-point values from {low:g} to {high:g}, of which only 0 to 1 can be "
            "scaled; bring them to that range, or save it with 8 or 16 bits"
        )
    return Image.fromarray(np.rint(values * 255).astype(np.uint8))


def _reason(error: Exception) -> str:
    """One short line of an exception's message, without the addresses of buffers."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(" <")[0][:160]


# ------------------------------------------------------------------------------------------- preprocessing


def preprocess(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """The pixels of a model's input: uint8 (height, width, 3).

    The geometry is that of timm's evaluation transform: the shorter side (with `crop_mode="squash"`, each side)
    becomes floor(size / crop_pct) with an antialiased filter, and the centre is cropped. It is equal to timm's
    bit by bit, except for images longer than eight times their breadth: there only the cropped part is computed,
    which may turn a rounding.

    Args:
        image: in mode RGB, as `decode` gives it; or in mode L, with the same result for less work.

    Raises:
        InvalidInput: an unknown interpolation, or `crop_pct` not within 0 to 1.
    """
    filter_ = _RESAMPLING.get(preprocessing.interpolation)
    if filter_ is None:
        raise InvalidInput(
            f"unknown interpolation {preprocessing.interpolation!r}; use one of {', '.join(_RESAMPLING)}"
            + near(preprocessing.interpolation, _RESAMPLING)
        )
    if not 0 < preprocessing.crop_pct <= 1:
        raise InvalidInput(f"crop_pct is {preprocessing.crop_pct:g}; use a value above 0 and at most 1")
    height, width = preprocessing.height, preprocessing.width
    new_height, new_width = _resized(image.height, image.width, preprocessing)
    # The rounding of torchvision's centre crop: half to even.
    top, left = round((new_height - height) / 2), round((new_width - width) / 2)
    if max(new_height, new_width) <= _LONG * min(new_height, new_width):
        resized = image.resize((new_width, new_height), filter_)
        return _pixels(resized.crop((left, top, left + width, top + height)))
    # Of a long thin image, only what the crop keeps: all of it may be a thousand times larger.
    x_scale, y_scale = image.width / new_width, image.height / new_height
    right, bottom = (left + width) * x_scale, (top + height) * y_scale
    # The product may exceed the image by its last bit, which Pillow refuses.
    box = (left * x_scale, top * y_scale, min(right, image.width), min(bottom, image.height))
    return _pixels(image.resize((width, height), filter_, box=box))


def _pixels(image: Image.Image) -> Pixels:
    values = np.array(image)
    return values if values.ndim == 3 else np.repeat(values[:, :, None], 3, axis=2)


def load(data: bytes, preprocessing: Preprocessing) -> Pixels:
    """The same as `preprocess(decode(data), preprocessing)`, and faster for grey images."""
    return preprocess(_decode(data, MAX_BYTES, MAX_PIXELS), preprocessing)


def _resized(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width of the whole image after timm's resize."""
    target_height = math.floor(preprocessing.height / preprocessing.crop_pct)
    target_width = math.floor(preprocessing.width / preprocessing.crop_pct)
    if preprocessing.crop_mode == "squash":
        return target_height, target_width
    if target_height != target_width:
        ratio = min(height / target_height, width / target_width)
        return round(height / ratio), round(width / ratio)
    if height <= width:
        return target_height, int(target_height * width / height)
    return int(target_width * height / width), target_width


# -------------------------------------------------------------------------------------------------- views


@dataclass(frozen=True)
class View:
    """One deterministic augmentation. The steps are applied in the order of the fields."""

    flip: bool = False
    """mirrored left to right"""
    quarter_turns: int = 0
    """counter-clockwise"""
    crop: tuple[float, float, float] | None = None
    """top, left and side of the part that is kept, as fractions of height and width; resized bilinearly to
    the full size; None: all of it"""
    brightness: float = 1.0
    """factor of the values"""
    contrast: float = 1.0
    """factor of the distance from mid-grey (128), after brightness"""


_IDENTITY = View()
VIEWS: dict[str, tuple[View, ...]] = {
    "none": (_IDENTITY,),
    "flip": (_IDENTITY, View(flip=True)),
    # The symmetries of the square: for images without a natural up and left, such as wafers or aerial views.
    "dihedral": tuple(
        View(flip=bool(flip), quarter_turns=turns)
        for flip, turns in [(0, 0), (1, 0), (0, 2), (1, 2), (0, 1), (0, 3), (1, 1), (1, 3)]
    ),
    "crop": (
        _IDENTITY,
        View(flip=True, crop=(0.10, 0.10, 0.80), contrast=1.15),
        View(crop=(0.00, 0.00, 0.75), brightness=1.10),
        View(flip=True, crop=(0.00, 0.25, 0.75), brightness=0.90),
        View(crop=(0.25, 0.25, 0.75), contrast=0.85),
        View(flip=True, crop=(0.25, 0.00, 0.75), brightness=1.05, contrast=1.10),
    ),
}
"""augmentation -> its views; the first one is always the image itself"""


def view_count(augmentation: str) -> int:
    """How many views an augmentation has, the identity included. Raises `InvalidInput` for an unknown one."""
    return len(_views(augmentation))


def apply_view(pixels: Pixels, augmentation: str, index: int) -> Pixels:
    """View number `index` of the image or images: the same shape, uint8, contiguous.

    The identity is returned as it came, without a copy.

    Args:
        pixels: uint8 (H, W, 3) or (N, H, W, 3).

    Raises:
        InvalidInput: an unknown augmentation or index, other pixels, or a quarter turn of an image that
            is not square.
    """
    views = _views(augmentation)
    if not 0 <= index < len(views):
        raise InvalidInput(f"augmentation {augmentation!r} has views 0 to {len(views) - 1}, and not {index}")
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[-1] != 3:
        raise InvalidInput(f"views are made of uint8 (N, H, W, 3), and not of {pixels.dtype} {pixels.shape}")
    view = views[index]
    if view == _IDENTITY:
        return pixels
    if view.quarter_turns % 2 and pixels.shape[-3] != pixels.shape[-2]:
        raise InvalidInput(
            f"augmentation {augmentation!r} needs square images, and not {pixels.shape[-3]} by "
            f"{pixels.shape[-2]}; use 'flip' or 'crop'"
        )
    if view.flip:
        # Twice as fast as a copy of `pixels[..., ::-1, :]`.
        pixels = np.take(pixels, np.arange(pixels.shape[-2] - 1, -1, -1), axis=-2)
    if view.quarter_turns:
        pixels = np.rot90(pixels, view.quarter_turns, axes=(-3, -2))
    pixels = np.ascontiguousarray(pixels)
    if view.crop is not None:
        pixels = _zoomed(pixels, *view.crop)
    table = _tone(view.brightness, view.contrast)
    return pixels if table is None else np.take(table, pixels)


def _views(augmentation: str) -> tuple[View, ...]:
    if augmentation not in VIEWS:
        raise InvalidInput(
            f"unknown augmentation {augmentation!r}; use one of {', '.join(VIEWS)}{near(augmentation, VIEWS)}"
        )
    return VIEWS[augmentation]


def _zoomed(pixels: Pixels, top: float, left: float, side: float) -> Pixels:
    if pixels.ndim == 4:
        return np.stack([_zoomed(image, top, left, side) for image in pixels]) if len(pixels) else pixels
    height, width = pixels.shape[:2]
    box = (left * width, top * height, min((left + side) * width, width), min((top + side) * height, height))
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box=box))


def _tone(brightness: float, contrast: float) -> Pixels | None:
    """What each of the 256 values becomes; None if nothing changes."""
    if brightness == contrast == 1.0:
        return None
    values = 128 + contrast * (brightness * np.arange(256) - 128)
    table: Pixels = np.rint(values.clip(0, 255)).astype(np.uint8)
    return table
