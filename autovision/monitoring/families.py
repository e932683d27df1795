"""Which requests of a window show the same: the same bytes, or images that are nearly the same.

Tests of drift take a window for so many images, each drawn by itself. One part that was photographed ten times is one
of them: taken for ten it makes a window look unlike anything, and alarms come far more often than stated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autovision.duplicates import close_hashes, components
from autovision.records.deployments import Capture

LEAST = 10
"""different images, below which all requests are looked at: what does not change at all, such as what a camera sends
that is stuck, must not pass for too little to judge"""


def repeats(captures: Sequence[Capture], hashes: Mapping[str, str], bits: int) -> frozenset[str]:
    """The requests that show what an earlier one of the window showed.

    Args:
        hashes: perceptual hashes of images that are there, by digest.
        bits: up to so many different bits make a near-duplicate in this data; below 0 only the same bytes do.
    """
    ordered = sorted(captures, key=lambda each: (each.received_at, each.request_id))
    images = list(dict.fromkeys(each.image for each in ordered))
    near = close_hashes({image: hashes[image] for image in images if hashes.get(image)}, bits)
    family = {image: together[0] for together in components(images, near) for image in together}
    seen: set[str] = set()
    found = []
    for each in ordered:
        if family[each.image] in seen:
            found.append(each.request_id)
        seen.add(family[each.image])
    return frozenset(found)
