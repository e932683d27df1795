"""What images look like, measured without a model."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from autovision.monitoring import quality
from autovision.monitoring.quality import FIGURES


def photo(seed=0, size=(120, 90)):
    rng = np.random.default_rng(seed)
    small = rng.integers(30, 220, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def png(image):
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def figures(image):
    return dict(zip(FIGURES, quality.measure([png(image)])[0], strict=True))


def test_size_and_aspect():
    found = figures(photo(size=(120, 90)))
    assert found["size"] == pytest.approx(np.log(10_800)) and found["aspect"] == pytest.approx(np.log(4 / 3))


@pytest.mark.parametrize(
    ("change", "figure", "up"),
    [
        (lambda image: image.filter(ImageFilter.GaussianBlur(3)), "sharpness", False),
        (lambda image: image.point(lambda v: min(255, v * 2)), "exposure", True),
        (lambda image: image.point(lambda v: min(255, v * 3)), "bright", True),
        (lambda image: image.point(lambda v: v // 30), "dark", True),
        (lambda image: image.point(lambda v: 128 + (v - 128) // 4), "contrast", False),
        (lambda image: image.convert("L").convert("RGB"), "colour", False),
        (
            lambda image: Image.merge("RGB", [image.getchannel(0).point(lambda v: 255), *image.split()[1:]]),
            "tint",
            True,
        ),
        (lambda image: Image.new("RGB", image.size, (9, 9, 9)), "empty", True),
        (lambda image: Image.fromarray(noisy(image)), "noise", True),
    ],
)
def test_a_change_shows_in_its_figure(change, figure, up):
    before, after = figures(photo()), figures(change(photo()))
    assert (after[figure] > before[figure]) == up and after[figure] != before[figure]


def noisy(image):
    grain = np.random.default_rng(0).normal(0, 25, (image.height, image.width, 1))
    return (np.asarray(image) + grain).clip(0, 255).astype(np.uint8)


def test_broken_files_are_told_and_stop_nothing():
    found = quality.measure([png(photo()), b"no image", b"", png(photo())[:200], png(photo(1))])
    assert found[:, FIGURES.index("broken")].tolist() == [0, 1, 1, 1, 0]
    assert np.isnan(found[1, 0]) and np.isfinite(found[[0, 4]]).all()
    filled = quality.complete(found, found)
    assert np.isfinite(filled).all() and filled[1, 0] == pytest.approx(found[0, 0])


@pytest.mark.parametrize("size", [(1, 1), (2, 200), (5000, 3), (7, 7), (2000, 1500)])
def test_any_size_is_measured(size):
    assert np.isfinite(quality.measure([png(Image.new("RGB", size, (90, 20, 200)))])).all()


def test_nothing_is_measured_of_nothing():
    assert quality.measure([]).shape == (0, len(FIGURES))


def test_what_is_odd_is_said_in_words():
    usual = quality.measure(png(photo(seed)) for seed in range(20))
    strange = quality.measure(
        [png(photo(21)), png(photo(2).point(lambda v: v // 30)), b"broken", png(photo(3, size=(900, 90)))]
    )
    said = quality.odd(strange, usual)
    assert said[2] == "the file is broken" and said[3].startswith(("aspect", "size")) and "usually" in said[3]
    assert said[1] and quality.odd(usual[:1], usual) == [""]
    assert quality.odd(strange, usual[:0]) == ["", "", "", ""]
