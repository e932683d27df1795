"""A challenger that could not be shown to be better is looked at again on requests that were labelled since.

A re-search answers to a new kind of images, of which the test split has a quarter of the first few labels: too few to
show anything. Every label that comes later is of an image that neither model has learnt from, drawn as production draws
them. So a challenger that fails by nothing but that evidence stays a candidate, and is looked at again once there are
`LEAST` of them, and again whenever there are `GROWTH` times as many: it has to be better on the test split and these
images together, or on these images alone, which what the test split has of old kinds does not dilute. How strict each
look is, `spending` counts: a challenger that equals the champion is promoted with a probability of 5 % at most when it
is compared first, and of 10 % at most in all, however often it is looked at.

gather      labelled requests that neither model has learnt from
pair        what both say of them
judge       what follows: a pure function
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from autovision import image
from autovision.dataset import catalog, manifest
from autovision.dataset.manifest import Row
from autovision.decisions import scores
from autovision.duplicates import MOST_BITS, alike_by_hash, perceptual_hash
from autovision.errors import InvalidImage
from autovision.labelling.consensus import consensus
from autovision.metrics import Floats, Ints
from autovision.model.predictor import Prediction, Predictor
from autovision.promotion import spending
from autovision.promotion.comparison import Comparison
from autovision.promotion.gates.better import better_somewhere
from autovision.promotion.gates.paired import GateResult, Paired
from autovision.promotion.policy import decide
from autovision.promotion.refused import GATE, LEAST, MOST_IMAGES, Levels, Look, Refused
from autovision.records.datasets import DatasetVersion, Labels, labels_of
from autovision.records.deployments import Capture, Deployment, Verdict
from autovision.records.gates import GatePolicy
from autovision.records.models import ModelVersion
from autovision.store import captures, labels
from autovision.store.protocol import Store

LATE = timedelta(days=14)
"""before it was registered: labels of such requests may still come"""
SINCE = "images labelled since"
_AT_ONCE = 64


@dataclass(frozen=True)
class Labelled:
    """A captured image, and what people agree on."""

    capture: Capture
    label: Labels


# ---------------------------------------------------------------------------------------------- the images


def begin(challenger: ModelVersion) -> datetime:
    """Requests from then on may count."""
    return challenger.created_at - LATE


def gather(
    store: Store, deployment: Deployment, challenger: ModelVersion, champion: ModelVersion
) -> list[Labelled]:
    """Labelled requests whose images neither model has learnt from, the oldest first, one of each image.

    What a review asked for is left out: it asks where the champion is unsure, and there any other model looks better.
    So are labels that the challenger cannot give.
    """
    version, since = _version(store, challenger), begin(challenger)
    words = labels.read_since(store, deployment.name, since)
    reviewed = {word.request_id for word in words if word.review}
    agreed = {
        request: word.label
        for request, word in consensus(words).agreed.items()
        if request not in reviewed and _fits(word.label, challenger)
    }
    if not agreed:
        return []
    known = {row.image for row in _learnt(store, version, champion)} | set(version.left_out)
    found = {
        capture.image: Labelled(capture, agreed[capture.request_id])
        for capture in captures.each(store, deployment.name, after=since)
        if capture.request_id in agreed and capture.pixels and capture.image not in known
    }
    return sorted(found.values(), key=lambda each: (each.capture.received_at, each.capture.request_id))


def _version(store: Store, model: ModelVersion) -> DatasetVersion:
    return catalog.get(store, model.lineage.dataset)


def _learnt(store: Store, version: DatasetVersion, champion: ModelVersion) -> list[Row]:
    rows = manifest.read(store, version)
    return (
        rows
        if champion.lineage.dataset == version.id
        else rows + manifest.read(store, _version(store, champion))
    )


def _fits(label: Labels, challenger: ModelVersion) -> bool:
    one = isinstance(label, str)
    return one is not challenger.multi_label and set(labels_of(label)) <= set(challenger.classes)


def pair(
    store: Store,
    deployment: Deployment,
    champion: ModelVersion,
    challenger: ModelVersion,
    found: Sequence[Labelled],
    like: Paired,
) -> Paired | None:
    """What both say of images, in the columns and with the subgroups of `like`; None: too few of them are of use.

    Images that are nearly the same as one that was learnt from are left out, and of those like each other all but one.
    """
    version = _version(store, challenger)
    bits = MOST_BITS if version.hash_bits is None else version.hash_bits
    kept = _unlike(store, _learnt(store, version, champion), bits, found[:MOST_IMAGES])
    if len(kept) < LEAST // 2:
        return None
    images = [data for _, data in kept]
    column = deployment.policy.subgroup
    of = [each.capture.metadata.get(column) if column else None for each, _ in kept]
    old, old_scores = answers(store, champion, images, challenger.classes)
    new, new_scores = answers(store, challenger, images, challenger.classes)
    return replace(
        like,
        labels=_truth([each.label for each, _ in kept], challenger),
        champion=old,
        challenger=new,
        champion_scores=old_scores,
        challenger_scores=new_scores,
        groups={name: np.array([value == name for value in of], bool) for name in like.groups},
    )


def answers(
    store: Store, model: ModelVersion, images: Sequence[bytes], classes: Sequence[str]
) -> tuple[Floats, Floats]:
    """Probabilities (N, C), and the scores (N, C) by which it answers; 0 in the column of a class it does not know."""
    predictor = Predictor.load(store, model.id)
    found: list[list[float]] = []
    for begin in range(0, len(images), _AT_ONCE):
        for each in predictor.predict(images[begin : begin + _AT_ONCE]):
            assert isinstance(each, Prediction), "it was decoded before"
            found.append(list(each.probabilities.values()))
    return in_columns(model, np.array(found).reshape(len(images), len(model.classes)), classes)


def in_columns(model: ModelVersion, own: Floats, classes: Sequence[str]) -> tuple[Floats, Floats]:
    """Probabilities (N, its classes), and the scores that its rule makes of them, in the columns of `classes`."""
    found = []
    for values in (own, scores(model.decision, own)):
        columns = np.zeros((len(own), len(classes)))
        for at, name in enumerate(model.classes):
            if name in classes:
                columns[:, list(classes).index(name)] = values[:, at]
        found.append(columns)
    return found[0], found[1]


def _unlike(
    store: Store, learnt: Sequence[Row], bits: int, found: Sequence[Labelled]
) -> list[tuple[Labelled, bytes]]:
    """Images that can be read and are no near-duplicates, with their bytes."""
    new: dict[str, tuple[Labelled, bytes]] = {}
    hashes: dict[str, str] = {}
    by_image = {each.capture.image: each for each in found}
    for digest, data in captures.read_images(store, (each.capture for each in found)):
        try:
            decoded = image.decode(data)
        except InvalidImage:
            continue
        new[digest] = by_image[digest], data
        if bits >= 0:
            hashes[digest] = perceptual_hash(decoded)
    old = {row.image: row.perceptual_hash or "" for row in learnt}
    like: dict[str, set[str]] = {digest: set() for digest in by_image}
    for near in alike_by_hash(hashes, old, most_bits=bits).pairs if bits >= 0 else ():
        for one, other in ((near.first, near.second), (near.second, near.first)):
            like.setdefault(one, set()).add(other)
    kept: dict[str, tuple[Labelled, bytes]] = {}
    for digest in by_image:  # the oldest first: what is kept once stays when more come
        if digest in new and not any(other in old or other in kept for other in like[digest]):
            kept[digest] = new[digest]
    return list(kept.values())


def _truth(agreed: Sequence[Labels], challenger: ModelVersion) -> Ints:
    classes = challenger.classes
    if challenger.multi_label:
        rows = [[name in labels_of(label) for name in classes] for label in agreed]
        return np.array(rows, np.intp).reshape(len(agreed), len(classes))
    return np.array([classes.index(str(label)) for label in agreed], np.intp)


# ----------------------------------------------------------------------------------------------- judging


def judge(
    first: Comparison, since: Paired | None, case: Refused, labelled: int, policy: GatePolicy
) -> Verdict:
    """Whether the challenger is better by now on images that came since, and not worse on all there are.

    Args:
        first: what it was compared by at first.
        since: None: of the labelled images hardly any is of use.
        labelled: images that there are.
    """
    look, metric = case.looks + 1, case.metric
    paired = first.paired if since is None else together(first.paired, since)
    before = case.levels or _with({}, better_somewhere(first.paired, metric=metric))
    gate = better(first.paired, since, metric, before, look)
    verdict = decide(
        paired,
        metric=metric,
        policy=policy,
        corrupted=first.corrupted,
        taken=first.taken,
        better=gate,
    )
    n = 0 if since is None else len(since.labels)
    numbers = {
        "champion": case.champion,
        "look": look,
        "labelled": labelled,
        "n": n,
        "levels": _with(before, gate),
    }
    told = f"look {look} since it was refused, on the test split and {n} images that were labelled meanwhile"
    return verdict.with_(why=f"{told}; {verdict.why}", numbers={**verdict.numbers, "later": numbers})


def better(first: Paired, since: Paired | None, metric: str, before: Levels, look: int) -> GateResult:
    """Whether it is better with the images that came since, as strictly as this look has to be."""
    if since is None:
        return GateResult(
            GATE, False, "hardly any of the images that were labelled since is of use", {"n": 0}
        )
    both = together(first, since)
    later = np.arange(len(both.labels)) >= len(first.labels)
    return better_somewhere(
        replace(both, groups={SINCE: later, **both.groups}),
        metric=metric,
        levels=lambda evidence: spending.levels(before, evidence, look),
        gate=GATE,
    )


def _with(before: Levels, gate: GateResult) -> dict[str, list[Look]]:
    """The looks until now, and what this one asked; none where it could not be asked."""
    levels, evidence = gate.numbers.get("levels", {}), gate.numbers.get("evidence", {})
    return {
        part: [*before.get(part, ()), *([(evidence[part], levels[part])] if part in levels else ())]
        for part in {**before, **levels}
    }


def together(first: Paired, since: Paired) -> Paired:
    """All images, those of `first` in front."""

    def both(name: str) -> Floats | None:
        parts = [getattr(each, name) for each in (first, since)]
        return None if any(part is None for part in parts) else np.concatenate(parts)

    return replace(
        first,
        labels=np.concatenate([first.labels, since.labels]),
        champion=both("champion"),
        challenger=np.concatenate([first.challenger, since.challenger]),
        # Those of `first` are there whenever a champion is.
        champion_scores=both("champion_scores"),
        challenger_scores=both("challenger_scores"),
        groups={name: np.concatenate([mask, since.groups[name]]) for name, mask in first.groups.items()},
    )
