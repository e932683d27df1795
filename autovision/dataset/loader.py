"""From image digests to the pixels of a model's input, decoded in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from PIL import Image

from autovision import image
from autovision.errors import CorruptObject, InvalidImage
from autovision.image import Pixels
from autovision.records.models import Preprocessing
from autovision.store import keys
from autovision.store.protocol import KeyNotFound, Store

_AHEAD = 32


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
    def decode(index: int, key: str, data: bytes) -> None:
        pixels[index] = _decoded(key, data, preprocessing)

    wanted = [keys.image(digest) for digest in digests]
    pending: deque[Future[None]] = deque()
    try:
        index = 0
        # Read here, where the store may read several at once, and decoded in the pool; a few dozen are in memory.
        for key, blob in store.get_many(wanted):
            if key != wanted[index]:
                break
            pending.append(pool.submit(decode, index, key, blob.data))
            index += 1
            if len(pending) > _AHEAD:
                pending.popleft().result()
        if index < len(wanted):
            raise KeyNotFound(f"the image {wanted[index]!r} is not in the store {store.uri}; import it again")
        while pending:
            pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _decoded(key: str, data: bytes, preprocessing: Preprocessing) -> Pixels:
    try:
        return image.load(data, preprocessing)
    except InvalidImage as error:
        raise _damaged(key, error) from error


def load_image(store: Store, digest: str) -> Image.Image:
    """A stored image, decoded and not yet preprocessed. Raises like `load_pixels`."""
    key = keys.image(digest)
    try:
        return image.decode(store.get(key).data)
    except InvalidImage as error:
        raise _damaged(key, error) from error


def _damaged(key: str, error: InvalidImage) -> CorruptObject:
    return CorruptObject(
        f"the stored image {key!r} can no longer be decoded ({error}); restore it from a backup, or import the "
        "data set again"
    )
