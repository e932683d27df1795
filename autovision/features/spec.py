"""What a feature is a feature of: everything that its values depend on, besides the image."""

from __future__ import annotations

import functools
from typing import Literal

from autovision.records.base import Record, digest_of
from autovision.records.models import Preprocessing

Output = Literal["pooled", "cut", "pixels"]

COMPUTATION = 2
"""raised with every change of the code that changes values: of decoding, views, pooling or rounding"""


class FeatureSpec(Record):
    """Names one kind of frozen feature. Rows are added to it image by image and never change."""

    backbone: str = ""
    weights_digest: str = ""
    preprocessing: Preprocessing
    view: str
    """a name that `Views.name` makes"""
    output: Output
    """`pooled`: avg, max and GeM of every stage; `cut`: the activation below stage number `cut`; `pixels`: uint8
    (H, W, 3), as the network takes them"""
    cut: int | None = None
    precision: str = ""
    """that the network computes in; rows are float16 whatever it is"""
    computation: int = COMPUTATION

    @functools.cached_property
    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))[:24]


def pixel_spec(preprocessing: Preprocessing, view: str) -> FeatureSpec:
    """Decoded pixels: the same for all backbones that take the same size, crop and interpolation."""
    geometry = preprocessing.with_(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return FeatureSpec(preprocessing=geometry, view=view, output="pixels")
