"""From sources to an immutable data set version.

    read the sources -> open and store the images -> keep each one once -> put near-duplicates together -> split
    -> publish the version

The version's record is written last and reveals the rest. The same content again is the same version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from autovision.dataset import catalog, checks, manifest, sources
from autovision.dataset.ingest import Opened, Progress, Refused, hashes, ingest
from autovision.dataset.listing import SourceImage, printable
from autovision.dataset.manifest import Row
from autovision.dataset.publish import publish
from autovision.dataset.split import FRACTIONS, Item, assign
from autovision.dataset.together import Units, alike_by_nature, put_together
from autovision.duplicates import BITS, MOST_BITS, Found, Pair, alike_by_hash
from autovision.errors import CorruptObject, InvalidInput
from autovision.records.base import now
from autovision.records.datasets import DatasetVersion, ImportProblem, Split, spoken
from autovision.store import keys
from autovision.store.protocol import KeyNotFound, Store

__all__ = ["SourceImage", "extend", "import_dataset", "import_images"]

Alike = Callable[[Sequence[str], Sequence[str]], Iterable[Pair]]
"""gives near-duplicates among new images, and between new and old ones, of their digests; all are in the store"""


def nothing_else(new: Sequence[str], old: Sequence[str]) -> Iterable[Pair]:
    """No near-duplicates but those that perceptual hashes tell."""
    return ()


def import_dataset(
    store: Store,
    path: Path,
    name: str,
    *,
    seed: int = 0,
    stratify_by: str | None = None,
    fractions: Mapping[Split, float] = FRACTIONS,
    positive_class: str | None = None,
    alike: Alike = nothing_else,
    near_bits: int | None = None,
    follow_links: bool = False,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = now,
) -> DatasetVersion:
    """Import a folder of class folders, or a CSV or Parquet table; see `sources.read` and `import_images`."""
    keys.check_name(name, what="the data set's name")
    listing = sources.read(Path(path), follow_links=follow_links)
    return import_images(
        store,
        name,
        listing.images,
        seed=seed,
        stratify_by=stratify_by,
        fractions=fractions,
        positive_class=positive_class,
        problems=listing.problems,
        alike=alike,
        near_bits=near_bits,
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
    alike: Alike = nothing_else,
    near_bits: int | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = now,
) -> DatasetVersion:
    """Make the next version of the data set `name`, or return the latest one if its content is the same.

    Byte-identical images that are labelled alike are kept once; labelled differently, all of them are left out.
    Both are reported in the version's problems, as are images that are missing, unreadable or too large.
    Where the images' labels are tuples, an image may have any number of the classes.

    Images that are nearly the same, by their perceptual hashes (`autovision.duplicates`) or by `alike`, are in one
    split: new ones that resemble an old one are in its; see `together` for those that would straddle splits.

    Args:
        seed: of the split.
        stratify_by: metadata column whose values, beside the labels, every split gets its share of.
        fractions: of the images in each split; images with a given split count towards them.
        positive_class: what F1, precision and recall speak of, for two classes; None: the rarer one.
        parent: the version that this one extends: its images stay, in their splits.
        problems: what was noticed before.
        alike: tells of further near-duplicates.
        near_bits: up to so many bits the perceptual hashes of near-duplicates differ in, fewer where all images look
            alike; -1: hashes are not compared; None: as in the parent, or `duplicates.MOST_BITS`.
        progress: called with the number of images done and of all.

    Raises:
        InvalidInput: fewer than two classes; a class none of whose images can be used; an unknown positive
            class or column to stratify by; a group with two given splits; a parent of another name; images with
            one label among images with any number.
        StoreUnavailable: the store cannot be written. What was stored stays.
    """
    keys.check_name(name, what="the data set's name")
    if near_bits is not None and not -1 <= near_bits < BITS // 2:
        raise InvalidInput(
            f"hashes that differ in {near_bits} of {BITS} bits tell nothing; near-duplicates differ in 0 to "
            f"{BITS // 2 - 1} (-1: they are not looked for)"
        )
    if parent is not None and parent.name != name:
        raise InvalidInput(
            f"{parent.id} is no version of {name!r} and cannot be extended to one; give its own name"
        )
    old = manifest.read(store, parent) if parent else []
    known = {label for row in old for label in row.labels}
    multi_label = checks.one_kind(images, parent)
    checks.two_classes(checks.classes_of(images) | known, problems)
    checks.column(images, stratify_by)
    results = ingest(store, images, progress, known=_opened_before(store, name))
    kept, noticed = _keep_once(images, results, {row.image: row for row in old}, parent)
    before = _with_hashes(store, old) if kept else old
    by_hash = _near(before, kept, parent, near_bits)
    together = _put_together(before, kept, [*by_hash.pairs, *_told(alike, before, kept)], stratify_by)
    rows = _rows(before, kept, together, seed, fractions)
    if by_hash.bits != (near_bits if near_bits is not None else parent and parent.hash_bits):
        noticed += alike_by_nature(by_hash.bits)
    noticed += together.problems
    checks.no_class_is_lost(images, known | {label for row in rows for label in row.labels}, noticed)
    return publish(
        store,
        name,
        rows,
        seed=seed,
        positive_class=positive_class,
        multi_label=multi_label,
        parent=parent,
        clock=clock,
        problems=[*problems, *noticed],
        left_out=together.left_out,
        hash_bits=by_hash.bits,
    )


def extend(
    store: Store,
    version: DatasetVersion,
    images: Sequence[SourceImage],
    *,
    seed: int,
    stratify_by: str | None = None,
    fractions: Mapping[Split, float] = FRACTIONS,
    alike: Alike = nothing_else,
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
        alike=alike,
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
        return {
            row.image: Opened(row.image, row.width, row.height, row.perceptual_hash)
            for row in rows
            if row.perceptual_hash is not None
        }
    return {}


def _with_hashes(store: Store, rows: Sequence[Row]) -> list[Row]:
    """Rows of older versions have none."""
    lacking = [row.image for row in rows if row.perceptual_hash is None]
    found = hashes(store, lacking) if lacking else {}
    return [
        replace(row, perceptual_hash=found.get(row.image, "")) if row.perceptual_hash is None else row
        for row in rows
    ]


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


# ----------------------------------------------------------------------------------------------- placing


def _near(
    old: Sequence[Row], kept: Sequence[_Kept], parent: DatasetVersion | None, near_bits: int | None
) -> Found:
    """Near-duplicates by hash, as closely as was asked for, or as they were in the version that is extended."""
    new_hashes = {opened.digest: opened.perceptual_hash for _, opened in kept}
    old_hashes = {row.image: row.perceptual_hash or "" for row in old}
    bits = near_bits if near_bits is not None else parent.hash_bits if parent else MOST_BITS
    if bits is None and kept:
        bits = alike_by_hash(old_hashes, {}).bits
    return alike_by_hash(new_hashes, old_hashes, most_bits=MOST_BITS if bits is None else bits)


def _told(alike: Alike, old: Sequence[Row], kept: Sequence[_Kept]) -> Iterable[Pair]:
    return alike([opened.digest for _, opened in kept], [row.image for row in old]) if kept else ()


def _put_together(
    old: Sequence[Row], kept: Sequence[_Kept], pairs: Sequence[Pair], stratify_by: str | None
) -> Units:
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
    return put_together(items, {opened.digest: source for source, opened in kept}, old, pairs)


def _rows(
    old: Sequence[Row], kept: Sequence[_Kept], units: Units, seed: int, fractions: Mapping[Split, float]
) -> list[Row]:
    """The rows of the version, old and new."""
    split = assign(units.items, seed=seed, fractions=fractions)
    new = [
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
            perceptual_hash=opened.perceptual_hash,
        )
        for source, opened in kept
        if opened.digest in split
    ]
    return [replace(row, group=units.groups.get(row.image, row.group)) for row in [*old, *new]]
