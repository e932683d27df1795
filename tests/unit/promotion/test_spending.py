"""How strict each of several looks is: by simulation, by brute force, and at the ends."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autovision.promotion import spending
from autovision.promotion.spending import MOST
from autovision.significance import LEVEL, sign_test

growing = st.lists(st.integers(0, 6), min_size=1, max_size=5).map(
    lambda steps: list(itertools.accumulate(steps))
)


def levels(counts: list[int], tested: int = 1) -> list[float]:
    looks: list[spending.Look] = []
    for count in counts:
        looks.append((count, spending.level(looks, count, tested=tested)))
    return [level for _, level in looks]


def passes(coins: np.ndarray, counts: list[int], asked: list[float]) -> bool:
    return any(
        sign_test(int(coins[:count].sum()), int((~coins[:count]).sum())) <= level
        for count, level in zip(counts, asked, strict=True)
    )


@given(counts=growing, tested=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_of_all_ways_in_which_coins_fall_no_more_pass_than_is_stated(counts: list[int], tested: int) -> None:
    """Every one of them is gone through."""
    counts = [min(count, 14) for count in counts]
    asked, n = levels(counts, tested), counts[-1]
    falls = [np.array(each, bool) for each in itertools.product([False, True], repeat=n)]
    share = sum(passes(coins, counts, asked) for coins in falls) / 2**n
    assert share <= MOST / tested + 1e-12
    first = sum(passes(coins, counts[:1], asked[:1]) for coins in falls) / 2**n
    assert first <= LEVEL / tested + 1e-12


@pytest.mark.parametrize("first", [4, 20, 100])
def test_what_is_stated_is_used_nearly_whole(first: int) -> None:
    """Looks with 1.3 times as many labels each: an equal model passes seldom enough, and not much more seldom."""
    rng = np.random.default_rng(first)
    counts = [first, *(first + round(10 * 1.3**k) for k in range(12))]
    asked, trials = levels(counts), 4000
    passed = sum(passes(rng.random(counts[-1]) < 0.5, counts, asked) for _ in range(trials))
    error = math.sqrt(MOST * (1 - MOST) / trials)
    assert 0.05 < passed / trials < MOST + 3 * error


def test_the_first_look_is_as_strict_as_one_alone() -> None:
    for count in range(40):
        level = spending.level([], count)
        for gained in range(count + 1):
            p = sign_test(gained, count - gained)
            assert (p <= level) == (p <= LEVEL), (count, gained)


def test_nothing_new_lets_nothing_pass_that_did_not_pass() -> None:
    looks = [(10, spending.level([], 10))]
    again = spending.level(looks, 10)
    assert [sign_test(k, 10 - k) <= again for k in range(11)] == [
        sign_test(k, 10 - k) <= LEVEL for k in range(11)
    ]
    assert spending.level(looks, 8) == pytest.approx(again), "fewer than there were: labels were taken back"


def test_without_evidence_nothing_passes_and_later_looks_have_all_of_it() -> None:
    assert sign_test(0, 0) > spending.level([], 0)
    later = spending.level([(0, spending.level([], 0))], 40)
    assert LEVEL < later <= MOST


def test_a_part_has_its_share() -> None:
    one, two = (levels([100, 200, 400], tested) for tested in (1, 2))
    assert all(b < a for a, b in zip(one, two, strict=True))


def test_many_images_take_a_moment() -> None:
    looks = [(count, 0.01) for count in (500, 900, 1200, 1600)]
    assert LEVEL < spending.level(looks, 2000) < MOST, "little was spent"
