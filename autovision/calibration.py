"""Temperature scaling: probabilities that mean what they say."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from autovision.metrics import Floats, checked

_TEMPERATURES = (0.05, 20.0)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature that logits (N, C) are divided by to be calibrated on labels (N,) or (N, C).

    Temperature scaling (Guo et al. 2017); with several labels one temperature for the sigmoids of all classes.
    Minimises the total negative log-likelihood plus (log T)² / 2, a log-normal prior around 1. With a
    hundred rows the prior is worth less than one of them; where the labels are separated perfectly it
    alone keeps T from going to 0. T lies in 0.05 … 20. Raises `InvalidInput` as `score` does.
    """
    z, y = checked(logits, labels)
    if y.ndim == 2:  # the sigmoid of z is the softmax of (0, z): each decision is a row of two classes
        z, y = np.stack([np.zeros(z.size), z.ravel()], axis=1), y.ravel()
    z = z - z.max(1, keepdims=True)
    of_label = z[np.arange(len(y)), y]

    def loss(log_t: float) -> float:
        scaled = z / math.exp(log_t)
        nll = np.log(np.exp(scaled).sum(1)).sum() - of_label.sum() / math.exp(log_t)
        return float(nll) + log_t**2 / 2

    grid = np.linspace(math.log(_TEMPERATURES[0]), math.log(_TEMPERATURES[1]), 41)
    best = int(np.argmin([loss(t) for t in grid]))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    return math.exp(_golden_section(loss, low, high))


def fit_shift(logits: ArrayLike, labels: ArrayLike) -> tuple[float, Floats]:
    """A temperature, and a shift (C,) of the logits (N, C), for (logits + shift) / temperature to be calibrated.

    Bias-corrected temperature scaling (Alexandari et al. 2020): what a model knows stays, how often it says each class
    follows the labels (N,) or (N, C). Minimises the total negative log-likelihood plus half the squares of log T and of
    each class's shift / T, normal priors that a hundred rows outweigh. T lies in 0.05 … 20. Raises `InvalidInput` as
    `score` does.
    """
    z, y = checked(logits, labels)
    several = y.ndim == 2
    if not several:
        z = z - z.max(1, keepdims=True)
    target = y.astype(np.float64) if several else np.eye(z.shape[1])[y]

    def loss(at: Floats) -> tuple[float, Floats]:
        scaled = z / math.exp(at[0])
        s = scaled + at[1:]
        if several:
            nll = float((np.logaddexp(0, s) - target * s).sum())
            p = np.exp(-np.logaddexp(0, -s))
        else:
            log_p = s - np.logaddexp.reduce(s, 1, keepdims=True)
            nll, p = -float((target * log_p).sum()), np.exp(log_p)
        off = p - target
        gradient = np.concatenate([[-float((off * scaled).sum())], off.sum(0)]) + at
        return nll + float(at @ at) / 2, gradient

    ends = [tuple(math.log(t) for t in _TEMPERATURES), *([(None, None)] * z.shape[1])]
    found = minimize(loss, np.zeros(1 + z.shape[1]), jac=True, method="L-BFGS-B", bounds=ends)
    temperature = math.exp(float(found.x[0]))
    return temperature, np.asarray(found.x[1:] * temperature)


def _golden_section(f: Callable[[float], float], low: float, high: float, steps: int = 30) -> float:
    """Where `f`, which has one minimum between `low` and `high`, is least (Kiefer 1953)."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = f(left), f(right)
    for _ in range(steps):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = f(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = f(right)
    return (low + high) / 2
