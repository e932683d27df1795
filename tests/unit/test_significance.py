import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autovision.significance import (
    can_bound,
    chance_better,
    chance_not_worse,
    f1_change,
    f1_gain_lower_bound,
    independence_test,
    paired_lower_bound,
    sign_test,
)

Z = 1.6448536


@given(st.integers(0, 400), st.integers(0, 400))
def test_sign_test_is_the_exact_binomial_test(successes, failures):
    n = successes + failures
    assert sign_test(successes, failures) == pytest.approx(stats.binom.sf(successes - 1, n, 0.5), abs=1e-12)


def test_sign_test_of_many():
    assert sign_test(5200, 4800) == pytest.approx(stats.binom.sf(5199, 10_000, 0.5))


def test_lower_bound_of_a_published_case():
    """Tango (1998), table III: 44 pairs, 0 gained and 1 lost gives a 95 % interval of (-0.118, 0.061)."""
    assert paired_lower_bound(0, 1, 44, stats.norm.ppf(0.975)) == pytest.approx(-0.118, abs=0.0006)


def test_lower_bound_without_disagreement_is_that_of_wilson():
    assert paired_lower_bound(0, 0, 100, Z) == pytest.approx(-(Z**2) / (100 + Z**2), abs=1e-6)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 300))
def test_lower_bound_lies_below_the_difference_and_rises_with_gains(gained, lost, others):
    n = gained + lost + others + 1
    low = paired_lower_bound(gained, lost, n, Z)
    assert -1 <= low <= (gained - lost) / n + 1e-9
    assert paired_lower_bound(gained + 1, lost, n, Z) >= low - 1e-9


def test_lower_bound_keeps_its_level():
    """4,000 sets of 60 pairs with a true difference of -0.05: the bound lies above it in about 5 %."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(60, [0.05, 0.10, 0.85], 4000)
    bounds = [paired_lower_bound(gained, lost, 60, Z) for gained, lost, _ in counts]
    assert 0.03 <= np.mean(np.array(bounds) > -0.05) <= 0.065


def test_small_sets_cannot_bound():
    assert not can_bound(0, 0, 150, 0.03) and can_bound(0, 0, 250, 0.03)
    assert not can_bound(40, 40, 1000, 0.03 / 2) and can_bound(40, 40, 1000, 0.03)


def test_f1_gain():
    rng = np.random.default_rng(0)
    actual = rng.random(500) < 0.3
    better, worse = actual ^ (rng.random(500) < 0.05), actual ^ (rng.random(500) < 0.3)
    assert f1_gain_lower_bound(actual, worse, better) > 0.1
    assert f1_gain_lower_bound(actual, better, worse) < -0.2
    assert f1_gain_lower_bound(actual, better, better) == 0
    change, error = f1_change(actual, worse, better)
    assert f1_gain_lower_bound(actual, worse, better) == pytest.approx(change - Z * error, abs=0.005)
    assert f1_change(actual, better, better) == (0, 0)


@pytest.mark.parametrize("table", [[[8, 2], [3, 9]], [[30, 4], [3, 2]], [[5, 5], [6, 4]]])
def test_independence_test_is_fishers(table):
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    labels, answers = np.divmod(np.repeat(np.arange(4), np.ravel(table)), 2)
    worth = 1 / np.bincount(labels)
    assert independence_test(np.eye(2)[labels] > 0, np.eye(2)[answers] > 0, worth) == pytest.approx(
        expected, abs=0.02
    )


def test_independence_test_of_one_class_among_several_is_fishers():
    table = [[8, 2], [3, 9]]
    has, said = np.divmod(np.repeat(np.arange(4), np.ravel(table)), 2)
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    p = independence_test(has[:, None] > 0, said[:, None] > 0, np.ones(1))
    assert p == pytest.approx(expected, abs=0.01)


def test_independence_test_of_one_answer():
    labels = np.repeat([0, 1], [90, 10])
    has, said = np.eye(2)[labels] > 0, np.tile([True, False], (100, 1))
    assert independence_test(has, said, np.ones(2)) == 1


errors = st.floats(0, 0.3)


@given(st.floats(-1, 1), st.floats(-1, 1), errors, errors, st.floats(0.001, 0.2))
def test_the_chance_of_passing_rises_with_what_was_seen(one, other, error, noise, margin):
    worse, better = (
        chance_not_worse(difference, error, noise, margin) for difference in sorted((one, other))
    )
    assert 0 <= worse <= better + 1e-12 <= 1 + 1e-9


def test_where_little_was_seen_the_chance_is_that_of_an_equal_model():
    """A gate that sees little refuses one of twenty equal models: that is its level."""
    assert chance_not_worse(-0.03, 0.5, 0.1, 0.03) == pytest.approx(0.95, abs=0.01)
    assert chance_not_worse(0.03, 0.5, 0.1, 0.03) == pytest.approx(0.95, abs=0.01)


def test_where_much_was_seen_it_is_the_gates_power():
    """By simulation of McNemar's test (exact, 5 %) on 238 images of which 8 % tell the models apart."""
    rng = np.random.default_rng(0)
    n, apart = 238, 0.08
    for difference in (-0.04, -0.02, 0.0):
        lost, gained = (apart - difference) / 2, (apart + difference) / 2
        drawn = rng.multinomial(n, [lost, gained, 1 - lost - gained], 4000)
        passed = np.mean([sign_test(int(row[0]), int(row[1])) > 0.05 for row in drawn])
        chance = chance_not_worse(difference, 1e-4, np.sqrt(apart / n), 0.03)
        assert chance == pytest.approx(
            passed, abs=0.08
        )  # the exact test is a little easier than its normal form


@given(st.floats(-1, 1), st.floats(-1, 1), errors, errors, st.floats(0.001, 0.2))
def test_to_be_found_better_is_less_likely_than_not_to_be_found_worse(one, other, error, noise, margin):
    worse, better = (chance_better(difference, error, noise, margin) for difference in sorted((one, other)))
    assert 0 <= worse <= better + 1e-12 <= 1 + 1e-9
    assert worse <= chance_not_worse(min(one, other), error, noise, margin) + 1e-12


def test_an_equal_model_is_found_better_at_the_level_of_the_gate():
    assert chance_better(0.0, 1e-9, 0.01, 0.03) == pytest.approx(0.05, abs=0.001)
    assert chance_better(0.1, 1e-9, 0.01, 0.03) > 0.99
