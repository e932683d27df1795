"""Opening the images of an import: each file is read, decoded once to see that it can be, and stored.

What cannot be used becomes a remark, not an exception; what was stored stays, so an import that was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256

from autovision import image
from autovision.dataset.listing import SourceImage
from autovision.duplicates import perceptual_hash
from autovision.errors import ImageTooLarge, InvalidImage
from autovision.store import keys
from autovision.store.bulk import put_many_immutable
from autovision.store.protocol import KeyNotFound, Store

Progress = Callable[[int, int], None]
"""called with how many images are done, and of how many"""


@dataclass(frozen=True)
class Opened:
    """An image that can be used."""

    digest: str
    width: int
    height: int
    perceptual_hash: str


@dataclass(frozen=True)
class Refused:
    """An image that cannot be used, and why."""

    kind: str
    """as in `ImportProblem.kind`: `missing`, `unreadable` or `too_large`"""
    message: str


def ingest(
    store: Store,
    sources: Sequence[SourceImage],
    progress: Progress | None = None,
    *,
    known: Mapping[str, Opened] | None = None,
) -> list[Opened | Refused]:
    """Decode every image once and store its bytes; the result for each source, in their order.

    Decodes in a thread per core (Pillow works without Python's lock), and stores in more threads, which
    mostly wait. A few dozen files are in memory at a time.

    Args:
        known: by digest, what an earlier import found: these bytes can be used, and are not decoded again.

    Raises:
        StoreUnavailable: the store cannot be written.
    """
    # A table may name a file more than once.
    distinct = list({(source.path, source.digest): source for source in sources}.values())
    results: dict[tuple[object, object], Opened | Refused] = {}

    def objects() -> Generator[tuple[str, bytes]]:
        with closing(_in_threads(store, distinct, known or {})) as opened:
            for source, (result, data) in zip(distinct, opened, strict=True):
                results[source.path, source.digest] = result
                if isinstance(result, Opened) and data is not None:
                    yield keys.image(result.digest), data
                if progress is not None:
                    progress(len(results), len(distinct))

    with closing(objects()) as new:
        put_many_immutable(store, new)
    return [results[source.path, source.digest] for source in sources]


def hashes(store: Store, images: Sequence[str]) -> dict[str, str]:
    """The perceptual hashes of stored images, by digest; those of images that are gone or damaged are left out."""
    sources = [SourceImage(label="stored", digest=digest) for digest in images]
    with closing(_in_threads(store, sources, {})) as opened:
        return {each.digest: each.perceptual_hash for each, _ in opened if isinstance(each, Opened)}


_Result = tuple[Opened | Refused, bytes | None]


def _in_threads(
    store: Store, sources: Sequence[SourceImage], known: Mapping[str, Opened]
) -> Generator[_Result]:
    """`_open` of each source, in their order, a few ahead of the consumer."""
    workers = max(2, len(os.sched_getaffinity(0)))
    pending: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="import") as pool:
        try:
            for source in sources:
                pending.append(pool.submit(_open, store, source, known))
                if len(pending) >= 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _open(store: Store, source: SourceImage, known: Mapping[str, Opened]) -> _Result:
    """The result, and the bytes to store; None if they came from there."""
    data = _bytes_of(store, source)
    if isinstance(data, Refused):
        return data, None
    digest = sha256(data).hexdigest()
    if source.digest is not None and digest != source.digest:
        return Refused("unreadable", f"the stored image has the digest {digest[:12]}: it is damaged"), None
    to_store = data if source.digest is None else None
    if digest in known:
        return known[digest], to_store
    try:
        decoded = image.decode(data)
    except ImageTooLarge as error:
        return Refused("too_large", str(error)), None
    except InvalidImage as error:
        return Refused("unreadable", str(error)), None
    return Opened(digest, decoded.width, decoded.height, perceptual_hash(decoded)), to_store


def _bytes_of(store: Store, source: SourceImage) -> bytes | Refused:
    if source.digest is not None:
        try:
            return store.get(keys.image(source.digest)).data
        except KeyNotFound:
            return Refused("missing", f"the store has no image {source.digest[:12]}")
    assert source.path is not None
    try:
        if not source.path.is_file():
            what = "is a folder or device" if source.path.exists() else "does not exist"
            return Refused("missing", f"the file {what}")
        if (size := source.path.stat().st_size) > image.MAX_BYTES:
            return Refused("too_large", f"the file has {size:,} bytes, and {image.MAX_BYTES:,} are allowed")
        return source.path.read_bytes()
    except OSError as error:
        return Refused("unreadable", f"the file cannot be read: {error.strerror}")
    except ValueError as error:
        return Refused("missing", f"this is no file name: {error}")
