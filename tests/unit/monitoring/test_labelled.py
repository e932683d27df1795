"""Accuracy by late labels, whatever was chosen to be labelled."""

import numpy as np
import pytest

from autovision.monitoring.detectors.labelled import Answers, accuracy_test, interval


def answers(n, rng, *, worse=0.0, hard=False, reviewed=False):
    """Answers that are right as often as their confidence says, less `worse`; `hard`: of low confidence."""
    confidence = rng.uniform(0.5, 0.65, n) if hard else rng.uniform(0.5, 1.0, n)
    return Answers(rng.random(n) < confidence - worse, confidence, np.full(n, reviewed))


@pytest.mark.parametrize(("hard", "reviewed"), [(False, False), (True, True)])
def test_false_alarms_are_rarer_than_stated_whatever_was_labelled(hard, reviewed):
    """400 tests; the bound is 3.3 standard errors above 0.05."""
    rng = np.random.default_rng(0)
    alarms = [
        accuracy_test(answers(250, rng), answers(60, rng, hard=hard, reviewed=reviewed), 0.05).alarm(0.05)
        for _ in range(400)
    ]
    assert np.mean(alarms) <= 0.086


def test_labels_of_what_is_hard_are_not_taken_for_a_fall():
    rng = np.random.default_rng(1)
    held_out, hard = answers(400, rng), answers(200, rng, hard=True, reviewed=True)
    found = accuracy_test(held_out, hard, 0.001)
    assert hard.right.mean() < held_out.right.mean() - 0.1
    assert not found.alarm(0.001)
    assert found.expected == pytest.approx(hard.right.mean(), abs=0.1)


@pytest.mark.parametrize("reviewed", [False, True])
def test_a_fall_is_found_and_a_rise_is_none(reviewed):
    rng = np.random.default_rng(2)
    worse = accuracy_test(answers(250, rng), answers(100, rng, worse=0.4, reviewed=reviewed), 0.001)
    assert worse.alarm(0.001) and worse.score >= worse.threshold and worse.score > 0.2
    better = accuracy_test(answers(250, rng), answers(100, rng, worse=-0.4, reviewed=reviewed), 0.001)
    assert not better.alarm(0.001) and better.score < 0


@pytest.mark.parametrize("alpha", [0.3, 0.01])
def test_alarm_and_threshold_agree(alpha):
    rng = np.random.default_rng(3)
    for worse in np.linspace(0, 0.5, 20):
        found = accuracy_test(answers(80, rng), answers(30, rng, worse=worse), alpha)
        assert found.alarm(alpha) == (found.score >= found.threshold - 1e-12)


def test_a_single_label_is_compared():
    held_out = Answers(np.ones(30, bool), np.linspace(0.5, 1, 30), np.zeros(30, bool))
    wrong = Answers(np.array([False]), np.array([0.9]), np.array([False]))
    found = accuracy_test(held_out, wrong, 0.001)
    assert found.p_value == pytest.approx(2 / 7), "one of the seven in its stratum is wrong"


def test_intervals_hold_the_share():
    assert interval(0, 10)[0] == 0 and interval(10, 10)[1] == 1
    low, high = interval(30, 100)
    assert low == pytest.approx(0.2124, abs=1e-3) and high == pytest.approx(0.3998, abs=1e-3)
