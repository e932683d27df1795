"""From an image file to a network's pixels, and from its logits to an answer, as manifest.json says."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
TRANSPOSE = Image.Transpose
UPRIGHT = {
    2: TRANSPOSE.FLIP_LEFT_RIGHT,
    3: TRANSPOSE.ROTATE_180,
    4: TRANSPOSE.FLIP_TOP_BOTTOM,
    5: TRANSPOSE.TRANSPOSE,
    6: TRANSPOSE.ROTATE_270,
    7: TRANSPOSE.TRANSVERSE,
    8: TRANSPOSE.ROTATE_90,
}
"""EXIF orientation -> what shows the image upright"""


def checked_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json; raises ValueError if a file of the folder is not the one that it names."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for name, digest in manifest["files"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise ValueError(
                f"{folder / name} does not match its checksum in manifest.json; export the model again"
            )
    return manifest


def pixels(path: str | Path, preprocessing: dict[str, Any]) -> np.ndarray:
    """uint8 (height, width, 3): the shorter side scaled (or both, with `squash`), the centre cropped."""
    image = decoded(path)
    height, width, crop = preprocessing["height"], preprocessing["width"], preprocessing["crop_pct"]
    tall, wide = math.floor(height / crop), math.floor(width / crop)
    if preprocessing["crop_mode"] != "squash":
        if tall != wide:
            ratio = min(image.height / tall, image.width / wide)
            tall, wide = round(image.height / ratio), round(image.width / ratio)
        elif image.height <= image.width:
            wide = int(tall * image.width / image.height)
        else:
            tall = int(wide * image.height / image.width)
    method = Image.Resampling[preprocessing["interpolation"].upper()]
    top, left = round((tall - height) / 2), round((wide - width) / 2)
    if max(tall, wide) <= 8 * min(tall, wide):
        return np.array(image.resize((wide, tall), method).crop((left, top, left + width, top + height)))
    x, y = image.width / wide, image.height / tall  # of a long thin image, only what the crop keeps
    right, bottom = min((left + width) * x, image.width), min((top + height) * y, image.height)
    return np.array(image.resize((width, height), method, box=(left * x, top * y, right, bottom)))


def decoded(path: str | Path) -> Image.Image:
    """The image in a file, upright, in mode RGB with 8 bits a channel; transparency on white."""
    with Image.open(path, formats=FORMATS) as opened:
        opened.load()
        try:
            said = opened.getexif().get(0x0112)
        except Exception:  # noqa: BLE001 - damaged EXIF data says nothing about the pixels
            said = None
        turn = UPRIGHT.get(said) if isinstance(said, int) else None
        image: Image.Image = opened.copy() if turn is None else opened.transpose(turn)
    if image.mode.startswith("I") or image.mode == "F":
        most = 1.0 if image.mode == "F" else 65535
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= most):
            raise ValueError(
                f"{path} has values outside of 0 to {most}, which cannot be scaled; save it with 8 bits"
            )
        if image.mode == "F":
            image = Image.fromarray(np.rint(values * 255).astype(np.uint8))
        else:
            image = Image.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
    elif image.has_transparency_data:
        layered = image.convert("RGBA")
        image = Image.new("RGB", layered.size, (255, 255, 255))
        image.paste(layered, mask=layered.getchannel("A"))
    return image.convert("RGB")


def answer(logits: np.ndarray, manifest: dict[str, Any]) -> tuple[str | list[str], dict[str, float]]:
    """The label (labels, where an image may have any number) for logits (C,), and each class's probability."""
    scaled = np.asarray(logits / manifest["temperature"], dtype=np.float64)
    p = np.exp(-np.logaddexp(0, -scaled)) if manifest["multi_label"] else softmax(scaled)
    said, classes = scores(manifest["decision"], p), manifest["classes"]
    label = [name for name, s in zip(classes, said, strict=True) if s > 0.5]
    return (
        label if manifest["multi_label"] else classes[int(said.argmax())],
        dict(zip(classes, p.tolist(), strict=True)),
    )


def scores(rule: dict[str, Any], p: np.ndarray) -> np.ndarray:
    """(C,) of which the largest is the answer, or with several labels those above one half."""
    values, column = np.array(rule["values"]), rule["column"]
    if rule["kind"] == "threshold":
        above = moved(p[column], values[0])
        return np.where(np.arange(len(p)) == column, above, 1 - above)
    if rule["kind"] == "thresholds":
        return moved(p, values)
    if rule["kind"] == "offsets":
        return softmax(np.log(np.maximum(p, np.finfo(np.float64).tiny)) + values)
    if rule["kind"] == "costs":
        costs = np.array(rule["costs"])
        return softmax(-(p @ costs) / costs.max())
    return p


def moved(p: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Probabilities whose odds are such that what was at the threshold is at one half."""
    above, below = p * (1 - threshold), (1 - p) * threshold
    shares: np.ndarray = above / (above + below)
    return shares


def softmax(x: np.ndarray) -> np.ndarray:
    shifted = np.exp(x - x.max())
    shares: np.ndarray = shifted / shifted.sum()
    return shares
