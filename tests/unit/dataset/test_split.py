"""Exact, stratified, grouped, independent of order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autovision.dataset.split import FRACTIONS, Item, assign
from autovision.errors import InvalidInput
from autovision.records.datasets import Split

ORDER = (Split.TRAIN, Split.TEST, Split.VALIDATION)


def items_of(sizes: dict[tuple[str, str], int]) -> list[Item]:
    return [
        Item(sha256(f"{label}/{stratum}/{index}".encode()).hexdigest(), label, stratum)
        for (label, stratum), n in sizes.items()
        for index in range(n)
    ]


def tally(items: Sequence[Item], splits: dict[str, Split]) -> Counter[tuple[str, str, Split]]:
    return Counter((item.label, item.stratum, splits[item.image]) for item in items)


labels = st.sampled_from("abc")
some_items = st.lists(
    st.builds(
        Item,
        image=st.integers(0, 60).map(lambda n: sha256(str(n).encode()).hexdigest()),
        label=labels,
        stratum=st.sampled_from(["", "x"]),
        group=st.none() | st.sampled_from(["g1", "g2", "g3", "g4", "g5"]),
    ),
    max_size=60,
    unique_by=lambda item: item.image,
)


def test_the_usual_case_is_exact() -> None:
    items = items_of({("a", ""): 100, ("b", ""): 20})
    counts = tally(items, assign(items, seed=0))
    assert [counts["a", "", split] for split in Split] == [60, 15, 25]
    assert [counts["b", "", split] for split in Split] == [12, 3, 5]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.tuples(labels, st.sampled_from(["", "x", "y"])), st.integers(1, 60)), st.integers())
def test_every_stratum_differs_by_less_than_one_from_its_share(
    sizes: dict[tuple[str, str], int], seed: int
) -> None:
    items = items_of(sizes)
    counts = tally(items, assign(items, seed=seed))
    for (label, stratum), n in sizes.items():
        for split in Split:
            assert abs(counts[label, stratum, split] - n * FRACTIONS[split]) < 1


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.tuples(labels, st.sampled_from(["", "x", "y"])), st.integers(1, 9)), st.integers())
def test_small_classes_are_trained_on_then_tested_then_validated(
    sizes: dict[tuple[str, str], int], seed: int
) -> None:
    items = items_of(sizes)
    splits = assign(items, seed=seed)
    for label in {label for label, _ in sizes}:
        own = [item for item in items if item.label == label]
        present = {splits[item.image] for item in own}
        assert present >= set(ORDER[: len(own)])


def test_many_small_strata_leave_the_label_in_proportion() -> None:
    items = items_of({("a", f"site {n}"): 1 for n in range(200)})
    counts = Counter(assign(items, seed=1).values())
    assert [counts[split] for split in Split] == [120, 30, 50]


@settings(max_examples=150, deadline=None)
@given(some_items, st.integers(0, 5), st.randoms(use_true_random=False))
def test_order_of_input_does_not_matter(items: list[Item], seed: int, shuffle: random.Random) -> None:
    shuffled = list(items)
    shuffle.shuffle(shuffled)
    first = assign(items, seed=seed)
    assert first == assign(shuffled, seed=seed)
    assert first == assign([*shuffled, *items], seed=seed)  # byte-identical images count once
    assert set(first) == {item.image for item in items}


@settings(max_examples=150, deadline=None)
@given(some_items, st.integers(0, 5))
def test_groups_never_straddle(items: list[Item], seed: int) -> None:
    splits = assign(items, seed=seed)
    for group in {item.group for item in items if item.group is not None}:
        assert len({splits[item.image] for item in items if item.group == group}) == 1
    for label in {item.label for item in items}:
        assert any(splits[item.image] is Split.TRAIN for item in items if item.label == label)


def test_groups_come_close_to_the_shares() -> None:
    dice = random.Random(0)
    items = [
        Item(sha256(f"{group}-{index}".encode()).hexdigest(), dice.choice("aab"), group=f"g{group}")
        for group in range(60)
        for index in range(dice.randint(2, 12))
    ]
    splits = assign(items, seed=3)
    for label in "ab":
        own = Counter(splits[item.image] for item in items if item.label == label)
        for split in Split:
            assert abs(own[split] / own.total() - FRACTIONS[split]) < 0.03


def test_three_groups_give_three_splits() -> None:
    items = [
        replace(item, group=f"g{n % 3}") for n, item in enumerate(items_of({("a", ""): 30, ("b", ""): 30}))
    ]
    splits = assign(items, seed=0)
    for label in "ab":
        assert {splits[item.image] for item in items if item.label == label} == set(Split)


def test_groups_of_one_image_are_like_no_groups() -> None:
    items = items_of({("a", ""): 40, ("b", ""): 13})
    alone = [replace(item, group=f"unit {n}") for n, item in enumerate(items)]
    assert assign(items, seed=5) == assign(alone, seed=5)


def test_the_seed_matters() -> None:
    items = items_of({("a", ""): 50})
    assert assign(items, seed=0) != assign(items, seed=1)


@settings(max_examples=100, deadline=None)
@given(some_items, st.data())
def test_given_splits_are_kept(items: list[Item], data: st.DataObject) -> None:
    of_group = {f"g{n}": data.draw(st.none() | st.sampled_from(list(Split))) for n in range(1, 6)}
    given_ = [
        replace(
            item,
            split=of_group[item.group] if item.group else data.draw(st.none() | st.sampled_from(list(Split))),
        )
        for item in items
    ]
    splits = assign(given_, seed=0)
    assert all(splits[item.image] is item.split for item in given_ if item.split is not None)


def test_given_splits_count_towards_the_shares() -> None:
    items = items_of({("a", ""): 100})
    tested = [replace(item, split=Split.TEST) if n < 25 else item for n, item in enumerate(items)]
    counts = Counter(assign(tested, seed=0).values())
    assert [counts[split] for split in Split] == [60, 15, 25]


def test_one_member_of_a_group_decides_for_all() -> None:
    items = [replace(item, group="g") for item in items_of({("a", ""): 4})]
    items[2] = replace(items[2], split=Split.VALIDATION)
    assert set(assign(items, seed=0).values()) == {Split.VALIDATION}
    items[1] = replace(items[1], split=Split.TEST)
    with pytest.raises(InvalidInput, match="group 'g' has images in test and validation"):
        assign(items, seed=0)


def test_fractions() -> None:
    items = items_of({("a", ""): 10, ("b", ""): 1})
    counts = Counter(assign(items, seed=0, fractions={Split.TRAIN: 0.8, Split.VALIDATION: 0.2}).values())
    assert [counts[split] for split in Split] == [9, 2, 0]
    for bad in ({Split.TRAIN: 0.5}, {Split.TRAIN: 1.2, Split.TEST: -0.2}):
        with pytest.raises(InvalidInput, match="add up to 1"):
            assign(items, seed=0, fractions=bad)


def test_nothing_to_split() -> None:
    assert assign([], seed=0) == {}


# --------------------------------------------------------------------------------------- several labels

label_sets = st.frozensets(labels, max_size=3).map(lambda chosen: tuple(sorted(chosen)))
some_sets = st.lists(
    st.builds(
        Item,
        image=st.integers(0, 60).map(lambda n: sha256(str(n).encode()).hexdigest()),
        label=label_sets,
        group=st.none() | st.sampled_from(["g1", "g2", "g3", "g4", "g5"]),
    ),
    max_size=60,
    unique_by=lambda item: item.image,
)


def sets_of(n: int, shares: dict[str, float], seed: int = 0, per_group: int = 1) -> list[Item]:
    dice = random.Random(seed)
    return [
        Item(
            sha256(f"{seed}-{index}".encode()).hexdigest(),
            tuple(label for label, share in shares.items() if dice.random() < share),
            group=f"g{index // per_group}" if per_group > 1 else None,
        )
        for index in range(n)
    ]


@pytest.mark.parametrize(("per_group", "tolerance"), [(1, 0.02), (4, 0.05)])
def test_every_class_of_several_has_its_share_in_every_split(per_group: int, tolerance: float) -> None:
    # Twelve independent classes: nearly every image has a set of labels of its own.
    shares = {f"c{n:02}": 0.04 + 0.05 * n for n in range(12)}
    items = sets_of(600, shares, per_group=per_group)
    splits = assign(items, seed=0)
    assert len({item.label for item in items}) > 300
    for label in shares:
        own = Counter(splits[item.image] for item in items if label in item.label)
        for split in Split:
            assert abs(own[split] / own.total() - FRACTIONS[split]) < max(tolerance, 1.5 / own.total())
    counts = Counter(splits.values())
    assert all(abs(counts[split] / 600 - FRACTIONS[split]) < 0.03 for split in Split)


def test_images_of_no_class_are_split_in_proportion() -> None:
    items = sets_of(400, {"a": 0.3, "b": 0.1})
    splits = assign(items, seed=0)
    none = Counter(splits[item.image] for item in items if not item.label)
    assert all(abs(none[split] / none.total() - FRACTIONS[split]) < 0.01 for split in Split)


def test_a_rare_class_among_several_is_in_all_splits() -> None:
    items = sets_of(200, {"a": 0.5, "b": 0.5})
    items[:3] = [replace(item, label=("rare", *item.label)) for item in items[:3]]
    for seed in range(20):
        splits = assign(items, seed=seed)
        assert {splits[item.image] for item in items[:3]} == set(Split)


@settings(max_examples=100, deadline=None)
@given(some_sets, st.integers(0, 5), st.randoms(use_true_random=False))
def test_sets_are_split_whatever_their_order_and_groups_never_straddle(
    items: list[Item], seed: int, shuffle: random.Random
) -> None:
    shuffled = list(items)
    shuffle.shuffle(shuffled)
    splits = assign(items, seed=seed)
    assert splits == assign(shuffled, seed=seed) and set(splits) == {item.image for item in items}
    for group in {item.group for item in items if item.group is not None}:
        assert len({splits[item.image] for item in items if item.group == group}) == 1
    for label in {label for item in items for label in item.label}:
        assert any(splits[item.image] is Split.TRAIN for item in items if label in item.label)


def test_given_splits_of_sets_are_kept_and_count() -> None:
    items = sets_of(400, {"a": 0.5, "b": 0.2})
    given_ = [replace(item, split=Split.TEST) if n < 80 else item for n, item in enumerate(items)]
    splits = assign(given_, seed=0)
    assert all(splits[item.image] is Split.TEST for item in given_[:80])
    assert Counter(splits.values())[Split.TEST] == pytest.approx(100, abs=4)
