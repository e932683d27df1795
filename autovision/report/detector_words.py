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
