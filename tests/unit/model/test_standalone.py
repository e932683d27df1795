"""What goes into exports does what this package does, and imports nothing of it."""

from __future__ import annotations

import ast
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autovision import image
from autovision.decisions import scores
from autovision.errors import InvalidImage
from autovision.model import standalone
from autovision.model.predictor import probabilities_of
from autovision.model.standalone import portable
from autovision.records.models import DecisionRule, Preprocessing

FOLDER = Path(standalone.__file__).parent


def noise(shape: tuple[int, ...], dtype: Any = np.uint8, most: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, most, shape).astype(dtype)


def bands(mode: str) -> Image.Image:
    return Image.merge(mode, [Image.fromarray(band) for band in noise((len(mode), 50, 40))])


def rotated(orientation: int) -> Image.Image:
    made = Image.fromarray(noise((50, 70, 3)))
    made.getexif()[0x0112] = orientation
    return made


def palette(transparent: bool) -> Image.Image:
    made = Image.fromarray(noise((40, 60, 3))).quantize(16)
    if transparent:
        made.info["transparency"] = 3
    return made


IMAGES: dict[str, tuple[Image.Image, str]] = {
    "rgb.png": (Image.fromarray(noise((90, 70, 3))), "PNG"),
    "rgb.jpg": (Image.fromarray(noise((90, 70, 3))), "JPEG"),
    "rgb.webp": (Image.fromarray(noise((90, 70, 3))), "WEBP"),
    "rgb.bmp": (Image.fromarray(noise((31, 70, 3))), "BMP"),
    "grey.png": (Image.fromarray(noise((90, 140))), "PNG"),
    "grey.tif": (Image.fromarray(noise((90, 140))), "TIFF"),
    "bits.png": (Image.fromarray(noise((64, 65))).convert("1"), "PNG"),
    "wide.png": (Image.fromarray(noise((10, 300, 3))), "PNG"),
    "tall.png": (Image.fromarray(noise((600, 9, 3))), "PNG"),
    "tiny.png": (Image.fromarray(noise((1, 1, 3))), "PNG"),
    "deep.png": (Image.fromarray(noise((40, 50), np.uint16, 65536)), "PNG"),
    "deep.tif": (Image.fromarray(noise((40, 50), np.int32, 65536)), "TIFF"),
    "float.tif": (Image.fromarray(np.random.default_rng(0).random((40, 50), np.float32)), "TIFF"),
    "clear.png": (Image.fromarray(noise((50, 40, 4))), "PNG"),
    "grey and clear.png": (bands("LA"), "PNG"),
    "cmyk.jpg": (bands("CMYK"), "JPEG"),
    "palette.gif": (palette(False), "GIF"),
    "palette with a hole.png": (palette(True), "PNG"),
    **{f"turned {number} by exif.jpg": (rotated(number), "JPEG") for number in range(1, 9)},
    "turned wrongly by exif.jpg": (rotated(77), "JPEG"),
    "damaged exif.png": (Image.fromarray(noise((50, 70, 3))), "PNG"),
}
DAMAGED_EXIF = b"Exif\x00\x00MM\x00*"

PREPROCESSINGS = [
    {"height": 64, "width": 64, "crop_pct": 0.875, "interpolation": "bicubic"},
    {"height": 33, "width": 33, "crop_pct": 0.9, "interpolation": "bilinear", "crop_mode": "squash"},
    {"height": 40, "width": 56, "crop_pct": 1.0, "interpolation": "lanczos"},
]


@pytest.mark.parametrize("fields", PREPROCESSINGS, ids=lambda fields: fields["interpolation"])
@pytest.mark.parametrize("name", IMAGES)
def test_pixels_are_those_that_evaluation_sees(name: str, fields: dict[str, Any], tmp_path: Path) -> None:
    made, kind = IMAGES[name]
    exif = DAMAGED_EXIF if name.startswith("damaged") else made.getexif()
    made.save(tmp_path / name, kind, **({"exif": exif} if " exif." in name else {}))
    prep = Preprocessing(**fields, mean=(0, 0, 0), std=(1, 1, 1))
    expected = image.load((tmp_path / name).read_bytes(), prep)
    np.testing.assert_array_equal(portable.pixels(tmp_path / name, prep.model_dump(mode="json")), expected)


@pytest.mark.parametrize("values", [np.full((4, 4), 70_000, np.int32), np.full((4, 4), 1.5, np.float32)])
def test_what_evaluation_refuses_is_refused(values: np.ndarray, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF")
    (tmp_path / "odd").write_bytes(buffer.getvalue())
    with pytest.raises(InvalidImage):
        image.decode(buffer.getvalue())
    with pytest.raises(ValueError, match="cannot be scaled"):
        portable.decoded(tmp_path / "odd")


RULES = [
    (DecisionRule(), False),
    (DecisionRule(kind="threshold", values=(0.2,), column=1), False),
    (DecisionRule(kind="threshold", values=(0.7,), column=0), False),
    (DecisionRule(kind="offsets", values=(0.5, -1.5)), False),
    (DecisionRule(kind="costs", costs=((0.0, 1.0), (7.0, 0.0))), False),
    (DecisionRule(), True),
    (DecisionRule(kind="thresholds", values=(0.2, 0.8)), True),
]


@pytest.mark.parametrize(("rule", "several"), RULES)
def test_answers_are_those_of_the_decision_rule(rule: DecisionRule, several: bool) -> None:
    logits = np.random.default_rng(1).normal(0, 3, (200, 2)).astype(np.float32)
    manifest = {
        "temperature": 1.7,
        "multi_label": several,
        "decision": rule.model_dump(mode="json"),
        "classes": ["a", "b"],
    }
    probabilities = probabilities_of(logits, 1.7, multi_label=several)
    decided = scores(rule, probabilities)
    for row, p, said in zip(logits, probabilities, decided, strict=True):
        label, of = portable.answer(row, manifest)
        assert list(of) == ["a", "b"]
        np.testing.assert_allclose(list(of.values()), p, rtol=1e-12)
        expected: Any = [name for name, s in zip("ab", said, strict=True) if s > 0.5]
        assert label == (expected if several else "ab"[said.argmax()])


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_nothing_of_this_package_is_imported(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {each.name.split(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None
            imported.add(node.module.split(".")[0])
    assert not imported & {"autovision", "timm", "ray"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("load_*.py")), ids=lambda path: path.stem)
def test_loaders_are_short(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 24
