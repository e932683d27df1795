"""Watching a deployment: what the store knows of its newest window goes to the detectors; their report goes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from autovision.dataset import captured, catalog
from autovision.dataset.captured import hash_of
from autovision.duplicates import MOST_BITS, alike_by_hash
from autovision.errors import AutoVisionError, CorruptObject
from autovision.labelling.consensus import LIKELY, consensus
from autovision.model.version import read_version
from autovision.monitoring import quality
from autovision.monitoring.families import repeats
from autovision.monitoring.reference import Reference, load_reference
from autovision.monitoring.report import Observed, examine
from autovision.monitoring.rows import Rows, answers_of
from autovision.monitoring.window import latest_window
from autovision.records.base import digest_of
from autovision.records.datasets import labels_of
from autovision.records.deployments import Capture, Deployment, DriftReport, Label
from autovision.records.models import ModelVersion
from autovision.store import captures, keys, labels, records
from autovision.store.protocol import Store

MOST_IMAGES = 200
"""of a window that are looked at, the latest"""
_MARGIN = timedelta(hours=1)
"""between the clocks of who makes request ids and of who receives requests"""


def reports_of(store: Store, deployment: str, model: str) -> list[DriftReport]:
    """The drift reports about a model, the oldest first."""
    every = records.read_all(store, keys.reports(deployment), DriftReport)
    return [report for report in every if report.model == model]


def watch(store: Store, deployment: Deployment, clock: Callable[[], datetime]) -> DriftReport | None:
    """Examine the captured requests since the last report, and store the report; None: too few for a window.

    A process that is killed before the report is stored leaves nothing but rows that the next one writes again. Of two
    that examine the same window one stores a report; to the other it is None.
    """
    if deployment.model is None:
        return None
    before = reports_of(store, deployment.name, deployment.model)
    after = before[-1].window_end if before else None
    # Labels that come from now on are the next report's.
    at = clock()
    seen = (
        each for each in captures.each(store, deployment.name, after=after) if each.model == deployment.model
    )
    window = latest_window(seen, deployment.policy.window, deployment.model, after=after, until=at)
    if window is None:
        return None
    version = read_version(store, deployment.model)
    reference = load_reference(store, version)
    images, bits = _images(store, window), _bits(store, version)
    figures = dict(zip(images, quality.measure(images.values()), strict=True))
    report, rows = examine(
        deployment.name,
        reference,
        Observed(
            captures=window,
            figures=figures,
            labels=_labels(
                store, deployment.name, reference, bits, before[-1].created_at if before else None
            ),
            without_pixels=min(len(window), MOST_IMAGES) - len(figures),
            repeats=_repeats(window, images, bits),
        ),
        windows_per_false_alarm=deployment.policy.windows_per_false_alarm,
        clock=lambda: at,
        before=before,
        read=lambda digests: _read(store, deployment.name, digests),
    )
    assert report.rows is not None
    store.put_immutable(keys.window_rows(deployment.name, report.rows), rows.to_bytes())
    of = digest_of([report.model, report.first_request, report.last_request])
    report = report.with_(id=keys.derived_id(report.window_end, of))
    stored, new = records.create_or_read(store, keys.report(deployment.name, report.id), report)
    return stored if new else None


def _read(store: Store, deployment: str, digests: Sequence[str]) -> dict[str, Rows]:
    """Rows of earlier windows; what is gone, damaged, or was measured otherwise is left out."""
    found = {}
    wanted = {keys.window_rows(deployment, digest): digest for digest in digests}
    for key, blob in store.get_many(wanted):
        try:
            rows = Rows.from_bytes(key, blob.data)
        except CorruptObject:
            continue
        if rows.figures.shape[1] == len(quality.FIGURES):
            found[wanted[key]] = rows
    return found


def _images(store: Store, window: Sequence[Capture]) -> dict[str, bytes]:
    """request id -> its image, of the latest whose images are there."""
    wanted = [each for each in window if each.pixels][-MOST_IMAGES:]
    data = dict(captures.read_images(store, wanted))
    return {each.request_id: data[each.image] for each in wanted if each.image in data}


def _bits(store: Store, version: ModelVersion) -> int:
    """Up to so many different bits of a perceptual hash make a near-duplicate in the model's data."""
    try:
        known = catalog.get(store, version.lineage.dataset).hash_bits
    except AutoVisionError:
        known = None
    return MOST_BITS if known is None else known


def _repeats(window: Sequence[Capture], images: Mapping[str, bytes], bits: int) -> frozenset[str]:
    """Requests of the window that show what an earlier one showed."""
    hashes: dict[str, str] = {}
    if bits >= 0:
        for each in window:
            data = images.get(each.request_id)
            if data is not None and each.image not in hashes:
                hashes[each.image] = hash_of(data)
    return repeats(window, hashes, bits)


def _labelled_alike(
    store: Store, found: Sequence[Capture], agreed: Mapping[str, Label], bits: int
) -> frozenset[str]:
    """Labelled requests that show what an earlier one showed, and are answered and labelled as that is.

    Where nearly all look alike by nature, as those of a camera that was put up a week ago, fewer bits may differ.
    """
    hashes: dict[str, str] = {}
    if bits >= 0:
        hashes = captured.hashes(store, found)
        bits = alike_by_hash(hashes, {}, most_bits=bits).bits
    kinds: dict[tuple[frozenset[str], frozenset[str]], list[Capture]] = {}
    for each in found:
        kind = frozenset(agreed[each.request_id].labels), frozenset(labels_of(each.label))
        kinds.setdefault(kind, []).append(each)
    return frozenset[str]().union(*(repeats(some, hashes, bits) for some in kinds.values()))


def _labels(
    store: Store, deployment: str, reference: Reference, bits: int, since: datetime | None
) -> list[tuple[bool, float, bool]]:
    """(right, confidence, reviewed) of each image of the model's requests that were labelled for the first time since.

    A label that is less likely right than not says nothing of accuracy, and of images that are nearly the same and
    answered and labelled so the first one says all.
    """
    words = labels.read(store, deployment)
    first: dict[str, datetime] = {}
    reviewed = {word.request_id for word in words if word.review}
    for word in words:
        first.setdefault(word.request_id, word.received_at)
    agreed = {
        request: label for request, label in consensus(words).agreed.items() if label.confidence >= LIKELY
    }
    new = {request for request in agreed if since is None or first[request] > since}
    if not new:
        return []
    times = [keys.time_of(request) for request in new]
    known = [at for at in times if at is not None]
    after = min(known) - _MARGIN if known and len(known) == len(times) else None
    labelled = {
        each.request_id: each.model_copy(update={"embedding": ()})
        for each in captures.each(store, deployment, after=after)
        if each.request_id in new and each.model == reference.model
    }
    # The same image a hundred times is one image.
    found = list({labelled[request].image: labelled[request] for request in sorted(labelled)}.values())
    again = _labelled_alike(store, found, agreed, bits)
    found = [each for each in found if each.request_id not in again]
    _, _, confidence = answers_of(found, reference.classes)
    return [
        (each.label == agreed[each.request_id].label, float(sure), each.request_id in reviewed)
        for each, sure in zip(found, confidence, strict=True)
    ]
