"""Everything that is labelled, judged by something that has not seen its label."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autovision.dataset import ingest
from autovision.dataset.manifest import Row
from autovision.duplicates import alike_by_hash, components
from autovision.labelling.confident import Suspect, suspects
from autovision.metrics import THRESHOLD, Floats
from autovision.records.datasets import DatasetVersion, Labels
from autovision.records.deployments import Capture, Label
from autovision.space.config import TrialConfig
from autovision.store.protocol import Store
from autovision.trial.folds import FOLDS
from autovision.trial.held_out import embeddings, out_of_sample
from autovision.trial.workbench import Workbench


@dataclass(frozen=True)
class Judged:
    """One labelled image, of the data set or captured.

    Attributes:
        label: what is said of it now.
        by: who says so.
        request: id of the captured request; None: it is in the data set.
    """

    image: str
    label: Labels
    by: str
    source: str
    request: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Errors:
    """Labels that are probably wrong.

    Attributes:
        images: all that were judged.
        probabilities: (N, C) of each, out-of-sample.
        suspects: the clearest first.
        how: what the probabilities come from, in words.
    """

    images: Sequence[Judged]
    probabilities: Floats
    suspects: Sequence[Suspect]
    how: str


def labelled(
    version: DatasetVersion, rows: Sequence[Row], captured: Sequence[tuple[Capture, Label]]
) -> list[Judged]:
    """Images of the version, and captures that it does not have; each image once, ordered by digest."""
    found = {
        row.image: Judged(row.image, row.label, version.id, row.source, split=row.split.value) for row in rows
    }
    for capture, label in captured:
        if capture.image not in found and capture.pixels:
            found[capture.image] = Judged(
                capture.image,
                label.label,
                label.annotator,
                f"capture {capture.request_id}",
                capture.request_id,
            )
    return [found[image] for image in sorted(found)]


def probable_errors(
    store: Store,
    version: DatasetVersion,
    rows: Sequence[Row],
    images: Sequence[Judged],
    config: TrialConfig,
    *,
    seed: int,
) -> Errors:
    """Judge all labelled images by heads in folds on the pretrained backbone of `config`, and suspect some labels."""
    bench = Workbench(store, threads=len(os.sched_getaffinity(0)))
    classes = version.classes
    usable = [one for one in images if set(_names(one.label)) <= set(classes)]
    found = embeddings(bench, config, [one.image for one in usable])
    x = np.stack([found[one.image] for one in usable])
    marks = np.array([[name in _names(one.label) for name in classes] for one in usable], np.int64)
    truth = marks if version.multi_label else marks.argmax(1)
    groups = _groups(store, rows, [one.image for one in usable])
    probabilities = out_of_sample(x, truth, len(classes), groups, seed)
    how = (
        f"cross-validation: {FOLDS} folds of {len(usable):,} labelled images, near-duplicates in one fold; heads on "
        f"{config.backbone} as it was before any training here"
    )
    return Errors(usable, probabilities, suspects(probabilities, truth), how)


def _names(label: Labels) -> tuple[str, ...]:
    return (label,) if isinstance(label, str) else label


def _groups(store: Store, rows: Sequence[Row], images: Sequence[str]) -> list[str]:
    """Of each image: its group in the data set, or that of an image that it is nearly the same as."""
    known = {row.image: row.perceptual_hash for row in rows if row.perceptual_hash is not None}
    lacking = [image for image in images if image not in known]
    new = ingest.hashes(store, lacking)
    edges = [(pair.first, pair.second) for pair in alike_by_hash(new, known).pairs]
    first: dict[str, str] = {}
    edges += [(first.setdefault(row.group, row.image), row.image) for row in rows if row.group is not None]
    members = components({*images, *known, *(row.image for row in rows)}, edges)
    group = {image: together[0] for together in members for image in together}
    return [group[image] for image in images]


def corrected(label: Labels, column: int, classes: Sequence[str]) -> Labels:
    """What a suspect's label should be: the class; of several labels the set with, or without, this one."""
    name = classes[column]
    if isinstance(label, str):
        return name
    return tuple(sorted(set(label) ^ {name}))


def answer_of(probabilities: Mapping[str, float], *, multi_label: bool) -> Labels:
    """The default answer: the likeliest class, or those above one half."""
    if multi_label:
        return tuple(sorted(name for name, p in probabilities.items() if p > THRESHOLD))
    return max(probabilities, key=lambda name: probabilities[name])
