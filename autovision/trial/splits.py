"""A data set version as a trial sees it: three splits, and what in them is new to the champion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from autovision.dataset import catalog, manifest
from autovision.errors import NotFound
from autovision.model.version import read_version
from autovision.records.datasets import DatasetVersion, Labels, Split
from autovision.store.protocol import Store
from autovision.trial.data import Labelled


@dataclass(frozen=True)
class DataSplits:
    """A data set version as a trial sees it."""

    version: DatasetVersion
    train: Labelled
    validation: Labelled
    test: Labelled
    champion: str | None = None
    """the model by which images are old or new; None: there is none"""

    @property
    def positive(self) -> int | None:
        name = self.version.positive_class
        return None if name is None else self.version.classes.index(name)


def load_splits(store: Store, dataset: str, champion: str | None = None) -> DataSplits:
    """The splits of `name@version`. Raises `NotFound`.

    An image is new that the champion's version of the data set does not have, or has with another label; without a
    champion, that the version before does not have. Where a champion's successor is judged, a new image of validation
    counts as √(old / new) images, rounded: by their number alone a few of them would hardly count beside what the
    champion knows already, though they are what production sends now, and counted as half of it they would be mostly
    noise.

    Args:
        champion: a model that is to be succeeded; one that is gone counts as none.
    """
    version = catalog.get(store, dataset)
    rows = manifest.read(store, version)
    known, champion = _known(store, version, champion)
    labels = None if known is None else {row.image: row.label for row in manifest.read(store, known)}
    times = 1
    if labels is not None and champion is not None:
        times = _times([row for row in rows if row.split is Split.VALIDATION], labels)

    def split(which: Split) -> Labelled:
        of = sorted((row for row in rows if row.split == which), key=lambda row: row.image)
        targets = torch.zeros(len(of), len(version.classes))
        for number, row in enumerate(of):
            targets[number, [version.classes.index(label) for label in row.labels]] = 1.0
        return Labelled(
            tuple(row.image for row in of),
            targets,
            torch.tensor([row.confidence for row in of], dtype=torch.float32),
            multi_label=version.multi_label,
            groups=tuple(row.group or row.image for row in of) if any(row.group for row in of) else (),
            new=None
            if labels is None
            else torch.tensor([_is_new(row, labels) for row in of], dtype=torch.bool),
            times=times,
        )

    return DataSplits(version, split(Split.TRAIN), split(Split.VALIDATION), split(Split.TEST), champion)


def _known(
    store: Store, version: DatasetVersion, champion: str | None
) -> tuple[DatasetVersion | None, str | None]:
    """The version whose images are old, None: nothing is; and the champion, if it knows an earlier version or this."""
    if champion is not None:
        with suppress(NotFound):
            name, _, number = read_version(store, champion).lineage.dataset.rpartition("@")
            if name == version.name and int(number) <= version.version:
                return catalog.get(store, f"{name}@{number}"), champion
    return None if version.parent is None else catalog.get(store, f"{version.name}@{version.parent}"), None


def _is_new(row: manifest.Row, labels: Mapping[str, Labels]) -> bool:
    return labels.get(row.image) != row.label


def _times(rows: Sequence[manifest.Row], labels: Mapping[str, Labels]) -> int:
    new = sum(_is_new(row, labels) for row in rows)
    return max(1, round(math.sqrt((len(rows) - new) / new))) if new else 1
