"""The drift test: its rate of false alarms, its power, and what it refuses."""

import numpy as np
import pytest

from autovision.errors import InvalidInput
from autovision.monitoring.detectors import drift_test

MOSTLY_SAME = np.ones((100, 4))
MOSTLY_SAME[:20] = np.random.default_rng(0).normal(size=(20, 4))


def p_values(draw, tests, *, shift=0.0, n=120, m=30, alpha=0.05, permutations=200):
    rng = np.random.default_rng(7)
    results = [
        drift_test(draw(n, rng), draw(m, rng, shift), alpha=alpha, seed=seed, permutations=permutations)
        for seed in range(tests)
    ]
    return np.array([result.p_value for result in results])


def test_false_alarms_come_at_the_stated_rate(embeddings):
    """400 windows without drift. The bounds are 3.3 standard errors around 0.05 and 0.2."""
    found = p_values(embeddings, 400)
    assert 0.014 <= np.mean(found <= 0.05) <= 0.086
    assert 0.134 <= np.mean(found <= 0.2) <= 0.266


def test_more_dimensions_than_rows_do_not_raise_the_rate():
    """Where a projection that saw the compared rows would alarm nearly always."""

    def draw(n, rng, shift=0.0):
        return rng.normal(size=(n, 200)) / np.sqrt(np.arange(1, 201))

    assert np.mean(p_values(draw, 60) <= 0.05) <= 0.15  # 3 expected; above 9 with a probability under 0.1 %


def test_alarms_are_rare_at_a_small_alpha(embeddings):
    assert np.sum(p_values(embeddings, 60, alpha=0.001, permutations=None) <= 0.001) <= 1


def test_shift_is_found(embeddings):
    assert np.mean(p_values(embeddings, 40, shift=1.5) <= 0.05) >= 0.95


def test_power_grows_with_the_shift(embeddings):
    power = [np.mean(p_values(embeddings, 60, shift=shift) <= 0.05) for shift in (0.0, 0.5, 1.5)]
    assert power[0] < power[1] <= power[2] == 1


def test_drift_off_the_plane_of_the_reference_is_found():
    """The reference lies in 40 dimensions and the window leaves it along a direction that was silent."""
    rng = np.random.default_rng(0)
    reference = np.column_stack([rng.normal(size=(300, 5)) * 10, rng.normal(size=(300, 35)), np.zeros(300)])
    window = reference[rng.integers(0, 300, 50)] + 0.0
    window[:, -1] = 12.0
    assert drift_test(reference, window, alpha=0.001, seed=0).alarm


@pytest.mark.parametrize(
    ("alpha", "permutations"), [(0.05, None), (0.001, None), (0.001, 500), (0.0001, 400)]
)
@pytest.mark.parametrize("shift", [0.0, 0.3, 0.6, 2.0])
def test_alarm_threshold_and_p_value_agree(embeddings, alpha, permutations, shift):
    rng = np.random.default_rng(1)
    result = drift_test(
        embeddings(200, rng), embeddings(40, rng, shift), alpha=alpha, seed=1, permutations=permutations
    )
    assert result.alarm == (result.score >= result.threshold) == (result.p_value <= alpha)
    assert 0 < result.p_value <= 1


def test_permutations_resolve_alpha(embeddings):
    rng = np.random.default_rng(1)
    reference, window = embeddings(100, rng), embeddings(20, rng)
    counts = {a: drift_test(reference, window, alpha=a, seed=0).permutations for a in (0.5, 0.001, 1e-5)}
    assert counts == {0.5: 200, 0.001: 5000, 1e-5: 20_000}


def test_tail_agrees_with_many_permutations(embeddings):
    """The threshold of alpha = 0.0005 from 2,000 permutations and a tail, and from 20,000 without."""
    rng = np.random.default_rng(3)
    reference, window = embeddings(200, rng), embeddings(40, rng)
    tail, exact = (
        drift_test(reference, window, alpha=0.0005, seed=0, permutations=count).threshold
        for count in (2000, 20_000)
    )
    assert tail == pytest.approx(exact, rel=0.2)


def test_same_input_gives_same_result(embeddings):
    rng = np.random.default_rng(1)
    reference, window = embeddings(100, rng), embeddings(20, rng)
    results = [drift_test(reference, window, alpha=0.05, seed=seed) for seed in (3, 3, 4)]
    assert results[0] == results[1] != results[2]


def test_units_of_the_embedding_do_not_matter(embeddings):
    rng = np.random.default_rng(1)
    reference, window = embeddings(100, rng), embeddings(20, rng, 0.5)
    plain = drift_test(reference, window, alpha=0.05, seed=0)
    scaled = drift_test(reference * 1e-6, window * 1e-6, alpha=0.05, seed=0)
    assert scaled.score == pytest.approx(plain.score)


def test_large_samples_are_thinned(embeddings):
    rng = np.random.default_rng(1)
    result = drift_test(embeddings(5000, rng), embeddings(3000, rng), alpha=0.05, seed=0)
    assert result.reference_n == 1000 and result.p_value > 0.001


def test_constant_window_is_drift(embeddings):
    rng = np.random.default_rng(1)
    assert drift_test(embeddings(200, rng), np.ones((20, 60)), alpha=0.01, seed=0).alarm


@pytest.mark.parametrize(
    ("reference", "window", "kwargs", "message"),
    [
        (np.ones((100, 4)), np.ones((10, 4)), {}, "are the same"),
        (MOSTLY_SAME, np.ones((10, 4)), {}, "most embeddings of the reference are the same"),
        (np.ones((100, 4)), np.ones((1, 4)), {}, "the window has 1 rows"),
        (np.ones((5, 4)), np.ones((10, 4)), {}, "the reference has 5 rows"),
        (np.ones((100, 4)), np.ones((10, 3)), {}, "have 4 numbers and the window's 3"),
        (np.ones((100, 4)), np.full((10, 4), np.nan), {}, "10 of the window's 10 embeddings are not finite"),
        (np.ones((100, 4)), [[1.0], [1.0, 2.0]], {}, "do not have the same length"),
        (np.ones(100), np.ones((10, 4)), {}, "shape"),
        (np.ones((100, 4)), np.ones((10, 4)), {"alpha": 0.0}, "alpha is 0.0"),
        (np.ones((100, 4)), np.ones((10, 4)), {"permutations": 10}, "10 permutations are too few"),
    ],
)
def test_degenerate_input_is_refused(reference, window, kwargs, message):
    with pytest.raises(InvalidInput, match=message):
        drift_test(reference, window, **{"alpha": 0.05, "seed": 0} | kwargs)
