"""Class shares without labels, against simulated truth."""

import numpy as np
import pytest

from autovision.priors import corrected, estimate, shares_of

BEFORE = np.array([0.7, 0.3])


def world(n, shares, *, seed, noise=1.0, moved=0.0):
    """Calibrated probabilities, under `BEFORE`, of images of classes with these shares; and the classes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(shares), n, p=shares)
    x = np.where(labels == 1, 1.0, -1.0) + noise * rng.normal(size=n) + moved
    odds = np.exp(2 * x / noise**2) * BEFORE[1] / BEFORE[0]
    return np.stack([1 / (1 + odds), odds / (1 + odds)], 1), labels


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_shares_are_found_again(share):
    p, _ = world(4000, [1 - share, share], seed=0)
    assert shares_of(p, BEFORE)[1] == pytest.approx(share, abs=0.03)


def test_corrected_probabilities_are_calibrated_under_the_new_shares():
    p, labels = world(200_000, [0.2, 0.8], seed=1)
    right = corrected(p, BEFORE, np.array([0.2, 0.8]))[:, 1]
    for low in (0.2, 0.5, 0.8):
        there = (right > low) & (right < low + 0.1)
        assert labels[there].mean() == pytest.approx(right[there].mean(), abs=0.02)


def test_more_classes_than_two():
    rng = np.random.default_rng(3)
    before, after = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7])
    labels = rng.choice(3, 3000, p=after)
    z = 2.0 * np.eye(3)[labels] + rng.normal(size=(3000, 3))
    likelihood = np.exp(2.0 * z)
    p = likelihood * before / (likelihood * before).sum(1, keepdims=True)
    assert shares_of(p, before) == pytest.approx(after, abs=0.04)


def test_a_shift_of_shares_alone_is_told_from_none_and_from_another_change():
    held_out, labels = world(500, BEFORE, seed=2)
    same, _ = world(300, BEFORE, seed=5)
    shares, truth = world(300, [0.15, 0.85], seed=6)
    other, _ = world(300, BEFORE, seed=7, noise=0.3, moved=-1.0)
    found = [estimate(new, held_out, labels, seed=0) for new in (same, shares, other)]
    assert found[0].p_same > 0.01
    assert found[1].p_same < 0.01 and found[1].p_only_shares > 0.05
    assert found[1].gain_low > 0
    assert found[2].p_only_shares < 0.05
    right = corrected(shares, found[1].before, found[1].after).argmax(1) == truth
    gained = right.mean() - (shares.argmax(1) == truth).mean()
    assert found[1].gain == pytest.approx(gained, abs=0.06)


def test_of_windows_without_a_shift_few_seem_to_have_one():
    """Of 30 windows: three or more at 1 % have a probability of 0.3 %, seven or more at 5 % one of 0.1 %."""
    found = []
    for seed in range(30):
        held_out, labels = world(300, BEFORE, seed=1000 + seed)
        found.append(estimate(world(150, BEFORE, seed=100 + seed)[0], held_out, labels, seed=seed))
    assert sum(each.p_same <= 0.01 for each in found) <= 2
    assert sum(each.p_only_shares <= 0.05 for each in found) <= 6


def test_the_same_seed_says_the_same():
    held_out, labels = world(200, BEFORE, seed=2)
    new, _ = world(100, [0.4, 0.6], seed=6)
    one, other = (estimate(new, held_out, labels, seed=4) for _ in range(2))
    assert (one.p_only_shares, one.gain_low) == (other.p_only_shares, other.gain_low)
