"""Accuracy without labels."""

import numpy as np
import pytest

from autovision.monitoring.detectors.labelled import Answers
from autovision.monitoring.estimate import estimate


def drawn(n, rng, low=0.5):
    """Calibrated answers."""
    confidence = rng.uniform(low, 1.0, n)
    return Answers(rng.random(n) < confidence, confidence, np.zeros(n, bool))


def test_the_interval_holds_the_accuracy_of_windows_like_the_held_out_images():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(60):
        window = drawn(100, rng)
        found = estimate(drawn(300, rng), window.confidence, rng)
        inside.append(found.low - 0.05 <= window.right.mean() <= found.high + 0.05)
        assert found.low <= found.value <= found.high
    assert np.mean(inside) >= 0.9


def test_less_sure_windows_are_estimated_to_be_less_right():
    rng = np.random.default_rng(1)
    held_out = drawn(2000, rng)
    unsure = held_out.confidence[held_out.confidence < 0.75]
    found = estimate(held_out, unsure, rng)
    assert found.held_out == pytest.approx(0.75, abs=0.04)
    assert found.value < found.held_out - 0.1
    assert found.by_difference == pytest.approx(0.625, abs=0.05), "calibrated: mean confidence"
    assert (found.n, found.held_out_n) == (len(unsure), 2000)


def test_how_far_it_can_be_off_is_tried_on_corrupted_images():
    rng = np.random.default_rng(2)
    held_out, plain = drawn(2000, rng), drawn(1000, rng)
    overconfident = Answers(plain.right & (rng.random(1000) < 0.5), plain.confidence, plain.reviewed)
    found = estimate(held_out, plain.confidence, rng, {"jpeg": plain, "blur": overconfident})
    assert found.tried["jpeg"] == pytest.approx(0, abs=0.05)
    assert found.tried["blur"] == pytest.approx(0.375, abs=0.05)


def test_a_model_that_is_never_wrong_is_expected_to_stay_so():
    held_out = Answers(np.ones(50, bool), np.linspace(0.9, 1, 50), np.zeros(50, bool))
    assert estimate(held_out, np.linspace(0.95, 1, 40), np.random.default_rng(0)).value == 1


def test_too_few_are_no_estimate():
    rng = np.random.default_rng(0)
    assert estimate(drawn(10, rng), np.ones(100), rng) is None
    assert estimate(drawn(100, rng), np.ones(10), rng) is None


def test_of_a_model_that_is_quite_sure_of_everything_no_more_is_promised_than_it_has_shown():
    held_out = Answers(np.arange(100) < 80, np.ones(100), np.zeros(100, bool))
    found = estimate(held_out, np.ones(60), np.random.default_rng(0))
    assert found.value == pytest.approx(0.8)
    assert found.low < 0.8 < found.high
    mixed = np.where(np.arange(60) < 15, 0.6, 1.0)
    assert estimate(held_out, mixed, np.random.default_rng(0)).value == pytest.approx(0.8 * 0.75)
