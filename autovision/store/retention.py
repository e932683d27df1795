"""Forgetting captured requests: what a deployment's policy no longer keeps is deleted, images by themselves.

Every limit comes to a moment: rows received by then go, and images by another one. What a label speaks of stays,
however old it is; the image, too, unless a data set holds it by now. Rows that stay move to a file of their own, which
is not looked at again.

Nobody is disturbed. A writer makes new keys and never counts on old ones; a reader that finds a file gone looks where
its rows went, or goes on without them. Whoever is killed in between leaves what the next one finishes: the rows that
stay are written before their file is deleted. A label that comes in while its request is being deleted brings it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain

from autovision.records.deployments import Capture, CapturePolicy
from autovision.store import captures, keys
from autovision.store.captures import CaptureProblem, Unreadable
from autovision.store.protocol import KeyNotFound, Store


@dataclass(frozen=True)
class Cutoffs:
    """Up to which moment all is forgotten; None: nothing is."""

    requests: datetime | None
    images: datetime | None


@dataclass
class Forgotten:
    """What was deleted, or would be."""

    cutoffs: Cutoffs
    requests: int = 0
    images: int = 0
    image_bytes: int = 0
    labelled: int = 0
    """requests that the limits would have deleted, but for their labels"""
    labelled_images: int = 0
    """the same of images; those that a data set holds by now are not kept twice"""
    complete: bool = True
    """False: it stopped before the end, since there was so much"""
    problems: list[CaptureProblem] = field(default_factory=list)
    """files that cannot be read, so that nobody knows what is labelled in them; they stay"""

    @property
    def any(self) -> bool:
        return bool(self.requests or self.images)

    def __str__(self) -> str:
        return f"{self.requests:,} requests, {self.images:,} images ({self.image_bytes / 1e6:,.1f} MB)"


def forget(
    store: Store,
    deployment: str,
    policy: CapturePolicy,
    at: datetime,
    *,
    delete: bool,
    most: int | None = None,
) -> Forgotten:
    """Delete what a policy no longer keeps at a moment; doing it again goes on, or changes nothing.

    Args:
        delete: False: only tell.
        most: requests and images after which it stops; None: it goes on to the end.
    """
    found = Forgotten(cutoffs(store, deployment, policy, at))
    for _ in chain(*(step(store, deployment, found, delete=delete) for step in (_rows, _images))):
        if most is not None and found.requests + found.images >= most:
            found.complete = False
            break
    return found


def cutoffs(store: Store, deployment: str, policy: CapturePolicy, at: datetime) -> Cutoffs:
    """What the limits come to: of those on requests the latest, of those on images the latest of all."""
    requests = _latest(_age(policy.keep_days, at), _beyond_count(store, deployment, policy.keep_requests))
    images = _latest(
        requests, _age(policy.keep_image_days, at), _beyond_size(store, deployment, policy.keep_image_gb)
    )
    return Cutoffs(requests, images)


# ------------------------------------------------------------------------------------------------ cutoffs


def _latest(*moments: datetime | None) -> datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)


def _age(days: float | None, at: datetime) -> datetime | None:
    if days is None:
        return None
    try:
        return at - timedelta(days=days)
    except OverflowError:
        return None  # longer than there have been dates


def _beyond_count(store: Store, deployment: str, most: int | None) -> datetime | None:
    """When the latest file was written that is not needed for the latest `most` requests."""
    if most is None:
        return None
    counted = 0
    for key in reversed([key for key in store.list(keys.captures(deployment)) if _may_go(key)]):
        if counted >= most:
            return keys.time_of(key)
        counted += captures.count(store, key)
    return None


def _beyond_size(store: Store, deployment: str, most_gb: float | None) -> datetime | None:
    """When the latest request came whose image is not among the latest `most_gb`."""
    if most_gb is None:
        return None
    excess = sum(image.size_bytes for _, image, _ in _dated(store, deployment)) - round(most_gb * 1e9)
    moment = None
    for _, image, came in _dated(store, deployment):
        if excess <= 0:
            break
        moment, excess = came, excess - image.size_bytes
    return moment


def _may_go(key: str) -> bool:
    return keys.time_of(key) is not None and not keys.are_kept_captures(key)


def _dated(store: Store, deployment: str) -> Iterator[tuple[str, keys.CapturedImage, datetime]]:
    """Captured images with the moment of their request, the earliest first."""
    for key in store.list(keys.captured_images(deployment)):
        image = keys.captured_image_of(key)
        came = keys.time_of(image.request_id) if image else None
        if image is not None and came is not None:
            yield key, image, came


# -------------------------------------------------------------------------------------------------- acting


def _rows(store: Store, deployment: str, found: Forgotten, *, delete: bool) -> Iterator[None]:
    """File after file."""
    limit = found.cutoffs.requests
    if limit is None:
        return
    for key in list(store.list(keys.captures(deployment))):
        written = keys.time_of(key)
        if written is None or keys.are_kept_captures(key):
            continue
        if written > limit:
            return
        try:
            rows = captures.read_file(store, key)
            stay = [row for row in rows if _is_labelled(store, deployment, row.request_id)]
            if delete:
                _drop_rows(store, deployment, key, rows, stay)
        except Unreadable as error:
            found.problems.append(CaptureProblem(key, str(error)))
            continue
        found.requests += len(rows) - len(stay)
        found.labelled += len(stay)
        yield


def _drop_rows(store: Store, deployment: str, key: str, rows: list[Capture], stay: list[Capture]) -> None:
    captures.keep(store, key, stay)
    store.delete(key)
    safe = {row.request_id for row in stay}
    late = [r for r in rows if r.request_id not in safe and _is_labelled(store, deployment, r.request_id)]
    captures.keep(store, key, late)


def _images(store: Store, deployment: str, found: Forgotten, *, delete: bool) -> Iterator[None]:
    """Image after image."""
    limit = found.cutoffs.images
    if limit is None:
        return
    for key, image, came in _dated(store, deployment):
        if came > limit:
            return
        if _is_needed(store, deployment, image):
            found.labelled_images += 1
            continue
        if delete:
            _drop_image(store, deployment, key, image)
        found.images += 1
        found.image_bytes += image.size_bytes
        yield


def _drop_image(store: Store, deployment: str, key: str, image: keys.CapturedImage) -> None:
    try:
        data = store.get(key).data
    except KeyNotFound:
        return
    store.delete(key)
    if _is_needed(store, deployment, image):
        store.put_immutable(key, data)


def _is_needed(store: Store, deployment: str, image: keys.CapturedImage) -> bool:
    """Whether a label speaks of it and no data set holds it."""
    return _is_labelled(store, deployment, image.request_id) and not store.exists(keys.image(image.digest))


def _is_labelled(store: Store, deployment: str, request_id: str) -> bool:
    return next(iter(store.list(keys.labels(deployment, request_id))), None) is not None
