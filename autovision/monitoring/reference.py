"""What is normal for a model: held-out images as it sees them, what it says of them, and what they look like.

The embeddings lie with the model. Of the test images the model's probabilities are kept, too, since it was registered:
they tell how sure and how right it is on images that neither training nor calibration has seen. What images look like
is measured once for a model and kept beside it. Of a model that lacks a part fewer detectors speak; reports say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike
from safetensors.numpy import load, save

from autovision.dataset import catalog, manifest
from autovision.dataset.manifest import Row
from autovision.errors import AutoVisionError
from autovision.metrics import THRESHOLD, right
from autovision.model import bundle
from autovision.monitoring import quality
from autovision.monitoring.detectors import projection
from autovision.monitoring.detectors.labelled import Answers
from autovision.monitoring.detectors.permutation import Floats
from autovision.monitoring.detectors.projection import Projection
from autovision.monitoring.rows import Rows, confidence_of
from autovision.records.base import digest_of
from autovision.records.datasets import Split
from autovision.records.models import ModelVersion
from autovision.registry.evaluate import Predictions, stored_predictions
from autovision.registry.robustness import stored_corrupted
from autovision.store import keys
from autovision.store.protocol import AlreadyExists, KeyNotFound, Store

MEASURED = 300
"""images of the reference whose figures are measured"""


@dataclass(frozen=True)
class Reference:
    """What windows of a model are compared with.

    Attributes:
        model: its id.
        classes: of the model.
        projection: fitted to rows of the reference that are not in `rows`.
        rows: what is normal.
        images: digest of each embedded row; empty where it is not known.
        metadata: of each embedded row; empty where it is not known.
        notes: what is missing, and why.
        corrupted: answers to corrupted held-out images, by kind; empty where no gate had them made.
    """

    model: str
    classes: tuple[str, ...]
    multi_label: bool
    projection: Projection
    rows: Rows
    images: tuple[str, ...] = ()
    metadata: tuple[Mapping[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    corrupted: Mapping[str, Answers] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: str,
        classes: Sequence[str],
        embeddings: ArrayLike,
        *,
        held_out: Predictions | None = None,
        figures: Floats | None = None,
        images: Sequence[str] = (),
        metadata: Sequence[Mapping[str, str]] = (),
        multi_label: bool = False,
        notes: Sequence[str] = (),
        project: Projection | None = None,
    ) -> Reference:
        """From what is known.

        Args:
            embeddings: (N, D) of images that did not train the model.
            held_out: what it says of test images.
            figures: of images like those of the reference.
            images, metadata: of each of the N; none: unknown.
            project: None: fitted here.

        Raises:
            InvalidInput: embeddings that are not finite, constant or too few.
        """
        fitted, compared = projection.split(embeddings)
        every = projection.as_rows(embeddings, "reference")
        project = project or projection.fit(every[fitted])
        c = len(classes)
        nothing = np.zeros(0)
        said = probabilities = np.zeros((0, c))
        confidence = good = nothing
        if held_out is not None:
            probabilities = held_out.probabilities
            decided = held_out.decided
            said = (
                (decided > THRESHOLD).astype(np.float64)
                if multi_label
                else np.eye(c, dtype=np.float64)[decided.argmax(1)]
            )
            confidence = confidence_of(probabilities, multi_label=multi_label)
            good = right(decided, held_out.labels).astype(np.float64)
        return cls(
            model,
            tuple(classes),
            multi_label,
            project,
            # As windows are read: what is the same must not differ by its rounding.
            Rows(
                embedded=project(every[compared], name="reference"),
                said=said,
                probabilities=probabilities,
                confidence=confidence,
                figures=figures if figures is not None else np.zeros((0, len(quality.FIGURES))),
                right=good,
                sure=confidence,
                reviewed=np.zeros(len(good)),
            ).rounded(),
            tuple(images[i] for i in compared) if images else (),
            tuple(metadata[i] for i in compared) if metadata else (),
            tuple(notes),
        )


def load_reference(store: Store, version: ModelVersion) -> Reference:
    """The reference of a model version; the first time, its images are looked at: some seconds.

    Raises:
        CorruptObject: the stored embeddings do not match their digest.
        InvalidInput: they are too few, or all the same.
    """
    embeddings = bundle.load_reference(store, version)
    notes: list[str] = []
    rows: list[Row] = []
    held_out: Predictions | None = None
    corrupted: dict[str, Answers] = {}
    try:
        data = catalog.get(store, version.lineage.dataset)
        every = manifest.read(store, data)
        rows = _rows_of(every, len(embeddings))
        if not rows:
            notes.append("the images of the reference are not known: their quality is not compared")
        held_out = stored_predictions(store, version, data, Split.TEST)
        if held_out is None:
            notes.append(
                "what the model says of its test images is not stored: answers, confidence and accuracy are not "
                f"compared; `autovision model evaluate {version.id} --dataset {data.id}` computes it"
            )
        corrupted = {
            kind: _answers(said, version.multi_label)
            for kind, said in stored_corrupted(store, version, data, Split.TEST).items()
        }
    except AutoVisionError as error:
        notes.append(f"only inputs are compared: {error}")
    figures = _figures(store, version, rows, notes) if rows else None
    found = Reference.of(
        version.id,
        version.classes,
        embeddings,
        held_out=held_out,
        figures=figures,
        images=[row.image for row in rows],
        metadata=[row.metadata for row in rows],
        multi_label=version.multi_label,
        notes=notes,
        project=_projection(store, version, embeddings),
    )
    return replace(found, corrupted=corrupted)


def _answers(said: Predictions, multi_label: bool) -> Answers:
    good = right(said.decided, said.labels)
    confidence = confidence_of(said.probabilities, multi_label=multi_label)
    return Answers(good, confidence, np.zeros(len(good), bool))


def _projection(store: Store, version: ModelVersion, embeddings: np.ndarray) -> Projection:
    """The one that windows of the model have been projected by so far; or fitted, for all to use."""
    made_of = [projection.VERSION, version.files[bundle.REFERENCE_FILE]]
    key = keys.reference_part(version.id, digest_of(made_of))
    with suppress(KeyNotFound):
        return Projection.from_bytes(store.get(key).data)
    fitted, _ = projection.split(embeddings)
    found = projection.fit(projection.as_rows(embeddings, "reference")[fitted])
    with suppress(AlreadyExists):
        store.put_new(key, found.to_bytes())
    return Projection.from_bytes(store.get(key).data)


def _rows_of(every: Sequence[Row], n: int) -> list[Row]:
    """The images of the reference, in its order: test, or validation and test; none if it is neither."""
    splits = {
        split: sorted((row for row in every if row.split == split), key=lambda row: row.image)
        for split in (Split.VALIDATION, Split.TEST)
    }
    for rows in (splits[Split.TEST], [*splits[Split.VALIDATION], *splits[Split.TEST]]):
        if len(rows) == n:
            return rows
    return []


def _figures(store: Store, version: ModelVersion, rows: Sequence[Row], notes: list[str]) -> Floats | None:
    """Of some of the images, from beside the model, or measured and kept there."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:MEASURED])
    images = [rows[i].image for i in chosen]
    key = keys.reference_part(version.id, digest_of([quality.VERSION, quality.FIGURES, images]))
    with suppress(KeyNotFound):
        return np.asarray(load(store.get(key).data)["figures"], np.float64)
    found = quality.measure(blob.data for _, blob in store.get_many(keys.image(image) for image in images))
    if not len(found):
        notes.append("the images of the reference are gone: the quality of images is not compared")
        return None
    with suppress(AlreadyExists):
        store.put_new(key, bytes(save({"figures": found})))
    return found
