"""Intervals of shares, against values of the literature and by counting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autovision.retraining.accuracy import Share, least_difference


def test_wilsons_interval_is_that_of_the_literature() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    for right, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)]:
        assert Share(n, right).interval(0.025) == pytest.approx((low, high), abs=5e-5)
    assert Share(29, 29).interval(0.025)[1] == 1


def test_the_difference_is_that_of_the_literature() -> None:
    # Newcombe 1998, "Interval estimation for the difference between independent proportions", table II, method 10.
    assert least_difference(Share(70, 56), Share(80, 48), 0.025) == pytest.approx(0.0524, abs=5e-5)


def test_nothing_is_known_of_no_answers() -> None:
    assert Share(0, 0).interval(0.01) == (0, 1)
    assert math.isnan(Share(0, 0).value)


def test_an_accuracy_that_is_as_good_is_called_too_low_as_rarely_as_stated() -> None:
    drawn = np.random.default_rng(0).binomial(100, 0.9, 20_000)
    above = {right: Share(100, right).interval(0.01)[1] for right in set(drawn.tolist())}
    assert np.mean([above[right] < 0.9 for right in drawn.tolist()]) <= 0.012
