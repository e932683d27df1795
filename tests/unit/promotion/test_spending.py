"""How strict each of several looks is: by simulation, by brute force, and at the ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autovision.promotion import spending
from autovision.promotion.gates.better import once
from autovision.promotion.spending import MOST
from autovision.significance import LEVEL, sign_test

Coins = np.ndarray


def asked_of(counts: Sequence[dict[str, int]]) -> list[dict[str, float]]:
    """The levels of the looks, one after the other; the first is asked once."""
    before: dict[str, list[spending.Look]] = {}
    found = []
    for look, evidence in enumerate(counts):
        levels = spending.levels(before, evidence, look) if look else once(evidence)
        for part, level in levels.items():
            before.setdefault(part, []).append((evidence[part], level))
        found.append(levels)
    return found


def passes(
    coins: Coins, first: int, counts: Sequence[dict[str, int]], asked: Sequence[dict[str, float]]
) -> bool:
    """Coins of the test split in front; `since` is of those behind them."""

    def p(part: str, count: int) -> float:
        own = coins[first : first + count] if part == "since" else coins[:count]
        return sign_test(int(own.sum()), int((~own).sum()))

    return any(
        p(part, count) <= levels[part]
        for evidence, levels in zip(counts, asked, strict=True)
        for part, count in evidence.items()
    )


@given(first=st.integers(0, 6), steps=st.lists(st.integers(0, 4), max_size=4))
@settings(max_examples=60, deadline=None)
def test_of_all_ways_in_which_coins_fall_no_more_pass_than_is_stated(first: int, steps: list[int]) -> None:
    """Every one of them is gone through: a part that is there from the beginning, and one that comes later."""
    counts = [{"all": first}]
    for later in itertools.accumulate(steps):
        later = min(later, 8)
        counts.append({"all": first + later, "since": later})
    asked, n = asked_of(counts), counts[-1]["all"]
    falls = [np.array(each, bool) for each in itertools.product([False, True], repeat=n)]
    share = sum(passes(coins, first, counts, asked) for coins in falls) / 2**n
    assert share <= MOST + 1e-12
    at_first = sum(passes(coins, first, counts[:1], asked[:1]) for coins in falls) / 2**n
    assert at_first <= LEVEL + 1e-12


@pytest.mark.parametrize("first", [4, 20, 100])
def test_what_is_stated_is_used_for_the_most_part(first: int) -> None:
    """Looks with 1.3 times as many labels each: an equal model passes seldom enough, and not much more seldom."""
    rng = np.random.default_rng(first)
    counts = [{"all": first}]
    counts += [{"all": first + n, "since": n} for n in (round(10 * 1.3**k) for k in range(12))]
    asked, trials = asked_of(counts), 3000
    passed = sum(passes(rng.random(counts[-1]["all"]) < 0.5, first, counts, asked) for _ in range(trials))
    error = math.sqrt(MOST * (1 - MOST) / trials)
    assert 0.05 < passed / trials < MOST + 3 * error


def test_parts_share_what_is_left_whichever_there_were() -> None:
    """A first look at one part, and later ones at four: all that they spend together is bounded as that of one is."""
    counts = [{"all": 40}]
    counts += [{"all": 40 + n, "since": n, "a": n // 2, "b": n // 3} for n in (20, 40, 80, 160, 320)]
    asked = asked_of(counts)
    looks: dict[str, list[spending.Look]] = {}
    for evidence, levels in zip(counts, asked, strict=True):
        for part, level in levels.items():
            looks.setdefault(part, []).append((evidence[part], level))
    spent = sum(spending._walked(each)[1] for each in looks.values())
    assert 0.6 * MOST < spent <= MOST
    assert asked[1]["all"] < asked_of([counts[0], {"all": 60}])[1]["all"]


def test_nothing_new_lets_nothing_pass_that_did_not_pass() -> None:
    counts = [{"all": 10}, {"all": 40}]
    before = {
        "all": [(count["all"], level["all"]) for count, level in zip(counts, asked_of(counts), strict=True)]
    }
    again = spending.levels(before, {"all": 40}, 1)["all"]
    assert again == pytest.approx(before["all"][-1][1])
    assert spending.levels(before, {"all": 35}, 1)["all"] == pytest.approx(again), "labels were taken back"


def test_without_evidence_nothing_passes_and_later_looks_have_all_of_it() -> None:
    assert sign_test(0, 0) > spending.levels({}, {"all": 0}, 1)["all"]
    later = spending.levels({"all": [(0, LEVEL)]}, {"all": 400}, 1)["all"]
    assert LEVEL < later <= MOST
    assert spending.levels({"all": [(0, LEVEL)]}, {"all": 400}, 9)["all"] > later


def test_many_images_take_a_moment() -> None:
    looks = [(count, 0.01) for count in (500, 900, 1200, 1600)]
    assert LEVEL < spending.levels({"all": looks}, {"all": 2000}, 4)["all"] < MOST, "little was spent"
