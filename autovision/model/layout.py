"""How the positions and channels of an activation lie in its tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

Layout = Literal["map", "map_channels_last", "tokens"]
"""(B, C, H, W); (B, H, W, C); (B, N, C)"""


def layout_of(shape: Sequence[int], model: nn.Module) -> Layout | None:
    """The layout of a tensor of that shape inside of `model`; None if it has no positions.

    A map is recognised by its two equal sides; where its channels equal them too, the model's own statement decides.
    """
    match tuple(shape):
        case (_, _, _):
            return "tokens"
        case (_, a, b, c):
            first = a != b == c or (not a == b != c and str(getattr(model, "output_fmt", "NCHW")) != "NHWC")
            return "map" if first else "map_channels_last"
    return None


def channels(shape: Sequence[int], layout: Layout) -> int:
    return shape[1] if layout == "map" else shape[-1]


def positions(shape: Sequence[int], layout: Layout) -> int:
    return math.prod(shape[1:]) // channels(shape, layout)


def spatial(x: Tensor, layout: Layout, prefix_tokens: int) -> Tensor:
    """A stage's output as (B, C, L): channels first, positions flattened, prefix tokens dropped."""
    match layout:
        case "map":
            return x.flatten(2)
        case "map_channels_last":
            return x.flatten(1, 2).transpose(1, 2)
        case "tokens":
            return x[:, prefix_tokens:].transpose(1, 2)
