"""What a folder or a table says of images, before any of them is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from autovision.errors import InvalidInput
from autovision.records.datasets import ImportProblem, Labels, Split, labels_of

SPLIT_NAMES = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "validation": Split.VALIDATION,
    "valid": Split.VALIDATION,
    "val": Split.VALIDATION,
    "dev": Split.VALIDATION,
    "test": Split.TEST,
    "testing": Split.TEST,
}
"""how people call the splits, in lower case"""


@dataclass(frozen=True)
class SourceImage:
    """An image to import: either a file, or one that is in the store already."""

    label: Labels
    """its class, or the tuple of all its classes, which is then sorted"""
    path: Path | None = None
    digest: str | None = None
    """SHA-256 of the bytes of an image in the store"""
    source: str = ""
    """where it came from, for people to read; empty: the path or the digest"""
    split: Split | None = None
    """None: to be assigned"""
    confidence: float = 1.0
    group: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.path is None) == (self.digest is None):
            raise InvalidInput(
                f"the source {self.source!r} needs either a path or the digest of a stored image"
            )
        if not all(labels_of(self.label)):
            raise InvalidInput(f"the image {self.shown!r} has an empty label; give it one or leave it out")
        if not isinstance(self.label, str):
            object.__setattr__(self, "label", tuple(sorted(set(self.label))))
        if not 0 <= self.confidence <= 1:  # also refuses NaN
            raise InvalidInput(
                f"the image {self.shown!r} has the confidence {self.confidence!r}; give a number from 0 to 1"
            )

    @property
    def shown(self) -> str:
        return self.source or str(self.path or self.digest)


@dataclass(frozen=True)
class Listing:
    """What was found."""

    images: tuple[SourceImage, ...]
    problems: tuple[ImportProblem, ...]
    """`empty_class`, `unlabelled`, `malformed` and `ignored` inputs"""


def expanded(path: Path) -> Path:
    """With a leading `~` or `~user` resolved; as it is if there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def printable(text: str) -> str:
    """File names may hold bytes that are no UTF-8, which JSON cannot hold."""
    return text.encode(errors="backslashreplace").decode()
