"""Which image is trained on, which is chosen on, which is tested on.

The split depends on the images' digests, their labels and groups, and a seed; not on the order of the input.
Within a stratum the images are ordered by a hash of seed and digest. Groups are placed first, largest first,
each where its strata lack most; single images then fill each stratum to its share, rounded to the nearest
whole images (what one stratum gets too much of, the next one of its label gets less of).

An image with several labels is in several strata at once, like a group, and is placed like one. This is the idea
of iterative stratification (Sechidis et al. 2011), but each image looks at all of its classes, each by its own
size, and not at its rarest one alone: classes and splits then come closer to their shares, above all with groups.
Images of no class are a stratum, too.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256

from autovision.errors import InvalidInput
from autovision.records.datasets import Labels, Split, labels_of

FRACTIONS: Mapping[Split, float] = {Split.TRAIN: 0.60, Split.VALIDATION: 0.15, Split.TEST: 0.25}

_PREFERENCE = (Split.TRAIN, Split.TEST, Split.VALIDATION)
"""who gets the first image of a class, who the second, who the third"""

Stratum = tuple[str, str]


@dataclass(frozen=True)
class Item:
    """What the split knows of an image."""

    image: str
    """SHA-256 of its bytes"""
    label: Labels
    stratum: str = ""
    """value of a further column to stratify by"""
    group: str | None = None
    """images of one group are never in two splits"""
    split: Split | None = None
    """given beforehand; None: to be assigned"""

    @property
    def labels(self) -> tuple[str, ...]:
        """What every split should have its share of; for an image of no class that is the empty string."""
        return labels_of(self.label) or ("",)

    @property
    def keys(self) -> tuple[Stratum, ...]:
        return tuple((label, self.stratum) for label in self.labels)


@dataclass(frozen=True)
class _Unit:
    """Images that go together: a group, or one image alone."""

    order: str
    """a hash that breaks ties"""
    items: tuple[Item, ...]
    fixed: Split | None

    @property
    def single(self) -> bool:
        """One image with one label, which any other of its stratum may take the place of."""
        return len(self.items) == 1 and isinstance(self.items[0].label, str)

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(label for item in self.items for label in item.labels)

    @property
    def keys(self) -> tuple[Stratum, ...]:
        """Each as often as it has images here."""
        return tuple(key for item in self.items for key in item.keys)


def assign(
    items: Iterable[Item], *, seed: int, fractions: Mapping[Split, float] = FRACTIONS
) -> dict[str, Split]:
    """The split of every image, by digest. An image that is given twice counts once.

    - With one label an image and without groups, the images of each stratum (label and further column) differ in
      each split by less than one from its share; a given split counts towards the share.
    - A class has an image in train; if it has two, in test as well; if it has three, in validation as well;
      as far as groups, given splits and splits of fraction 0 allow.
    - Groups are never divided. A group with a given split is in it as a whole.

    Raises:
        InvalidInput: fractions that are negative or do not add up to 1; a group with two given splits.
    """
    shares = _shares(fractions)
    # An image that comes twice is the same one, whichever comes first.
    unique = {item.image: item for item in sorted(items, key=_input_order, reverse=True)}
    units = _units(list(unique.values()), seed)
    board = _Board(shares, units)
    for unit in units:
        if unit.fixed is not None:
            board.place(unit, unit.fixed)
    free = [unit for unit in units if unit.fixed is None]
    for unit in sorted(free, key=lambda unit: (-len(unit.items), unit.order)):
        if not unit.single:
            board.place(unit, board.best(unit))
    _fill(board, [unit for unit in free if unit.single])
    _give_every_class_its_splits(board)
    return {item.image: split for unit, split in board.placed.items() for item in unit.items}


def _input_order(item: Item) -> tuple[str, tuple[str, ...], str, bool, str, str]:
    return item.image, item.labels, item.stratum, item.split is None, item.split or "", item.group or ""


def _shares(fractions: Mapping[Split, float]) -> dict[Split, Fraction]:
    shares = {split: Fraction(fractions.get(split, 0.0)).limit_denominator(10**6) for split in Split}
    total = sum(shares.values(), Fraction(0))
    if min(shares.values()) < 0 or abs(total - 1) > Fraction(1, 10**4):
        given = ", ".join(f"{split} {float(share):g}" for split, share in shares.items())
        raise InvalidInput(
            f"the fractions of the splits are {given}; give fractions from 0 to 1 that add up to 1"
        )
    return {split: share / total for split, share in shares.items()}


def _units(items: Sequence[Item], seed: int) -> list[_Unit]:
    """In an order that depends on seed and digests alone."""
    groups: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in items:
        groups[("image", item.image) if item.group is None else ("group", item.group)].append(item)
    units = []
    for (kind, name), members in groups.items():
        given = sorted({item.split for item in members if item.split is not None})
        if len(given) > 1:
            raise InvalidInput(
                f"the group {name!r} has images in {' and '.join(given)}; give a group one split, or "
                "leave its split empty"
            )
        # A group of one image is ordered like an image without a group.
        name = members[0].image if len(members) == 1 else name
        order = sha256(f"{seed}:{kind if len(members) > 1 else 'image'}:{name}".encode()).hexdigest()
        units.append(_Unit(order, tuple(members), given[0] if given else None))
    return sorted(units, key=lambda unit: unit.order)


class _Board:
    """What has been placed where, and how far each stratum is from its shares."""

    def __init__(self, shares: Mapping[Split, Fraction], units: Sequence[_Unit]) -> None:
        self.shares = shares
        self.open = [split for split in _PREFERENCE if shares[split] > 0]
        self.sizes = Counter(key for unit in units for key in unit.keys)
        self.counts: Counter[tuple[Stratum, Split]] = Counter()
        self.placed: dict[_Unit, Split] = {}

    def place(self, unit: _Unit, split: Split) -> None:
        before = self.placed.get(unit)
        for key in unit.keys:
            self.counts[key, split] += 1
            if before is not None:
                self.counts[key, before] -= 1
        self.placed[unit] = split

    def lack(self, key: Stratum, split: Split) -> Fraction:
        """How many images of the stratum the split should still get; negative: has too many."""
        return self.sizes[key] * self.shares[split] - self.counts[key, split]

    def best(self, unit: _Unit) -> Split:
        """Where the unit's strata lack most, each by its own size."""
        wanted = Counter(unit.keys)
        return max(
            self.open, key=lambda s: sum(n * self.lack(key, s) / self.sizes[key] for key, n in wanted.items())
        )


