"""Corruptions: the same for whoever asks, mild, and none like another."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from autovision.errors import InvalidInput
from autovision.registry.corruptions import KINDS, corrupted

DIGEST = "ab" * 32


def picture(size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Smooth, with edges, as photographs are."""
    x, y = np.meshgrid(np.linspace(0, 3, size[0]), np.linspace(0, 2, size[1]))
    waves = 127 + 70 * np.sin(4 * x) * np.cos(5 * y) + 30 * (x > 1.5)
    return Image.fromarray(np.stack([waves, waves, waves], -1).clip(0, 255).astype(np.uint8))


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_changes_an_image_a_little_and_always_alike(kind: str) -> None:
    image = picture()
    found = corrupted(image, DIGEST, kind)
    assert (found.size, found.mode) == (image.size, "RGB")
    # JPEG keeps what is smooth; blurring, as all others, is still seen by a person as the same picture.
    assert 0.2 < difference(image, found) < 60
    assert difference(found, corrupted(picture(), DIGEST, kind)) == 0
    assert difference(image, picture()) == 0, "the image itself is left alone"


def test_what_is_random_follows_from_the_image() -> None:
    image = picture()
    digests = [f"{number:064x}" for number in range(1, 200 << 240, 10 << 240)]
    noises = [corrupted(image, digest, "noise") for digest in digests[:2]]
    assert difference(*noises) > 5
    for kind in ("exposure", "rotation"):
        found = {corrupted(image, digest, kind).tobytes() for digest in digests}
        assert len(found) == 2, "either brighter or darker, to the left or to the right"


def test_exposure_is_a_factor_and_noise_is_grey() -> None:
    image = Image.new("RGB", (64, 64), (100, 50, 20))
    assert corrupted(image, DIGEST, "exposure").getpixel((5, 5)) in {(140, 70, 28), (71, 36, 14)}
    noise = np.asarray(corrupted(image, DIGEST, "noise"), np.int64) - np.asarray(image, np.int64)
    assert 0.9 * 255 * 0.08 < noise[..., 0].std() < 1.1 * 255 * 0.08
    np.testing.assert_array_equal(noise[..., 0], noise[..., 0])
    assert np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1] > 0.99


def test_a_rotation_leaves_no_empty_corners() -> None:
    white = Image.new("RGB", (200, 40), (255, 255, 255))
    assert np.asarray(corrupted(white, DIGEST, "rotation")).min() == 255


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (1500, 900)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_size_can_be_corrupted_and_a_large_image_is_scaled_down(kind: str, size: tuple[int, int]) -> None:
    found = corrupted(picture(size), DIGEST, kind)
    assert min(found.size) == min(512, *size)
    assert found.size[0] / found.size[1] == pytest.approx(size[0] / size[1], rel=0.01)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no corruption 'fog'; use one of noise, blur"):
        corrupted(picture(), DIGEST, "fog")
