"""Bounds of shares, against values of the literature and by drawing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autovision.retraining.accuracy import Share, least_difference


def test_the_interval_is_that_of_the_literature() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 5.
    for right, n, low, high in [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0, 0.1684)]:
        assert Share(n, right).interval(0.025) == pytest.approx((low, high), abs=5e-5)
    assert Share(29, 29).interval(0.025)[1] == 1


def test_nothing_is_known_of_no_answers() -> None:
    assert Share(0, 0).interval(0.01) == (0, 1)
    assert math.isnan(Share(0, 0).value)


@pytest.mark.parametrize("truth", [0.6, 0.9, 0.97])
def test_an_accuracy_that_is_as_good_is_called_too_low_as_rarely_as_stated(truth: float) -> None:
    drawn = np.random.default_rng(0).binomial(100, truth, 20_000).tolist()
    above = {right: Share(100, right).interval(0.01)[1] for right in set(drawn)}
    assert np.mean([above[right] < truth for right in drawn]) <= 0.0115


@pytest.mark.parametrize("truth", [0.6, 0.9, 0.97])
def test_a_difference_that_is_none_is_found_as_rarely_as_stated(truth: float) -> None:
    random = np.random.default_rng(0)
    pairs = list(zip(random.binomial(300, truth, 5_000), random.binomial(100, truth, 5_000), strict=True))
    least = {
        pair: least_difference(Share(300, int(pair[0])), Share(100, int(pair[1])), 0.01)
        for pair in set(pairs)
    }
    assert np.mean([least[pair] > 0 for pair in pairs]) <= 0.0115


def test_a_difference_that_is_there_is_found() -> None:
    assert least_difference(Share(400, 380), Share(200, 150), 0.001) == pytest.approx(0.1, abs=0.02)
    assert least_difference(Share(10, 9), Share(10, 8), 0.025) < 0
