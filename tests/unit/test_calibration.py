"""Temperatures, against simulated truth."""

import numpy as np
import pytest

from autovision.calibration import fit_shift, fit_temperature


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("n_classes", [2, 6])
def test_temperature_is_found_again(temperature, n_classes):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5000, n_classes)) * 2
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.07)


def test_temperature_ignores_offsets_and_huge_logits():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(400, 3)) * 300
    labels = (logits / 100 + rng.gumbel(size=logits.shape)).argmax(1)
    fitted = fit_temperature(logits, labels)
    assert fitted == pytest.approx(fit_temperature(logits + 1e4, labels), rel=1e-3)
    assert 10 < fitted <= 20.001


def test_temperature_stays_moderate_on_separated_and_on_hopeless_labels():
    labels = np.arange(100) % 2
    margins = np.where(labels == 1, 1.5, -1.5)
    separated = np.column_stack([-margins, margins])
    assert 0.2 < fit_temperature(separated, labels) < 0.9
    assert fit_temperature(separated * 20, labels) == pytest.approx(1.0, abs=0.01)
    assert fit_temperature(separated, 1 - labels) > 4
    assert fit_temperature(np.zeros((3, 2)), [0, 1, 1]) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_temperature_of_several_labels_is_found_again(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3000, 3)) * 2 - 1
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(int)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.07)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_temperature_and_shift_are_found_again(temperature):
    rng = np.random.default_rng(0)
    logits, shift = rng.normal(size=(6000, 3)) * 2, np.array([1.5, 0.0, -1.0])
    labels = (logits + shift + rng.gumbel(size=logits.shape)).argmax(1)
    found, moved = fit_shift(logits * temperature + 40.0, labels)
    assert found == pytest.approx(temperature, rel=0.07)
    assert moved - moved.mean() == pytest.approx((shift - shift.mean()) * temperature, abs=0.15 * temperature)


def test_shifts_of_several_labels_are_found_again():
    rng = np.random.default_rng(0)
    logits, shift = rng.normal(size=(4000, 2)) * 2, np.array([1.0, -2.0])
    labels = (logits + shift + rng.logistic(size=logits.shape) > 0).astype(int)
    found, moved = fit_shift(logits, labels)
    assert found == pytest.approx(1.0, rel=0.07) and moved == pytest.approx(shift, abs=0.2)


def test_a_shift_fits_no_worse_than_a_temperature_alone_and_stays_moderate():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(300, 2)) + np.array([0.0, 3.0])
    labels = (rng.random(300) < 0.3).astype(int)

    def log_loss(temperature, shift):
        z = (logits + shift) / temperature
        return -(z[np.arange(300), labels] - np.logaddexp.reduce(z, 1)).mean()

    assert log_loss(*fit_shift(logits, labels)) < log_loss(fit_temperature(logits, labels), 0.0) - 0.1
    temperature, shift = fit_shift(np.array([[2.0, -2.0], [-2.0, 2.0]]), [0, 0])
    assert 0.05 <= temperature <= 20 and abs(shift).max() < 10
