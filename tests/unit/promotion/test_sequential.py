"""What may be looked at after every request must hold at all times at once."""

from __future__ import annotations

import numpy as np
import pytest

from autovision.promotion.sequential import loses_more, share_bounds, share_is_larger


def test_without_anything_seen_any_share_is_possible() -> None:
    assert share_bounds(0, 0, 0.05) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(0, 40), (40, 40), (1, 40), (13, 40), (500, 10_000)])
def test_bounds_hold_what_was_seen_and_become_closer_with_more_of_it(successes: int, n: int) -> None:
    low, high = share_bounds(successes, n, 0.05)
    assert 0 <= low <= successes / n <= high <= 1
    closer_low, closer_high = share_bounds(10 * successes, 10 * n, 0.05)
    assert closer_high - closer_low < high - low
    wider_low, wider_high = share_bounds(successes, n, 0.001)
    assert wider_low <= low and wider_high >= high


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_a_true_share_is_hardly_ever_left_out_however_often_it_is_looked_at(share: float) -> None:
    rng, level, runs = np.random.default_rng(0), 0.1, 300
    left_out = 0
    for _ in range(runs):
        seen = np.cumsum(rng.random(1000) < share)
        looks = (share_bounds(int(seen[n - 1]), n, level) for n in range(5, 1001, 5))
        left_out += any(not low <= share <= high for low, high in looks)
    # Of 300 runs at most 30 are expected, with a standard deviation of 5.2.
    assert left_out <= 30 + 3 * 5.2


def test_equal_arms_are_told_apart_at_most_as_often_as_promised() -> None:
    rng, level, runs = np.random.default_rng(1), 0.2, 200
    alarms = 0
    for _ in range(runs):
        one, other = (np.cumsum(rng.random(600) < 0.1) for _ in range(2))
        alarms += any(
            share_is_larger(int(one[n - 1]), n, int(other[n - 1]), n, margin=0.0, level=level)
            for n in range(10, 601, 10)
        )
    assert alarms <= 40 + 3 * 5.7


def test_an_arm_that_fails_more_is_found_out_soon_and_the_margin_is_kept() -> None:
    assert share_is_larger(20, 100, 0, 1000, margin=0.01, level=0.01)
    assert not share_is_larger(2, 100, 0, 1000, margin=0.01, level=0.01)
    assert not share_is_larger(2_000, 100_000, 1_500, 100_000, margin=0.01, level=0.01)
    assert share_is_larger(2_000, 100_000, 1_500, 100_000, margin=0.0, level=0.01)


def test_evidence_of_losing_more_grows_with_losses_and_vanishes_with_gains() -> None:
    assert loses_more(0, 0) == pytest.approx(1.0)
    assert loses_more(10, 0) > 100 > loses_more(3, 0) > 1
    assert loses_more(0, 10) < 0.1
    assert loses_more(5_000, 0) > 1e100, "very much of it is no overflow"
    assert loses_more(0, 5_000) >= 0.0


def test_pairs_that_are_lost_as_often_as_won_are_no_evidence_at_any_time() -> None:
    rng, runs = np.random.default_rng(2), 300
    alarms = 0
    for _ in range(runs):
        lost = np.cumsum(rng.random(300) < 0.5)
        alarms += any(loses_more(int(lost[n - 1]), n - int(lost[n - 1])) >= 10 for n in range(1, 301))
    assert alarms <= 30 + 3 * 5.2
