"""When a search may end before its budget."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autovision.search.progress import ProgressEvent
from autovision.search.stopping import Moment, converged, expected_gain, impatient, noise_of


def at(*pairs: tuple[float, float]) -> list[Moment]:
    return [Moment(*pair) for pair in pairs]


def drawn(n: int, *, seed: int = 0, every_s: float = 2.0) -> list[Moment]:
    """Trials whose values are random, with an exponential upper tail."""
    values = 0.8 - np.random.default_rng(seed).exponential(0.02, n)
    return [Moment(every_s * (i + 1), float(value)) for i, value in enumerate(values)]


def test_noise_shrinks_with_the_images() -> None:
    assert noise_of(0.9, 400) == pytest.approx(0.5 * 0.3 / 20)
    assert noise_of(0.9, 400) < noise_of(0.9, 100) < noise_of(0.6, 100)
    assert noise_of(1.0, 400) > 0, "a perfect value is an estimate, too"
    assert noise_of(-1.3, 400) > 0


def test_patience_counts_from_the_last_rise_above_noise() -> None:
    moments = at((10, 0.80), (20, 0.85), (30, 0.851), (40, 0.852))
    assert impatient(moments, 79, 60, 0.01) is None
    reason = impatient(moments, 81, 60, 0.01)
    assert reason is not None and "for 61 s (patience 60 s)" in reason


def test_small_steps_count_once_they_add_up() -> None:
    moments = at(*((10.0 * i, 0.80 + 0.004 * i) for i in range(1, 11)))
    assert impatient(moments, 120, 60, 0.01) is None


def test_the_order_in_which_rungs_are_told_does_not_matter() -> None:
    moments = at((20, 0.85), (10, 0.80), (30, 0.84))
    assert impatient(moments, 81, 60, 0.01) == impatient(
        sorted(moments, key=lambda m: m.search_s), 81, 60, 0.01
    )


def test_without_a_value_nothing_ends() -> None:
    assert impatient([], 1e6, 60, 0.01) is None
    assert impatient(at((5, math.nan)), 1e6, 60, 0.01) is None
    assert converged([], 1e6, 60, 0.01) is None


def test_the_expected_gain_is_that_of_what_was_drawn() -> None:
    """Of exponential tails the maximum of n + m exceeds that of n by about scale * log(1 + m / n), on average."""
    said, true = [], []
    for seed in range(300):
        everything = np.random.default_rng(seed).exponential(0.02, 120)
        moments = [Moment(float(i), float(value)) for i, value in enumerate(everything[:60])]
        said.append(expected_gain(moments, 60))
        true.append(max(everything) - max(everything[:60]))
    assert np.mean(said) == pytest.approx(np.mean(true), rel=0.35)


def test_more_trials_are_expected_to_gain_more_and_none_nothing() -> None:
    moments = drawn(40)
    gains = [expected_gain(moments, n) for n in (0, 1, 10, 1000)]
    assert gains == sorted(gains) and gains[0] == 0.0
    assert expected_gain(at(*((i, 0.7) for i in range(20))), 1000) == 0.0, "all alike"


def test_a_search_has_converged_when_the_rest_of_its_budget_buys_nothing() -> None:
    moments = drawn(60)
    assert converged(moments, 121, 10_000, 0.005) is None
    reason = converged(moments, 121, 4, 0.005)
    assert reason is not None and "remaining 4 s" in reason
    assert converged(moments, 121, 4, 1e-9) is None, "whoever counts everything is never done"
    assert converged(moments[:8], 17, 4, 0.005) is None, "too few to say"
    assert converged(moments, 121, 4, 0.005, ["resnet50"]) is None, "nobody knows what that one gives"


def test_the_trials_to_come_are_counted_at_the_pace_so_far() -> None:
    assert ProgressEvent(elapsed_s=10, budget_s=100, complete=4).more is None, "too early to say"
    assert ProgressEvent(elapsed_s=20, budget_s=100, complete=6, pruned=3, failed=1).more == 40
    assert ProgressEvent(elapsed_s=120, budget_s=100, complete=6).more == 0