def _fill(board: _Board, singles: Sequence[_Unit]) -> None:
    strata: dict[Stratum, list[_Unit]] = defaultdict(list)
    for unit in singles:
        strata[unit.keys[0]].append(unit)
    carried: dict[str, dict[Split, Fraction]] = defaultdict(lambda: dict.fromkeys(Split, Fraction(0)))
    for key in sorted(strata):
        remaining = iter(strata[key])
        for split, count in _quotas(board, key, len(strata[key]), carried[key[0]]).items():
            for _ in range(count):
                board.place(next(remaining), split)


def _quotas(board: _Board, key: Stratum, n: int, carried: dict[Split, Fraction]) -> dict[Split, int]:
    """How many of the stratum's `n` single images each split gets; updates what is carried on.

    The ideal is what each split still lacks, brought to the sum `n`. It is rounded down, and the rest goes to
    those that were rounded down most, here and in the label's strata before.
    """
    lacks = {split: max(board.lack(key, split), Fraction(0)) for split in _PREFERENCE}
    total = sum(lacks.values())
    ideal = {split: lack * n / total for split, lack in lacks.items()}
    quotas = {split: math.floor(value) for split, value in ideal.items()}
    fractional = [split for split in _PREFERENCE if ideal[split] != quotas[split]]
    by_need = sorted(
        fractional, key=lambda split: carried[split] + ideal[split] - quotas[split], reverse=True
    )
    for split in by_need[: n - sum(quotas.values())]:
        quotas[split] += 1
    for split in _PREFERENCE:
        carried[split] += ideal[split] - quotas[split]
    return quotas


def _give_every_class_its_splits(board: _Board) -> None:
    by_label: dict[str, list[_Unit]] = defaultdict(list)
    for unit in board.placed:
        for label in unit.labels:
            by_label[label].append(unit)
    # label -> split -> units that have the label
    holders = {label: Counter(board.placed[unit] for unit in units) for label, units in by_label.items()}
    for label in sorted(by_label):
        for split in board.open[: len(by_label[label])]:
            if holders[label][split]:
                continue
            spare = _spare(board, by_label[label], holders, label, split)
            if spare is not None:
                for other in spare.labels:
                    holders[other][board.placed[spare]] -= 1
                    holders[other][split] += 1
                board.place(spare, split)


def _spare(
    board: _Board, units: Sequence[_Unit], holders: Mapping[str, Counter[Split]], label: str, split: Split
) -> _Unit | None:
    """The unit that may best move to `split`: the smallest one, from where there are most too many.

    Another class of the unit loses its last image in a split for nothing but an image to train on.
    """

    def yields(unit: _Unit) -> bool:
        return _PREFERENCE.index(board.placed[unit]) > _PREFERENCE.index(split)

    def bereaved(unit: _Unit) -> set[str]:
        return {other for other in unit.labels if holders[other][board.placed[unit]] <= 1}

    def may_move(unit: _Unit) -> bool:
        at_own_cost = bereaved(unit) <= {label} or split is _PREFERENCE[0]
        return unit.fixed is None and (not bereaved(unit) or (yields(unit) and at_own_cost))

    def surplus(unit: _Unit) -> Fraction:
        return -max(board.lack(key, board.placed[unit]) for key in unit.keys)

    candidates = [unit for unit in units if may_move(unit)]
    return min(
        candidates,
        key=lambda unit: (len(bereaved(unit) - {label}), len(unit.items), -surplus(unit), unit.order),
        default=None,
    )
