"""Pixels of stored images."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from autovision import image
from autovision.dataset import manifest
from autovision.dataset.importer import import_dataset
from autovision.dataset.loader import iter_pixels, load_pixels
from autovision.errors import CorruptObject
from autovision.records.models import Preprocessing
from autovision.store import keys
from autovision.store.memory import MemoryStore
from autovision.store.protocol import KeyNotFound

HALF = (0.5, 0.5, 0.5)
PREPROCESSING = Preprocessing(height=8, width=6, crop_pct=0.9, interpolation="bicubic", mean=HALF, std=HALF)


@pytest.fixture
def digests(store: MemoryStore, folder: Path) -> list[str]:
    return [row.image for row in manifest.read(store, import_dataset(store, folder, "pets"))]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_pixels_are_those_of_serving_in_order(store: MemoryStore, digests: list[str], threads: int) -> None:
    wanted = [*digests[::-1], digests[0]]
    pixels = load_pixels(store, wanted, PREPROCESSING, threads=threads)
    assert pixels.shape == (33, 8, 6, 3) and pixels.dtype == np.uint8
    for digest, one in zip(wanted, pixels, strict=True):
        served = image.preprocess(image.decode(store.get(keys.image(digest)).data), PREPROCESSING)
        assert np.array_equal(one, served)


@pytest.mark.parametrize("chunk", [1, 5, 32, 100])
def test_in_chunks(store: MemoryStore, digests: list[str], chunk: int) -> None:
    pieces = list(iter_pixels(store, digests, PREPROCESSING, threads=2, chunk=chunk))
    assert [digest for piece, _ in pieces for digest in piece] == digests
    assert max(len(pixels) for _, pixels in pieces) == min(chunk, 32)
    together = np.concatenate([pixels for _, pixels in pieces])
    assert np.array_equal(together, load_pixels(store, digests, PREPROCESSING, threads=2))


def test_a_consumer_that_stops_early(store: MemoryStore, digests: list[str]) -> None:
    for piece, _ in iter_pixels(store, digests, PREPROCESSING, threads=2, chunk=4):
        assert list(piece) == digests[:4]
        break


def test_no_images(store: MemoryStore) -> None:
    assert load_pixels(store, [], PREPROCESSING, threads=2).shape == (0, 8, 6, 3)
    assert list(iter_pixels(store, [], PREPROCESSING, threads=2)) == []


def test_images_that_are_gone_or_damaged(store: MemoryStore, digests: list[str]) -> None:
    with pytest.raises(KeyNotFound):
        load_pixels(store, [*digests, "ab" * 32], PREPROCESSING, threads=2)
    text = b"no image"
    digest = sha256(text).hexdigest()
    store.put_immutable(keys.image(digest), text)
    for load in (load_pixels, lambda *a, **k: list(iter_pixels(*a, **k))):
        with pytest.raises(CorruptObject, match=rf"'images/{digest[:2]}/{digest}' can no longer be decoded"):
            load(store, [digest, *digests], PREPROCESSING, threads=2)
