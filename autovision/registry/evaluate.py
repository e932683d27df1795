"""A model's predictions on a split, kept in the store, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autovision import evaluation
from autovision.dataset import manifest
from autovision.dataset.loader import load_pixels
from autovision.dataset.manifest import Row
from autovision.decisions import DEFAULT, Measure, scores
from autovision.errors import InvalidInput
from autovision.model.predictor import Predictor
from autovision.model.version import read_version
from autovision.records.datasets import DatasetVersion, Split
from autovision.records.models import DecisionRule, Evaluation, ModelVersion
from autovision.store import keys
from autovision.store.protocol import AlreadyExists, KeyNotFound, Store

MOST_GROUPS = 8
"""values of a column that make subgroups; one with more of them tells images apart, not kinds of images"""


@dataclass(frozen=True)
class Predictions:
    """Probabilities of a model for labelled images, in the order of the images' digests.

    Attributes:
        images: N digests.
        labels: (N,) int, indices into the model's classes; (N, C) zeros and ones if it answers any number of them.
        probabilities: (N, C) float64.
        metadata: column -> N values; None for an image that does not have it.
        rule: the model's, by which it answers.
        together: N names of groups of images that are kept together; none: each is by itself.
    """

    images: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    metadata: Mapping[str, tuple[str | None, ...]]
    rule: DecisionRule = DEFAULT
    together: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        classes: Sequence[str],
        probabilities: np.ndarray,
        *,
        multi_label: bool = False,
        rule: DecisionRule = DEFAULT,
    ) -> Predictions:
        columns = sorted({name for row in rows for name in row.metadata})
        return cls(
            tuple(row.image for row in rows),
            truth(rows, classes, multi_label=multi_label),
            probabilities,
            {name: tuple(row.metadata.get(name) for row in rows) for name in columns},
            rule,
            tuple(row.group or row.image for row in rows) if any(row.group for row in rows) else (),
        )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def decided(self) -> np.ndarray:
        """(N, C) float64, of which the model's answers follow: see `autovision.decisions`."""
        return scores(self.rule, self.probabilities)

    def groups(self, column: str) -> dict[str, np.ndarray]:
        """value of a metadata column -> (N,) bool; empty if it has no column of that name, or too many values.

        An image without the column is in none of them.
        """
        values = self.metadata.get(column, ())
        names = sorted({value for value in values if value is not None})
        if not 1 <= len(names) <= MOST_GROUPS:
            return {}
        return {name: np.array([value == name for value in values]) for name in names}


def truth(rows: Sequence[Row], classes: Sequence[str], *, multi_label: bool) -> np.ndarray:
    """(N,) int64 indices of the rows' classes; (N, C) zeros and ones where they may have any number."""
    if not multi_label:
        return np.array([classes.index(label) for row in rows for label in row.labels], dtype=np.int64)
    return np.array([[name in row.labels for name in classes] for row in rows], dtype=np.int64)


@dataclass(frozen=True)
class Asked:
    """A model and the images of a split that it is to answer, whose labels are among the classes."""

    model: ModelVersion
    rows: tuple[Row, ...]
    """in the order of the images' digests"""
    classes: tuple[str, ...]
    """what labels are indices into"""

    @classmethod
    def of(
        cls,
        store: Store,
        model_id: str,
        version: DatasetVersion,
        split: Split,
        classes: Sequence[str] | None = None,
    ) -> Asked:
        """Raises like `predictions`."""
        rows = sorted(
            (row for row in manifest.read(store, version) if row.split == split), key=lambda row: row.image
        )
        if not rows:
            raise InvalidInput(f"data set {version.id} has no image in its {split} split")
        model = read_version(store, model_id)
        known = tuple(classes or model.classes)
        if model.multi_label != version.multi_label:
            several, one = "any number of labels", "exactly one label"
            raise InvalidInput(
                f"model {model_id!r} gives an image {several if model.multi_label else one}, and in {version.id} it "
                f"has {several if version.multi_label else one}; evaluate it on images that are labelled its way"
            )
        if unknown := sorted({label for row in rows for label in row.labels} - set(known)):
            raise InvalidInput(
                f"model {model_id!r} does not know the classes {unknown} of {version.id}; it knows {list(known)}"
            )
        return cls(model, tuple(rows), known)


