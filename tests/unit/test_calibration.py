"""Temperatures, against simulated truth."""

import numpy as np
import pytest

from autovision.calibration import fit_temperature


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
