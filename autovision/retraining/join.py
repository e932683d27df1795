"""Late labels meet the requests that they speak of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from autovision.records.deployments import Capture, Label


@dataclass(frozen=True)
class Joined:
    """Labelled captures, as candidates for training. Of the labels, each is counted in one place."""

    rows: tuple[tuple[Capture, Label], ...]
    """one per image, ordered by the time of the request"""
    unmatched: tuple[str, ...]
    """labelled request ids that were never captured, sorted"""
    without_image: int
    """labels of requests whose image was not kept, or no longer"""
    already_known: int
    """labels of images that the data set holds already"""
    repeated: int
    """labels of an image that another request's label speaks of better"""
    conflicting: int
    """of `repeated`: those that say something else than the one kept"""
    known: tuple[tuple[Capture, Label], ...] = ()
    """of `already_known`: what is said by now, one per image"""


def join(captures: Iterable[Capture], consensus: Mapping[str, Label], *, known_images: Set[str]) -> Joined:
    """Match one label per request with its capture, one row per image.

    `consensus` maps request ids to what the annotators agree on, and `known_images` are the digests of
    the images that the data set holds. Where several requests sent the same image, the label with the
    highest confidence counts, then the latest, then that of the request id that sorts last. The order
    of the captures has no influence.
    """
    by_request = {capture.request_id: capture for capture in captures}
    found = [(by_request[request], label) for request, label in consensus.items() if request in by_request]
    matched = [pair for pair in found if pair[0].pixels]
    new = [pair for pair in matched if pair[0].image not in known_images]
    old = [pair for pair in matched if pair[0].image in known_images]
    best = _best(new)
    return Joined(
        rows=_ordered(best),
        unmatched=tuple(sorted(consensus.keys() - by_request.keys())),
        without_image=len(found) - len(matched),
        already_known=len(matched) - len(new),
        repeated=len(new) - len(best),
        conflicting=sum(label.label != best[capture.image][1].label for capture, label in new),
        known=_ordered(_best(old)),
    )


def _best(pairs: Iterable[tuple[Capture, Label]]) -> dict[str, tuple[Capture, Label]]:
    return {pair[0].image: pair for pair in sorted(pairs, key=_weight)}


def _ordered(best: Mapping[str, tuple[Capture, Label]]) -> tuple[tuple[Capture, Label], ...]:
    return tuple(sorted(best.values(), key=lambda pair: (pair[0].received_at, pair[0].request_id)))


def _weight(pair: tuple[Capture, Label]) -> tuple[float, float, str]:
    capture, label = pair
    return label.confidence, label.when.timestamp(), capture.request_id
