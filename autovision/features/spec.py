"""What a feature is a feature of: everything that its values depend on, besides the image."""

from __future__ import annotations

from typing import Literal

from autovision import image
from autovision.records import Preprocessing, Record, digest_of
from autovision.space.config import Augmentation


class FeatureSpec(Record):
    """Names one kind of frozen feature. Rows are added to it image by image and never change."""

    backbone: str
    weights_digest: str
    preprocessing: Preprocessing
    view: str
    """`identity`, or `<augmentation>:<index>`"""
    output: Literal["pooled", "cut"]
    """`pooled`: avg, max and GeM of every stage; `cut`: the activation below stage number `cut`"""
    cut: int | None = None
    precision: str

    @property
    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))[:24]


def view_names(augmentation: Augmentation) -> list[str]:
    """The views of an augmentation; the first one is always the image itself, and shared by all of them."""
    count = image.view_count(augmentation)
    return ["identity", *(f"{augmentation}:{index}" for index in range(1, count))]


def view_of(name: str) -> tuple[Augmentation, int]:
    """The augmentation and index that make a view: the arguments of `image.apply_view`."""
    if name == "identity":
        return "none", 0
    augmentation, index = name.split(":")
    return augmentation, int(index)  # type: ignore[return-value]
