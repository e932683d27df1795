"""Permutation tests: exact however early they end."""

import numpy as np
import pytest

from autovision.monitoring.detectors.permutation import ENOUGH, LEAST, deal, permutation_test


def mean_difference(values):
    return lambda members: np.abs(members @ (values - values.mean()))


def p_values(tests, *, alpha=0.05, n=40, m=20, shift=0.0):
    rng = np.random.default_rng(3)
    found = []
    for _ in range(tests):
        values = rng.normal(size=n + m)
        values[n:] += shift
        found.append(permutation_test(mean_difference(values), n, m, alpha=alpha, rng=rng))
    return found


def test_p_values_are_uniform_without_a_difference():
    """600 tests. The bounds are 3.3 standard errors."""
    found = np.array([each.p_value for each in p_values(600)])
    for level in (0.05, 0.2, 0.5, 0.8):
        error = 3.3 * np.sqrt(level * (1 - level) / 600)
        assert level - error <= np.mean(found <= level) <= level + error


def test_a_test_without_a_difference_ends_early():
    calm = next(each for each in p_values(20, alpha=1e-4) if each.p_value > 0.2)
    assert len(calm.null) == LEAST < 1e4
    assert calm.p_value == pytest.approx(np.mean(calm.null >= calm.score), abs=0.15)
    assert (ENOUGH / calm.p_value).is_integer() or ENOUGH / calm.p_value == pytest.approx(
        round(ENOUGH / calm.p_value)
    )


@pytest.mark.parametrize("alpha", [0.05, 0.001, 1e-4])
@pytest.mark.parametrize("shift", [0.0, 0.8, 4.0])
def test_alarm_threshold_and_p_value_agree(alpha, shift):
    for each in p_values(3, alpha=alpha, shift=shift):
        assert each.alarm == (each.score >= each.threshold) == (each.p_value <= alpha)
        assert 0 < each.p_value <= 1
    if shift == 4.0:
        assert each.alarm


def test_levels_beyond_the_deals_are_read_off_a_tail():
    values = np.concatenate([np.zeros(40), np.full(20, 5.0)]) + np.random.default_rng(0).normal(size=60)
    rng = np.random.default_rng(0)
    found = permutation_test(mean_difference(values), 40, 20, alpha=1e-5, rng=rng, most=4000)
    assert len(found.null) == 4000 and found.alarm and found.p_value < 1e-5
    weaker = np.concatenate([np.zeros(40), np.full(20, 0.9)]) + np.random.default_rng(0).normal(size=60)
    assert not permutation_test(mean_difference(weaker), 40, 20, alpha=1e-5, rng=rng, most=4000).alarm


def test_deals_are_of_the_same_size_and_at_random():
    dealt = deal(400, 30, 10, np.random.default_rng(0))
    assert (dealt.sum(1) == 10).all() and set(np.unique(dealt)) == {0.0, 1.0}
    assert np.abs(dealt.mean(0) - 0.25).max() < 0.09
