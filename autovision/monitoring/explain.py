"""What moved: which groups of images, and which images, are unlike the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from autovision.monitoring.detectors import kernel
from autovision.monitoring.detectors.kernel import Witness
from autovision.monitoring.detectors.permutation import Floats
from autovision.monitoring.reference import Reference
from autovision.records.deployments import Capture, Moved, UnlikeImage

SHOWN = 12
"""images of each kind"""
_MOST_VALUES = 8
"""of a metadata column; one with more of them tells images apart, not kinds of images"""
_LEAST = 5
"""images of a group"""


def unlike(captures: Sequence[Capture], found: Witness, odd: Mapping[str, str]) -> tuple[UnlikeImage, ...]:
    """The images of a window that are the most unlike the reference, the worst first.

    Args:
        odd: what is unusual about the images of some requests.
    """
    order = np.argsort(found.window, kind="stable")[:SHOWN]
    share = found.unlikeness
    return tuple(
        UnlikeImage(
            request_id=captures[i].request_id,
            image=captures[i].image,
            unlikeness=float(share[i]),
            why=odd.get(captures[i].request_id, ""),
        )
        for i in order
    )


def typical(reference: Reference) -> tuple[str, ...]:
    """Digests of images that are typical of the reference; none where its images are not known."""
    if not reference.images:
        return ()
    rows = kernel.typical(reference.rows.embedded, reference.projection.gamma, SHOWN)
    return tuple(reference.images[i] for i in rows)


def subgroups(captures: Sequence[Capture], reference: Reference, found: Witness) -> tuple[Moved, ...]:
    """The groups by metadata whose images are unlike the reference, the surest first.

    Ranks are compared (Wilcoxon 1945); the p-value is multiplied by how many groups there are.

    Args:
        found: whose normal rows begin with those of the reference.
    """
    groups = {
        f"{column}={value}": (column, value)
        for column in sorted({name for each in captures for name in each.metadata})
        for value in _values(captures, column)
    }
    share, normal = found.unlikeness, found.normal_unlikeness
    moved = []
    for name, (column, value) in groups.items():
        here = share[[each.metadata.get(column) == value for each in captures]]
        known = [meta.get(column) == value for meta in reference.metadata]
        there = normal[: len(known)][np.array(known, bool)] if any(known) else normal
        p_value = _more_unlike(here, len(normal)) * len(groups)
        moved.append(
            Moved(
                kind="subgroup",
                name=name,
                window=float(here.mean()),
                reference=float(there.mean()),
                n=len(here),
                p_value=min(1.0, p_value),
            )
        )
    return tuple(sorted(moved, key=lambda each: (each.p_value, -each.window, each.name)))


def _values(captures: Sequence[Capture], column: str) -> list[str]:
    counts: dict[str, int] = {}
    for each in captures:
        if column in each.metadata:
            counts[each.metadata[column]] = counts.get(each.metadata[column], 0) + 1
    if len(counts) > _MOST_VALUES:
        return []
    return sorted(value for value, count in counts.items() if count >= _LEAST)


def _more_unlike(share: Floats, normal: int) -> float:
    """P-value of a mean share like this, which is one half without drift."""
    sd = np.sqrt((1 / len(share) + 1 / normal) / 12)
    return NormalDist().cdf(-(float(share.mean()) - 0.5) / float(sd))