def predictions(
    store: Store,
    model_id: str,
    version: DatasetVersion,
    split: Split,
    *,
    classes: Sequence[str] | None = None,
) -> Predictions:
    """What a model says of a split; computed by the served runtime once, then read from the store.

    Args:
        classes: what the labels are indices into; None: the model's classes, which must then hold every label.

    Raises:
        NotFound: no such model.
        InvalidInput: a label is not among the classes, or the split is empty; the model answers exactly one class
            and the images have any number, or the other way round.
    """
    asked = Asked.of(store, model_id, version, split, classes)
    rows, known, model = asked.rows, asked.classes, asked.model
    if (stored := _read(store, model_id, version, split)) is not None:
        return Predictions.of(rows, known, stored, multi_label=model.multi_label, rule=model.decision)
    predictor = Predictor.load(store, model_id)
    pixels = load_pixels(store, [row.image for row in rows], model.preprocessing, threads=2)
    scored = predictor.score(pixels)[0]
    result = Predictions.of(rows, known, scored, multi_label=model.multi_label, rule=model.decision)
    store_predictions(store, model_id, version, split, result)
    return result


def stored_predictions(
    store: Store, model: ModelVersion, version: DatasetVersion, split: Split
) -> Predictions | None:
    """What is stored of what a model says of a split; None: nothing. Raises like `predictions`."""
    stored = _read(store, model.id, version, split)
    if stored is None:
        return None
    asked = Asked.of(store, model.id, version, split)
    return Predictions.of(
        asked.rows, asked.classes, stored, multi_label=model.multi_label, rule=model.decision
    )


def store_predictions(
    store: Store, model_id: str, version: DatasetVersion, split: Split, what: Predictions
) -> None:
    """Keep predictions, so that a gate compares models without running them again."""
    table = pa.table(
        {
            "image": list(what.images),
            "probabilities": pa.array(what.probabilities.tolist(), pa.list_(pa.float64())),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    with suppress(AlreadyExists):  # the first word stands, so that every gate sees the same figures
        store.put_new(keys.evaluation(model_id, version.digest, split), sink.getvalue().to_pybytes())


def evaluate_subgroups(
    what: Predictions,
    classes: Sequence[str],
    positive: str | None,
    *,
    dataset: str,
    split: Split,
    measure: Measure | None = None,
) -> dict[str, Evaluation]:
    """The whole split under its own name, and each subgroup as `split:column=value`.

    Args:
        measure: the metric that the model was searched by, to be told beside the others.
    """

    decided, together = what.decided, np.array(what.together)

    def evaluate(mask: np.ndarray, where: dict[str, str]) -> Evaluation:
        return evaluation.evaluate(
            what.probabilities[mask],
            what.labels[mask],
            tuple(classes),
            positive_class=positive,
            dataset=dataset,
            split=split,
            where=where,
            decided=decided[mask],
            measure=measure,
            groups=together[mask] if len(together) else (),
        )

    found = {str(split): evaluate(np.ones(len(what), dtype=bool), {})}
    for column, values in what.metadata.items():
        groups = {} if None in values else what.groups(column)
        # A column that gives the label away makes groups of one class, where no figure says anything.
        if len(groups) > 1 and all(len(np.unique(what.labels[mask], axis=0)) > 1 for mask in groups.values()):
            for name, mask in groups.items():
                found[f"{split}:{column}={name}"] = evaluate(mask, {column: name})
    return found


def _read(store: Store, model_id: str, version: DatasetVersion, split: Split) -> np.ndarray | None:
    try:
        data = store.get(keys.evaluation(model_id, version.digest, split)).data
    except KeyNotFound:
        return None
    return np.array(pq.read_table(pa.BufferReader(data)).column("probabilities").to_pylist())
