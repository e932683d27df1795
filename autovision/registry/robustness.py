"""A model's predictions for corrupted images of a split, kept in the store like those for the images as they are.

Nothing is stored of the corrupted images: they are made when a model is asked for the first time.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autovision import image
from autovision.dataset.loader import load_image
from autovision.dataset.manifest import Row
from autovision.image import VIEWS
from autovision.model.predictor import Predictor
from autovision.records.base import digest_of
from autovision.records.datasets import DatasetVersion, Split
from autovision.records.models import ModelVersion, Preprocessing
from autovision.registry.corruptions import KINDS, SUITE, corrupted
from autovision.registry.evaluate import Asked, Predictions
from autovision.store import keys
from autovision.store.protocol import AlreadyExists, KeyNotFound, Store

_LEAST = 32
"""images, if each of them is many views"""
_AT_ONCE = 16
"""images whose corrupted forms are in memory"""


def images_for(most: int, *models: ModelVersion) -> int:
    """How many images are corrupted to compare models: fewer where one looks at several views of each."""
    return images_of(most, *(str(m.lineage.config.get("test_time_augmentation", "none")) for m in models))


def images_of(most: int, *views: str) -> int:
    """The same of models that look at these views, by the name of the augmentation."""
    return max(min(_LEAST, most), most // max(len(VIEWS[name]) for name in views))


def corrupted_predictions(
    store: Store,
    model_id: str,
    version: DatasetVersion,
    split: Split,
    images: int,
    *,
    classes: Sequence[str] | None = None,
    threads: int = 2,
) -> dict[str, Predictions]:
    """By kind of corruption, what a model says of the first images of a split; computed once, then read.

    Args:
        images: how many at most, in the order of their digests, which says nothing of what they show.
        classes: what the labels are indices into; None: the model's classes.

    Raises like `evaluate.predictions`.
    """
    asked = Asked.of(store, model_id, version, split, classes)
    model, rows = asked.model, asked.rows[:images]
    key = keys.corrupted_evaluation(model.id, version.digest, split, digest_of([SUITE, len(rows)])[:16])
    found = _read(store, key)
    if found is None:
        found = _computed(store, model, rows, threads)
        with suppress(AlreadyExists):  # the first word stands, so that every gate sees the same figures
            store.put_new(key, _table(rows, found))
    return {
        kind: Predictions.of(rows, asked.classes, said, multi_label=model.multi_label, rule=model.decision)
        for kind, said in found.items()
    }


def stored_corrupted(
    store: Store, model: ModelVersion, version: DatasetVersion, split: Split
) -> dict[str, Predictions]:
    """By kind of corruption, what is stored of what a model says of a split: of the most images that a gate asked for.

    Empty where none did. Raises like `evaluate.predictions`.
    """
    asked = Asked.of(store, model.id, version, split)
    by_image = {row.image: row for row in asked.rows}
    tables = [
        pq.read_table(pa.BufferReader(blob.data))
        for _, blob in store.get_many(
            list(store.list(keys.corrupted_evaluations(model.id, version.digest, split)))
        )
    ]
    known = [table for table in tables if {"image", *KINDS} <= set(table.column_names)]
    if not known:
        return {}
    most = max(known, key=len)
    rows = [by_image[image] for image in most.column("image").to_pylist()]
    return {
        kind: Predictions.of(
            rows,
            asked.classes,
            np.array(most.column(kind).to_pylist()),
            multi_label=model.multi_label,
            rule=model.decision,
        )
        for kind in KINDS
    }


def _computed(store: Store, model: ModelVersion, rows: Sequence[Row], threads: int) -> dict[str, np.ndarray]:
    """(N, C) probabilities of each kind, by the runtime that evaluates."""
    predictor, prep = Predictor.load(store, model.id), model.preprocessing
    parts = []
    with ThreadPoolExecutor(threads, thread_name_prefix="corrupt") as pool:
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            pixels = np.concatenate(list(pool.map(lambda row: forms(store, row.image, prep), some)))
            said, _ = predictor.score(pixels)
            parts.append(said.reshape(len(some), len(KINDS), -1))
    by_image = np.concatenate(parts)
    return {kind: by_image[:, at] for at, kind in enumerate(KINDS)}


def forms(store: Store, digest: str, prep: Preprocessing) -> np.ndarray:
    """uint8 (kinds, H, W, 3): an image with each of the corruptions, in the order of `KINDS`."""
    original = load_image(store, digest)
    return np.stack([image.preprocess(corrupted(original, digest, kind), prep) for kind in KINDS])


def _table(rows: Sequence[Row], found: dict[str, np.ndarray]) -> bytes:
    images = pa.array([row.image for row in rows])
    columns = {kind: pa.array(said.tolist(), pa.list_(pa.float64())) for kind, said in found.items()}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": images, **columns}), sink)
    return bytes(sink.getvalue().to_pybytes())


def _read(store: Store, key: str) -> dict[str, np.ndarray] | None:
    try:
        table = pq.read_table(pa.BufferReader(store.get(key).data))
    except KeyNotFound:
        return None
    return {kind: np.array(table.column(kind).to_pylist()) for kind in KINDS}
