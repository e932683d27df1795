"""What each detector of drift looks at, in words for the pages that show their scores."""

from __future__ import annotations

from collections.abc import Iterable

from autovision.report.svg import Markup, tag

_LOOKS_AT = {
    "input": "what the model sees in the images: its embeddings, against those of held-out images",
    "quality": "what the files look like: size, sharpness, noise, light, colour, empty or broken ones",
    "prediction": "how often each class is answered",
    "confidence": "how sure the answers are",
    "accuracy": "how many of the labelled answers are right, against held-out images of the same confidences",
}


_FIGURES = {
    "size": "logarithm of the number of pixels",
    "aspect": "logarithm of width ÷ height",
    "sharpness": "logarithm of the edges' strength relative to the image's contrast: higher is sharper",
    "noise": "logarithm of the noise's standard deviation, of a brightness from 0 to 1",
    "exposure": "mean brightness, from 0 to 1",
    "contrast": "standard deviation of brightness",
    "dark": "share of black pixels",
    "bright": "share of white pixels",
    "colour": "mean distance between the largest and the smallest channel: 0 of grey",
    "tint": "mean of red less blue",
    "empty": "share of blocks of 8 by 8 pixels on which there is nothing",
    "broken": "1 of an image that cannot be decoded",
    "confidence": "probability of the answer",
}
"""of images and answers; after `monitoring.quality.FIGURES`"""
_SPREAD = "spread of "


def figure_words(names: Iterable[str]) -> Markup | None:
    """A list that may be opened: what those of these figures are that are known; None without any."""
    known = [name for name in dict.fromkeys(name.removeprefix(_SPREAD) for name in names) if name in _FIGURES]
    if not known:
        return None
    return tag(
        "details",
        tag("summary", "What the figures are"),
        tag("ul", *(tag("li", tag("strong", name), f": {_FIGURES[name]}") for name in known)),
    )


def detector_words(names: Iterable[str]) -> Markup | None:
    """A list that may be opened: what those of these detectors look at that are known; None without any."""
    known = [name for name in names if name in _LOOKS_AT]
    if not known:
        return None
    return tag(
        "details",
        tag("summary", "What the detectors look at"),
        tag("ul", *(tag("li", tag("strong", name), f": {_LOOKS_AT[name]}") for name in known)),
    )
