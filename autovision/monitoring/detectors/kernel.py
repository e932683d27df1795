"""Input drift: a kernel two-sample test of projected embeddings, and the images that make up the difference.

The statistic is the unbiased squared maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012). Its witness
function tells how much an image is like what is normal, and how much like the window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autovision.errors import InvalidInput
from autovision.monitoring.detectors.permutation import Floats, Outcome, permutation_test
from autovision.monitoring.detectors.projection import squared_distances


def kernel_test(
    normal: Floats, window: Floats, *, gamma: float, alpha: float, rng: np.random.Generator
) -> Outcome:
    """Whether `window` (m, P) looks drawn from the distribution of `normal` (n, P).

    Raises `InvalidInput` for fewer than two rows of either.
    """
    n, m = len(normal), len(window)
    if m < 2 or n < 2:
        raise InvalidInput(f"the window has {m} rows and {n} are normal; drift can be judged from 2 on")
    kernel = np.exp(-gamma * squared_distances(np.concatenate([normal, window])))
    np.fill_diagonal(kernel, 0.0)
    row_sums = kernel.sum(1)
    total = float(row_sums.sum())

    def mmd2(members: Floats) -> Floats:
        # With z marking the window's rows, its pairs sum to z'Kz and the mixed ones to z'K1 - z'Kz.
        in_window = np.einsum("ij,ij->i", members @ kernel, members)
        mixed = members @ row_sums - in_window
        in_normal = total - 2 * mixed - in_window
        values: Floats = in_normal / (n * (n - 1)) + in_window / (m * (m - 1)) - 2 * mixed / (n * m)
        return values

    return permutation_test(mmd2, n, m, alpha=alpha, rng=rng)


@dataclass(frozen=True)
class Witness:
    """How like the normal rows each row is, rather than like the window: the lower, the more unlike."""

    normal: Floats
    """(n,)"""
    window: Floats
    """(m,)"""

    @property
    def unlikeness(self) -> Floats:
        """(m,) share of normal rows that are less unlike; uniform from 0 to 1 without drift."""
        at = np.searchsorted(np.sort(self.normal), self.window, side="right")
        share: Floats = 1 - at / len(self.normal)
        return share

    @property
    def normal_unlikeness(self) -> Floats:
        """(n,) the same of the normal rows themselves."""
        share: Floats = 1 - np.searchsorted(np.sort(self.normal), self.normal, side="right") / len(
            self.normal
        )
        return share


def witness(normal: Floats, window: Floats, gamma: float) -> Witness:
    """The witness function of the discrepancy at each row, which itself does not count."""
    n, m = len(normal), len(window)
    kernel = np.exp(-gamma * squared_distances(np.concatenate([normal, window])))
    np.fill_diagonal(kernel, 0.0)
    to_normal, to_window = kernel[:, :n].sum(1), kernel[:, n:].sum(1)
    own, other = max(n - 1, 1), max(m - 1, 1)
    return Witness(to_normal[:n] / own - to_window[:n] / m, to_normal[n:] / n - to_window[n:] / other)


def typical(normal: Floats, gamma: float, count: int) -> list[int]:
    """Numbers of the rows in the midst of the others, each of them unlike the ones before (kernel herding).

    Chen, Welling & Smola 2010.
    """
    kernel = np.exp(-gamma * squared_distances(normal))
    mean, so_far = kernel.mean(1), np.zeros(len(normal))
    chosen: list[int] = []
    for step in range(min(count, len(normal))):
        value = mean - so_far / (step + 1)
        value[chosen] = -np.inf
        chosen.append(int(value.argmax()))
        so_far += kernel[chosen[-1]]
    return chosen
