"""Which p-value is an alarm: one rate of false alarms for a deployment, shared among detectors and scales.

The expected number of false alarms in any number of windows is the sum of the tests' levels, however the tests depend
on one another; so each test gets a part of `1 / windows_per_false_alarm`, and these parts sum to it. That the level of
each test holds needs only that a window without drift is exchangeable with what it is compared with. That is so at
each test; and because windows without an alarm join what later ones are compared with, the p-values of one detector and
scale are even independent of each other as long as all of these are drawn from (conformal prediction's argument, Vovk
et al. 2005): one unlucky reference does not make a deployment raise alarm after alarm.
"""

from __future__ import annotations

from typing import Literal

Name = Literal["input", "quality", "prediction", "confidence", "accuracy"]

SHARES: dict[Name, float] = {
    "input": 0.40,
    "quality": 0.25,
    "accuracy": 0.15,
    "prediction": 0.10,
    "confidence": 0.10,
}
"""of the rate, by detector; what a detector cannot use, because there are no labels or pixels, stays unused"""
SCALES: dict[int, float] = {1: 0.50, 4: 0.25, 16: 0.25}
"""the latest so many windows together -> share of a detector's rate: a slow drift shows in many windows, not in one"""


def level(detector: Name, windows: int, windows_per_false_alarm: float) -> float:
    """The p-value at or below which a detector raises an alarm over the latest `windows`."""
    return SHARES[detector] * SCALES[windows] / windows_per_false_alarm
