"""From image digests to the pixels of a model's input, decoded in threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from autovision import image
from autovision.errors import CorruptObject, InvalidImage
from autovision.image import Pixels
from autovision.records.models import Preprocessing
from autovision.store import keys
from autovision.store.protocol import Store


def load_pixels(
    store: Store, digests: Sequence[str], preprocessing: Preprocessing, *, threads: int
) -> Pixels:
    """The pixels of stored images: uint8 (N, height, width, 3), in the order of `digests`.

    Args:
        threads: Pillow decodes without Python's lock, so as many as there are cores.

    Raises:
        KeyNotFound: an image is not in the store.
        CorruptObject: a stored image can no longer be decoded.
    """
    pixels = np.empty((len(digests), preprocessing.height, preprocessing.width, 3), np.uint8)
    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="load-pixels") as pool:
        _fill(pool, pixels, store, digests, preprocessing)
    return pixels


def iter_pixels(
    store: Store, digests: Sequence[str], preprocessing: Preprocessing, *, threads: int, chunk: int = 64
) -> Iterator[tuple[Sequence[str], Pixels]]:
    """The same in pieces of up to `chunk` images: pairs of digests and pixels.

    The next piece is decoded while the caller works on the current one; two pieces are in memory at a time.
    """
    pieces = [digests[start : start + chunk] for start in range(0, len(digests), chunk)]

    def load(piece: Sequence[str]) -> Pixels:
        pixels = np.empty((len(piece), preprocessing.height, preprocessing.width, 3), np.uint8)
        _fill(workers, pixels, store, piece, preprocessing)
        return pixels

    with (
        ThreadPoolExecutor(max(1, threads), thread_name_prefix="load-pixels") as workers,
        ThreadPoolExecutor(1, thread_name_prefix="load-pixels-ahead") as ahead,
    ):
        waiting = ahead.submit(load, pieces[0]) if pieces else None
        for index, piece in enumerate(pieces):
            assert waiting is not None
            pixels = waiting.result()
            waiting = ahead.submit(load, pieces[index + 1]) if index + 1 < len(pieces) else None
            yield piece, pixels


def _fill(
    pool: ThreadPoolExecutor,
    pixels: Pixels,
    store: Store,
    digests: Sequence[str],
    preprocessing: Preprocessing,
) -> None:
    def load(index: int) -> None:
        pixels[index] = _load(store, digests[index], preprocessing)

    futures = [pool.submit(load, index) for index in range(len(digests))]
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()


def _load(store: Store, digest: str, preprocessing: Preprocessing) -> Pixels:
    try:
        return image.load(store.get(keys.image(digest)).data, preprocessing)
    except InvalidImage as error:
        raise _damaged(digest, error) from error


def load_image(store: Store, digest: str) -> Image.Image:
    """A stored image, decoded and not yet preprocessed. Raises like `load_pixels`."""
    try:
        return image.decode(store.get(keys.image(digest)).data)
    except InvalidImage as error:
        raise _damaged(digest, error) from error


def _damaged(digest: str, error: InvalidImage) -> CorruptObject:
    return CorruptObject(
        f"the stored image {keys.image(digest)!r} can no longer be decoded ({error}); restore it from a "
        "backup, or import the data set again"
    )
