"""Captured requests as images that are compared with those of a data set."""

from __future__ import annotations

from collections.abc import Iterable

from autovision import image
from autovision.duplicates import perceptual_hash
from autovision.errors import InvalidImage
from autovision.records.deployments import Capture
from autovision.store import captures
from autovision.store.protocol import Store


def hash_of(data: bytes) -> str:
    """The perceptual hash of an image; empty for what is none."""
    try:
        return perceptual_hash(image.decode(data))
    except InvalidImage:
        return ""


def hashes(store: Store, found: Iterable[Capture]) -> dict[str, str]:
    """Image -> its perceptual hash; what is not kept is left out."""
    return {digest: hash_of(data) for digest, data in captures.read_images(store, found)}
