"""Labels of a data set that people corrected: the next version, in which every image keeps its split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from autovision.dataset import manifest
from autovision.dataset.publish import publish
from autovision.errors import InvalidInput
from autovision.records.base import now
from autovision.records.datasets import Correction, DatasetVersion
from autovision.records.deployments import Label
from autovision.store.protocol import Store


def relabel(
    store: Store,
    version: DatasetVersion,
    said: Mapping[str, Label],
    *,
    clock: Callable[[], datetime] = now,
) -> DatasetVersion:
    """The next version: the same images in the same splits, some with the labels that a review gave them.

    The same words again give the same version.

    Args:
        said: digest -> what a review says of an image; those that are not in the version are passed over.

    Raises:
        InvalidInput: a class is left without any image.
    """
    rows, corrections = [], []
    for row in manifest.read(store, version):
        word = said.get(row.image)
        if word is None or (word.label, word.confidence) == (row.label, row.confidence):
            rows.append(row)
            continue
        rows.append(replace(row, label=word.label, confidence=word.confidence))
        corrections.append(
            Correction(
                image=row.image,
                source=row.source,
                was=row.label,
                label=word.label,
                confidence=word.confidence,
                by=word.annotator,
                at=word.when,
            )
        )
    if not corrections:
        return version
    lost = sorted(set(version.classes) - {label for row in rows for label in row.labels})
    if lost:
        raise InvalidInput(
            f"with these corrections no image of {version.name!r} would be left of the class {lost[0]!r}; give it "
            "images first, or correct fewer"
        )
    return publish(
        store,
        version.name,
        rows,
        seed=version.seed,
        positive_class=version.positive_class,
        multi_label=version.multi_label,
        parent=version,
        clock=clock,
        corrections=tuple(corrections),
        hash_bits=version.hash_bits,
    )
