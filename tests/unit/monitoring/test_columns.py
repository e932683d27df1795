"""Figures and answers: whether any of several means moved."""

import numpy as np

from autovision.monitoring.detectors.columns import columns_test, robust, with_spread


def found(shift=0.0, seed=0, alpha=0.01, spread=1.0, columns=6):
    rng = np.random.default_rng(seed)
    normal, window = rng.normal(size=(150, columns)), rng.normal(size=(50, columns))
    window[:, 2] = window[:, 2] * spread + shift
    return columns_test(*robust(normal, window), alpha=alpha, rng=rng)


def test_many_columns_do_not_raise_the_rate():
    """300 tests of 12 columns; the bound is 3.3 standard errors above 0.05."""
    assert np.mean([found(seed=seed, alpha=0.05)[0].alarm for seed in range(300)]) <= 0.092


def test_the_column_that_moved_is_named_first():
    outcome, columns = found(shift=1.5)
    assert outcome.alarm and columns[0].number == 2 and columns[0].p_value == outcome.p_value
    others = [each.p_value for each in columns if each.number not in (2, 8)]
    assert min(others) > 0.01, "nothing else moved"


def test_wider_spread_is_found_where_no_mean_moves():
    outcome, columns = found(spread=3.0)
    assert outcome.alarm and with_spread("abcdef")[columns[0].number] == "spread of c"


def test_a_column_that_never_changes_says_nothing():
    rng = np.random.default_rng(0)
    normal, window = np.ones((60, 2)), np.ones((40, 2))
    normal[:, 1], window[:, 1] = rng.normal(size=60), rng.normal(size=40)
    outcome, columns = columns_test(normal, window, alpha=0.01, rng=rng)
    assert [each.number for each in columns] == [1] and not outcome.alarm
    silent, none = columns_test(np.ones((60, 2)), np.ones((40, 2)), alpha=0.01, rng=rng)
    assert not silent.alarm and silent.p_value == 1 and none == []


def test_one_odd_image_is_no_drift():
    rng = np.random.default_rng(1)
    normal, window = rng.normal(size=(150, 3)), rng.normal(size=(50, 3))
    window[0] = 1e9
    assert not columns_test(*robust(normal, window), alpha=0.001, rng=rng)[0].alarm


def test_what_differs_by_rounding_alone_does_not_move():
    """Images of one size: its logarithm in 64 bits, and in 32."""
    normal, window = np.full((60, 1), np.log(90_000)), np.full((40, 1), np.log(90_000))
    rounded = window.astype(np.float32).astype(np.float64)
    assert (rounded != window).all()
    outcome, moved = columns_test(*robust(normal, rounded), alpha=0.01, rng=np.random.default_rng(0))
    assert not outcome.alarm and moved == []
