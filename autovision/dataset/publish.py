"""The last step to a version of a data set: its record, which reveals the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from autovision.dataset import catalog, checks, manifest
from autovision.dataset.manifest import Row
from autovision.errors import Conflict
from autovision.records.datasets import Correction, DatasetVersion, ImportProblem, Split
from autovision.store import keys, records
from autovision.store.protocol import AlreadyExists, Store

_SHOWN_PROBLEMS = 100


def publish(
    store: Store,
    name: str,
    rows: Sequence[Row],
    *,
    seed: int,
    positive_class: str | None,
    multi_label: bool,
    parent: DatasetVersion | None,
    clock: Callable[[], datetime],
    problems: Sequence[ImportProblem] = (),
    corrections: tuple[Correction, ...] = (),
    left_out: Collection[str] = (),
    hash_bits: int | None = None,
) -> DatasetVersion:
    """Store the rows and reveal them as the next version of the data set `name`.

    If the newest version has the same content, it is returned, and none is made.

    Raises `Conflict` if `parent` is no longer the newest version: what came in between would be lost.

    Args:
        parent: the version that the rows extend; None: they stand for themselves.
        left_out: digests of images that would have straddled splits.
    """
    straddling = tuple(sorted({*left_out, *(parent.left_out if parent else ())}))
    labels = Counter(label for row in rows for label in row.labels)
    positive = checks.positive(labels, positive_class, multi_label, parent)
    classes = tuple(sorted(labels))
    counts = Counter((row.split, label) for row in rows for label in row.labels)
    images = Counter(row.split for row in rows)
    manifest_key, digest = manifest.write(store, name, rows)
    # What was left out is more worth showing than what was never meant to be an image.
    shown = sorted(problems, key=lambda problem: problem.kind == "ignored")[:_SHOWN_PROBLEMS]
    while True:
        numbers = catalog.version_numbers(store, name)
        newest = catalog.latest(store, name) if numbers else None
        same = digest, positive, straddling
        if newest is not None and (newest.digest, newest.positive_class, newest.left_out) == same:
            return newest
        if parent is not None and newest is not None and newest.version != parent.version:
            raise Conflict(
                f"{parent.id} was to be extended, and {newest.id} was made meanwhile; extend that one"
            )
        version = DatasetVersion(
            name=name,
            version=numbers[-1] + 1 if numbers else 1,
            digest=digest,
            manifest_key=manifest_key,
            classes=classes,
            multi_label=multi_label,
            positive_class=positive,
            counts={split: {label: counts[split, label] for label in classes} for split in Split},
            images={split: images[split] for split in Split},
            n=len(rows),
            seed=seed,
            parent=parent.version if parent else None,
            problems=tuple(shown),
            problem_counts=dict(sorted(Counter(problem.kind for problem in problems).items())),
            corrections=corrections,
            hash_bits=hash_bits,
            left_out=straddling,
            created_at=clock(),
        )
        try:
            records.create(store, keys.dataset_version(name, version.version), version)
            return version
        except AlreadyExists:
            continue  # another importer was faster: look at its version, and take the next number
