"""From sources to an immutable data set version.

    read the sources -> open and store the images -> keep each one once -> split -> publish the version

The version's record is written last and reveals the rest. The same content again is the same version.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from autovision.dataset import catalog, manifest, sources
from autovision.dataset.ingest import Opened, Progress, Refused, ingest
from autovision.dataset.listing import SourceImage, printable
from autovision.dataset.manifest import Row
from autovision.dataset.split import FRACTIONS, Item, assign
from autovision.errors import CorruptObject, InvalidInput, near
from autovision.records.base import now
from autovision.records.datasets import DatasetVersion, ImportProblem, Split, labels_of, spoken
from autovision.store import keys, records
from autovision.store.protocol import AlreadyExists, KeyNotFound, Store

__all__ = ["SourceImage", "extend", "import_dataset", "import_images"]

_SHOWN_PROBLEMS = 100


def import_dataset(
    store: Store,
    path: Path,
    name: str,
    *,
    seed: int = 0,
    stratify_by: str | None = None,
    fractions: Mapping[Split, float] = FRACTIONS,
    positive_class: str | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = now,
) -> DatasetVersion:
    """Import a folder of class folders, or a CSV or Parquet table; see `sources.read` and `import_images`."""
    keys.check_name(name, what="the data set's name")
    listing = sources.read(Path(path))
    return import_images(
        store,
        name,
        listing.images,
        seed=seed,
        stratify_by=stratify_by,
        fractions=fractions,
        positive_class=positive_class,
        problems=listing.problems,
        progress=progress,
        clock=clock,
    )


def import_images(
    store: Store,
    name: str,
    images: Sequence[SourceImage],
    *,
    seed: int,
    stratify_by: str | None = None,
    fractions: Mapping[Split, float] = FRACTIONS,
    positive_class: str | None = None,
    parent: DatasetVersion | None = None,
    problems: Iterable[ImportProblem] = (),
    progress: Progress | None = None,
    clock: Callable[[], datetime] = now,
) -> DatasetVersion:
    """Make the next version of the data set `name`, or return the latest one if its content is the same.

    Byte-identical images that are labelled alike are kept once; labelled differently, all of them are left out.
    Both are reported in the version's problems, as are images that are missing, unreadable or too large.
    Where the images' labels are tuples, an image may have any number of the classes.

    Args:
        seed: of the split.
        stratify_by: metadata column whose values, beside the labels, every split gets its share of.
        fractions: of the images in each split; images with a given split count towards them.
        positive_class: what F1, precision and recall speak of, for two classes; None: the rarer one.
        parent: the version that this one extends: its images stay, in their splits.
        problems: what was noticed before.
        progress: called with the number of images done and of all.

    Raises:
        InvalidInput: fewer than two classes; a class none of whose images can be used; an unknown positive
            class or column to stratify by; a group with two given splits; a parent of another name; images with
            one label among images with any number.
        StoreUnavailable: the store cannot be written. What was stored stays.
    """
    keys.check_name(name, what="the data set's name")
    if parent is not None and parent.name != name:
        raise InvalidInput(
            f"{parent.id} is no version of {name!r} and cannot be extended to one; give its own name"
        )
    old = manifest.read(store, parent) if parent else []
    known = {label for row in old for label in row.labels}
    multi_label = _check_one_kind(images, parent)
    _check_two_classes(_classes(images) | known, problems)
    _check_column(images, stratify_by)
    results = ingest(store, images, progress, known=_opened_before(store, name))
    kept, noticed = _keep_once(images, results, {row.image: row for row in old}, parent)
    _check_no_class_is_lost(images, known | _classes(source for source, _ in kept), noticed)
    rows = [*old, *_rows(kept, seed, stratify_by, fractions)]
    found = [*problems, *noticed]
    return _publish(store, name, rows, found, seed, positive_class, multi_label, parent, clock)


def extend(
    store: Store,
    version: DatasetVersion,
    images: Sequence[SourceImage],
    *,
    seed: int,
    stratify_by: str | None = None,
    fractions: Mapping[Split, float] = FRACTIONS,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = now,
) -> DatasetVersion:
    """The next version: the images of `version` in their splits, and new ones, split among themselves.

    An image that is in `version` already keeps its split and label. Raises like `import_images`.
    """
    return import_images(
        store,
        version.name,
        images,
        seed=seed,
        stratify_by=stratify_by,
        fractions=fractions,
        parent=version,
        progress=progress,
        clock=clock,
    )


def _opened_before(store: Store, name: str) -> dict[str, Opened]:
    """By digest, the images of the newest version: they need not be decoded again."""
    if not catalog.version_numbers(store, name):
        return {}
    # A manifest that is damaged or gone is no reason to stop: importing the data set again is what mends it.
    with suppress(CorruptObject, KeyNotFound):
        rows = manifest.read(store, catalog.latest(store, name))
        return {row.image: Opened(row.image, row.width, row.height) for row in rows}
    return {}


# ---------------------------------------------------------------------------------------------- deciding

_Kept = tuple[SourceImage, Opened]


def _keep_once(
    images: Sequence[SourceImage],
    results: Sequence[Opened | Refused],
    old: Mapping[str, Row],
    parent: DatasetVersion | None,
) -> tuple[list[_Kept], list[ImportProblem]]:
    """One source for each image that can be used, ordered by digest, and remarks on the rest."""
    problems = [
        _problem(source, result.kind, result.message)
        for source, result in zip(images, results, strict=True)
        if isinstance(result, Refused)
    ]
    same: dict[Opened, list[SourceImage]] = defaultdict(list)
    for source, result in zip(images, results, strict=True):
        if isinstance(result, Opened):
            same[result].append(source)
    kept = []
    for opened in sorted(same, key=lambda opened: opened.digest):
        # Whatever the order of the input, the same one is kept; one with a split rather than without.
        alike = sorted(same[opened], key=lambda source: (source.split is None, source.shown))
        if opened.digest in old:
            problems += _known_problems(alike, old[opened.digest], parent)
        elif len({source.label for source in alike}) > 1:
            problems += _conflicts(alike)
        else:
            kept.append((alike[0], opened))
            message = f"has the same bytes as {alike[0].shown!r}, which is kept"
            problems += [_problem(source, "duplicate", message) for source in alike[1:]]
    return kept, problems


def _known_problems(
    alike: Sequence[SourceImage], row: Row, parent: DatasetVersion | None
) -> list[ImportProblem]:
    where = parent.id if parent else "the data set"
    return [
        _problem(source, "duplicate", f"is in {where} already and keeps its split")
        if source.label == row.label
        else _problem(
            source,
            "conflicting_label",
            f"is labelled {spoken(source.label)} here and {spoken(row.label)} in {where}, which is kept",
        )
        for source in alike
    ]


def _conflicts(alike: Sequence[SourceImage]) -> list[ImportProblem]:
    problems = []
    for source in alike:
        other = next(other for other in alike if other.label != source.label)
        message = (
            f"is labelled {spoken(source.label)} here, but {other.shown!r} with the same bytes "
            f"{spoken(other.label)}; all of them are left out"
        )
        problems.append(_problem(source, "conflicting_label", message))
    return problems


def _problem(source: SourceImage, kind: str, message: str) -> ImportProblem:
    return ImportProblem(path=printable(source.shown), kind=kind, message=printable(message))


def _rows(
    kept: Sequence[_Kept], seed: int, stratify_by: str | None, fractions: Mapping[Split, float]
) -> list[Row]:
    items = [
        Item(
            image=opened.digest,
            label=source.label,
            stratum=source.metadata.get(stratify_by, "") if stratify_by else "",
            group=source.group,
            split=source.split,
        )
        for source, opened in kept
    ]
    split = assign(items, seed=seed, fractions=fractions)
    return [
        Row(
            image=opened.digest,
            source=printable(source.shown),
            label=source.label,
            split=split[opened.digest],
            confidence=source.confidence,
            group=source.group,
            width=opened.width,
            height=opened.height,
            metadata=dict(source.metadata),
        )
        for source, opened in kept
    ]


# ---------------------------------------------------------------------------------------------- checking


def _classes(images: Iterable[SourceImage]) -> set[str]:
    return {label for source in images for label in labels_of(source.label)}


def _check_one_kind(images: Sequence[SourceImage], parent: DatasetVersion | None) -> bool:
    """Whether images have any number of labels."""
    kinds = {not isinstance(source.label, str): source for source in images}
    if len(kinds) == 2:
        raise InvalidInput(
            f"{kinds[False].shown!r} has one label and {kinds[True].shown!r} any number; give all images of a "
            "data set the same kind"
        )
    if parent is None:
        return True in kinds
    if (not parent.multi_label) in kinds:
        allowed = "any number of labels" if parent.multi_label else "exactly one label"
        raise InvalidInput(f"images of {parent.id} have {allowed}, the new ones do not; label them alike")
    return parent.multi_label


def _check_two_classes(labels: set[str], problems: Iterable[ImportProblem]) -> None:
    if len(labels) >= 2:
        return
    empty = [problem.path for problem in problems if problem.kind == "empty_class"]
    without = f" ({', '.join(map(repr, empty[:5]))} without images)" if empty else ""
    found = f"only the class {min(labels)!r}" if labels else "no labelled image"
    raise InvalidInput(f"there is {found}{without}; give images of at least two classes")


def _check_column(images: Sequence[SourceImage], stratify_by: str | None) -> None:
    columns = {name for source in images for name in source.metadata}
    if stratify_by is not None and images and stratify_by not in columns:
        raise InvalidInput(
            f"no image has the metadata {stratify_by!r} to stratify by; there is "
            f"{', '.join(map(repr, sorted(columns))) or 'none'}{near(stratify_by, columns)}"
        )


def _check_no_class_is_lost(
    images: Sequence[SourceImage], labels: set[str], problems: Sequence[ImportProblem]
) -> None:
    lost = sorted(_classes(images) - labels)
    if not lost:
        return
    shown = {printable(source.shown) for source in images if lost[0] in labels_of(source.label)}
    reasons = [problem for problem in problems if problem.path in shown]
    counts = ", ".join(f"{n} {kind}" for kind, n in sorted(Counter(p.kind for p in reasons).items()))
    others = f" (nor any of {', '.join(map(repr, lost[1:6]))})" if lost[1:] else ""
    raise InvalidInput(
        f"no image of the class {lost[0]!r} can be used{others}: {counts}; e.g. {reasons[0].path!r}: "
        f"{reasons[0].message}. Repair them, or leave the class out"
    )


def _positive(
    counts: Counter[str], wanted: str | None, multi_label: bool, parent: DatasetVersion | None
) -> str | None:
    if wanted is not None and wanted not in counts:
        raise InvalidInput(
            f"the positive class {wanted!r} is none of the classes {', '.join(map(repr, sorted(counts)))}"
            + near(wanted, counts)
        )
    if multi_label:
        if wanted is not None:
            raise InvalidInput(
                f"a positive class ({wanted!r}) is for images with one of two classes, and these may have any "
                "number; leave it out"
            )
        return None
    if len(counts) != 2:
        if wanted is not None:
            raise InvalidInput(
                f"a positive class ({wanted!r}) is for two classes, and there are {len(counts)}; leave it out"
            )
        return None
    inherited = parent.positive_class if parent else None
    return wanted or inherited or min(sorted(counts, reverse=True), key=lambda label: counts[label])


# -------------------------------------------------------------------------------------------- publishing


def _publish(
    store: Store,
    name: str,
    rows: Sequence[Row],
    problems: Sequence[ImportProblem],
    seed: int,
    positive_class: str | None,
    multi_label: bool,
    parent: DatasetVersion | None,
    clock: Callable[[], datetime],
) -> DatasetVersion:
    labels = Counter(label for row in rows for label in row.labels)
    positive = _positive(labels, positive_class, multi_label, parent)
    classes = tuple(sorted(labels))
    counts = Counter((row.split, label) for row in rows for label in row.labels)
    images = Counter(row.split for row in rows)
    manifest_key, digest = manifest.write(store, name, rows)
    # What was left out is more worth showing than what was never meant to be an image.
    shown = sorted(problems, key=lambda problem: problem.kind == "ignored")[:_SHOWN_PROBLEMS]
    while True:
        numbers = catalog.version_numbers(store, name)
        newest = catalog.latest(store, name) if numbers else None
        if newest is not None and (newest.digest, newest.positive_class) == (digest, positive):
            return newest
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
            created_at=clock(),
        )
        try:
            records.create(store, keys.dataset_version(name, version.version), version)
            return version
        except AlreadyExists:
            continue  # another importer was faster: look at its version, and take the next number
