"""Which new images go together into one split: those of a group, and those that are nearly the same.

Groups are the user's word, near-duplicates what `autovision.duplicates` or a caller found. What hangs together, also
through images of the version that is extended, is one unit. Where some of it has a split already, the rest follows;
where it would straddle splits (given ones, or those of old images), what is worth less for an honest figure is left
out: of train rather than of validation, of validation rather than of test, and never an old image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from autovision.dataset.listing import SourceImage, printable
from autovision.dataset.manifest import Row
from autovision.dataset.split import Item
from autovision.duplicates import MOST_BITS, Pair, components
from autovision.records.datasets import ImportProblem, Split, spoken

_WORTH = (Split.TEST, Split.VALIDATION, Split.TRAIN)
_GROUP = "near-"


@dataclass(frozen=True)
class Units:
    """What came of it.

    Attributes:
        items: of the new images that stay.
        groups: image -> group, of new and old images that hang together with others.
        left_out: new images.
        problems: a remark on every new image that is nearly the same as another one.
    """

    items: list[Item]
    groups: dict[str, str]
    left_out: set[str]
    problems: list[ImportProblem]


def put_together(
    items: Sequence[Item], sources: Mapping[str, SourceImage], old: Sequence[Row], pairs: Collection[Pair]
) -> Units:
    """Give the items units, and splits where these have one.

    Args:
        items: of the new images, with the user's groups and splits.
        sources: of the same images.
        pairs: near-duplicates, of which one at least is new.
    """
    if _contradictory(items):
        return Units(list(items), {}, set(), [])
    own = {item.image: item for item in items}
    before = {row.image: row for row in old}
    groups: dict[str, str] = {}
    placed: dict[str, Item] = {}
    for members in components([*own, *before], _edges(items, old, pairs)):
        new = [own[image] for image in members if image in own]
        if len(members) == 1 or not new:
            placed |= {item.image: item for item in new}
            continue
        name = _name(members, own, before)
        split, kept = _settle(new, [before[image].split for image in members if image in before])
        placed |= {item.image: replace(item, group=name, split=split) for item in kept}
        user = {image: before[image].group if image in before else own[image].group for image in members}
        groups |= {image: group or name for image, group in user.items()}
    left_out = own.keys() - placed.keys()
    return Units(
        [placed[item.image] for item in items if item.image in placed],
        groups,
        set(left_out),
        _remarks(pairs, sources, before, left_out),
    )


def alike_by_nature(bits: int) -> list[ImportProblem]:
    """A remark where near-duplicates had to be looked for with fewer bits than otherwise."""
    if bits == MOST_BITS:
        return []
    how = f"hashes may differ in {bits} bits only" if bits >= 0 else "hashes are not compared"
    told = (
        f"with up to {MOST_BITS} different bits more than a tenth of the images would hang together: they look alike "
        f"by nature, and {how}; if there are series of the same object, name them in a column `group`"
    )
    return [ImportProblem(path="all images", kind="alike_by_nature", message=told)]


def _contradictory(items: Sequence[Item]) -> bool:
    """Whether the user gives a group two splits, which the split refuses."""
    given: dict[str, set[Split]] = defaultdict(set)
    for item in items:
        if item.group is not None and item.split is not None:
            given[item.group].add(item.split)
    return any(len(splits) > 1 for splits in given.values())


def _edges(items: Sequence[Item], old: Sequence[Row], pairs: Collection[Pair]) -> list[tuple[str, str]]:
    first: dict[str, str] = {}
    edges = [(pair.first, pair.second) for pair in pairs]
    for image, group in [*((row.image, row.group) for row in old), *((i.image, i.group) for i in items)]:
        if group is not None:
            edges.append((first.setdefault(group, image), image))
    return edges


def _name(members: Sequence[str], own: Mapping[str, Item], before: Mapping[str, Row]) -> str:
    """A group of the user's, if there is one, so that it is told by its name."""
    groups = {own[image].group if image in own else before[image].group for image in members} - {None}
    return min(map(str, groups), default=f"{_GROUP}{members[0][:12]}")


def _settle(new: Sequence[Item], old: Sequence[Split]) -> tuple[Split | None, list[Item]]:
    """The split of a unit, None if it is free to choose; and the new images that stay."""
    if len(set(old)) > 1:
        return None, []
    candidates: set[Split | None] = {*old} or {item.split for item in new}
    split = next((each for each in _WORTH if each in candidates), None)
    return split, [item for item in new if item.split in (None, split)]


def _remarks(
    pairs: Collection[Pair],
    sources: Mapping[str, SourceImage],
    before: Mapping[str, Row],
    left_out: Collection[str],
) -> list[ImportProblem]:
    """One for each new image that is left out, or nearly the same as an old one or one that sorts before it."""
    alike: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda pair: (pair.first, pair.second)):
        alike[pair.first].append((pair.second, pair.how))
        alike[pair.second].append((pair.first, pair.how))
    problems = []
    for image in sorted({*left_out, *(alike.keys() - before.keys())}):
        others = [pair for pair in alike[image] if pair[0] not in left_out]
        if image in left_out:
            told = "is left out: it belongs together with images of another split"
            if others:
                told = (
                    f"is left out: it is nearly the same as {_shown(others[0][0], sources, before)!r}, of another "
                    f"split ({others[0][1]})"
                )
            problems.append(_problem(sources[image], "straddling_duplicate", told))
            continue
        earlier = next(((other, how) for other, how in others if other in before or other < image), None)
        if earlier is not None:
            label = before[earlier[0]].label if earlier[0] in before else sources[earlier[0]].label
            told = f"is nearly the same as {_shown(earlier[0], sources, before)!r} and in its split ({earlier[1]})"
            if label != sources[image].label:
                told += f"; it is labelled {spoken(sources[image].label)}, and that {spoken(label)}"
            problems.append(_problem(sources[image], "near_duplicate", told))
    return problems


def _problem(source: SourceImage, kind: str, message: str) -> ImportProblem:
    return ImportProblem(path=printable(source.shown), kind=kind, message=printable(message))


def _shown(image: str, sources: Mapping[str, SourceImage], before: Mapping[str, Row]) -> str:
    return sources[image].shown if image in sources else before[image].source
