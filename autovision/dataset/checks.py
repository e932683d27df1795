"""What an import refuses, and the class that figures speak of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from autovision.dataset.listing import SourceImage, printable
from autovision.errors import InvalidInput, near
from autovision.records.datasets import DatasetVersion, ImportProblem, labels_of


def classes_of(images: Iterable[SourceImage]) -> set[str]:
    return {label for source in images for label in labels_of(source.label)}


def one_kind(images: Sequence[SourceImage], parent: DatasetVersion | None) -> bool:
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


def two_classes(labels: set[str], problems: Iterable[ImportProblem]) -> None:
    if len(labels) >= 2:
        return
    empty = [problem.path for problem in problems if problem.kind == "empty_class"]
    without = f" ({', '.join(map(repr, empty[:5]))} without images)" if empty else ""
    found = f"only the class {min(labels)!r}" if labels else "no labelled image"
    raise InvalidInput(f"there is {found}{without}; give images of at least two classes")


def column(images: Sequence[SourceImage], stratify_by: str | None) -> None:
    columns = {name for source in images for name in source.metadata}
    if stratify_by is not None and images and stratify_by not in columns:
        raise InvalidInput(
            f"no image has the metadata {stratify_by!r} to stratify by; there is "
            f"{', '.join(map(repr, sorted(columns))) or 'none'}{near(stratify_by, columns)}"
        )


def no_class_is_lost(
    images: Sequence[SourceImage], labels: set[str], problems: Sequence[ImportProblem]
) -> None:
    lost = sorted(classes_of(images) - labels)
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


def positive(
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
