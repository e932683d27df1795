from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from autovision import duplicates
from autovision.duplicates import BITS, MOST_BITS, alike_by_hash, close, components, perceptual_hash


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Something with structure at every scale, as photographs have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0]))
    for cells in (4, 9, 20, 60):
        part = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32)).resize(size)
        total += np.asarray(part) / cells**0.5
    grey = (255 * (total - total.min()) / np.ptp(total)).astype(np.uint8)
    return Image.merge("RGB", [Image.fromarray(grey)] * 3)


def saved(image: Image.Image, **options: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return Image.open(buffer).convert("RGB")


def distance(a: Image.Image, b: Image.Image) -> int:
    return (int(perceptual_hash(a), 16) ^ int(perceptual_hash(b), 16)).bit_count()


@pytest.mark.parametrize(
    "changed",
    [
        lambda image: saved(image, quality=30),
        lambda image: image.resize((157, 120)),
        lambda image: image.resize((640, 640)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.7),
        lambda image: ImageEnhance.Contrast(image).enhance(0.6),
        lambda image: image.filter(ImageFilter.GaussianBlur(4)),
        lambda image: image.convert("L").convert("RGB"),
    ],
)
def test_the_same_photograph_saved_anew(changed) -> None:
    assert max(distance(scene(seed), changed(scene(seed))) for seed in range(3)) <= MOST_BITS


def test_other_photographs_and_views_of_the_same_are_not_near_duplicates() -> None:
    scenes = [scene(seed) for seed in range(12)]
    others = [distance(a, b) for i, a in enumerate(scenes) for b in scenes[:i]]
    assert min(others) > 3 * MOST_BITS
    assert distance(scenes[0], scenes[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > MOST_BITS


def test_an_image_of_one_colour_resembles_nothing() -> None:
    flat = [perceptual_hash(Image.new("RGB", (50, 50), (level, 9, 9))) for level in (0, 120)]
    assert flat == ["", ""]
    assert alike_by_hash({"a": "", "b": ""}, {"c": ""}).pairs == []


def test_pairs_are_found_exactly_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, (6, BITS))
    rows = np.concatenate([np.where(rng.random((9, BITS)) < 0.06, 1 - one, one) for one in base])
    hashes = {f"{i:02d}": np.packbits(row.astype(bool)).tobytes().hex() for i, row in enumerate(rows)}
    new, old = (
        {name: hashes[name] for name in sorted(hashes) if (name < "30") == first} for first in (True, False)
    )
    expected = {
        (a, b) for a in new for b in hashes if (a < b) and (rows[int(a)] != rows[int(b)]).sum() <= MOST_BITS
    }
    assert len(expected) > 20
    for size in (2048, 7):
        monkeypatch.setattr(duplicates, "_BLOCK", size)
        found = alike_by_hash(new, old).pairs
        assert {(pair.first, pair.second) for pair in found} == expected
    pair = found[0]
    assert f"differ in {(rows[int(pair.first)] != rows[int(pair.second)]).sum()} of 256" in pair.how
    assert list(close(np.empty((0, 4), np.float32), np.eye(4, dtype=np.float32), 0.5)) == []


def test_what_hangs_together() -> None:
    found = components("fabcde", [("a", "c"), ("e", "c"), ("b", "d"), ("a", "e")])
    assert found == [["a", "c", "e"], ["b", "d"], ["f"]]


def test_images_that_all_look_alike_are_not_put_together() -> None:
    """Such as those of a fixed camera: then they have to be more alike to be taken for the same."""
    rng = np.random.default_rng(0)
    base = rng.random(BITS) < 0.5
    series = {f"s{i:03d}": base ^ (rng.random(BITS) < 0.03) for i in range(200)}
    twins = {f"t{i}": series[f"s{i:03d}"] ^ (np.arange(BITS) == i) for i in range(5)}
    hashes = {name: np.packbits(bits).tobytes().hex() for name, bits in {**series, **twins}.items()}
    found = alike_by_hash(hashes, {})
    assert 0 < found.bits < MOST_BITS
    assert {(f"s{i:03d}", f"t{i}") for i in range(5)} <= {(pair.first, pair.second) for pair in found.pairs}
    alone = alike_by_hash(dict.fromkeys(hashes, hashes["t0"]), {})
    assert (alone.bits, alone.pairs) == (-1, [])
