"""Drift of embeddings: a kernel two-sample test with a calibrated rate of false alarms.

The statistic is the unbiased squared maximum mean discrepancy (Gretton et al. 2012) with a Gaussian
kernel, and its null distribution comes from permutations of the pooled sample. A permutation test is
exact only if reference and window are treated alike. A projection is not neutral towards the rows that
it was fitted on: with 1,280 dimensions and 500 rows, a test against those same rows alarms on nearly
every window without drift. The reference is therefore split: one part fits the projection, the
other is compared with the window.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autovision.errors import InvalidInput

Floats = NDArray[np.float64]

MIN_REFERENCE = 40
MIN_PERMUTATIONS = 200
MAX_PERMUTATIONS = 20_000
_PER_ALPHA = 5
_TAIL_SHARE = 0.02
_COMPONENTS = 31
_MOST_ROWS = 1000
_CHUNK = 1000
_ROUNDING = 1e-9


@dataclass(frozen=True)
class DriftResult:
    """The outcome of one test."""

    score: float
    """unbiased squared MMD; around 0 without drift, and may be negative"""
    threshold: float
    """an alarm at or above"""
    p_value: float
    alarm: bool
    permutations: int
    reference_n: int
    """rows of the reference that the window was compared with"""


def drift_test(
    reference: ArrayLike, window: ArrayLike, *, alpha: float, seed: int, permutations: int | None = None
) -> DriftResult:
    """Whether `window` (m, d) looks drawn from the distribution of `reference` (n, d).

    A window without drift alarms with probability at most `alpha`, on average over references. The
    reference must not have trained the embedding: rows that a network was fitted on look unlike new
    ones without any drift. From large samples at most 1,000 rows enter each part of the test, drawn
    by `seed`, which also draws the permutations: the same input gives the same result.

    `permutations` of None means 5 / alpha, at least 200 and at most 20,000. With fewer than 5 / alpha,
    quantiles beyond the highest 2 % of the permutations are read off an exponential tail through
    them. That is an approximation, and a rough one from few permutations: 1,000 at an alpha of 0.001
    alarmed on 8 of 4,000 windows without drift.

    Raises `InvalidInput` for arrays that are not of the same width, not finite, constant or too small.
    """
    _check_test(alpha, permutations)
    reference, window = _check_rows(reference, window)
    rng = np.random.default_rng(seed)
    fitted, compared = _split(reference, rng)
    project = _fit_projection(fitted)
    rows, recent = project(compared), project(_at_most(window, _MOST_ROWS, rng))
    gamma = 1 / (2 * _median_squared_distance(project(fitted)))
    kernel = np.exp(-gamma * _squared_distances(np.concatenate([rows, recent])))
    count = permutations or min(max(math.ceil(_PER_ALPHA / alpha), MIN_PERMUTATIONS), MAX_PERMUTATIONS)
    score, null = _permuted_mmd2(kernel, len(rows), count, rng)
    threshold = _threshold(null, alpha)
    return DriftResult(
        score=score,
        threshold=threshold,
        p_value=_p_value(null, score, alpha),
        alarm=score >= threshold,
        permutations=count,
        reference_n=len(rows),
    )


# -------------------------------------------------------------------------------------------- the input


def _check_test(alpha: float, permutations: int | None) -> None:
    if not 0 < alpha < 1:
        raise InvalidInput(f"alpha is {alpha}; a rate of false alarms lies between 0 and 1")
    if permutations is not None and permutations < MIN_PERMUTATIONS:
        raise InvalidInput(
            f"{permutations} permutations are too few for a test; allow {MIN_PERMUTATIONS} or more"
        )


def _check_rows(reference: ArrayLike, window: ArrayLike) -> tuple[Floats, Floats]:
    a, b = _as_rows(reference, "reference"), _as_rows(window, "window")
    if a.shape[1] != b.shape[1]:
        raise InvalidInput(
            f"the reference's embeddings have {a.shape[1]} numbers and the window's {b.shape[1]}; "
            "compare embeddings of one model"
        )
    if len(a) < MIN_REFERENCE:
        raise InvalidInput(f"the reference has {len(a)} rows; give at least {MIN_REFERENCE}")
    if len(b) < 2:
        raise InvalidInput(f"the window has {len(b)} rows; drift can be judged from 2 on")
    return a, b


def _as_rows(values: ArrayLike, name: str) -> Floats:
    try:
        rows = np.asarray(values, np.float64)
    except ValueError as error:
        raise InvalidInput(
            f"the {name}'s embeddings do not have the same length; compare those of one model"
        ) from error
    if rows.ndim != 2 or not rows.shape[1]:
        raise InvalidInput(f"the {name}'s embeddings have the shape {rows.shape}; give (rows, dimensions)")
    broken = int((~np.isfinite(rows)).any(1).sum())
    if broken:
        raise InvalidInput(f"{broken} of the {name}'s {len(rows)} embeddings are not finite; leave them out")
    return rows


def _split(reference: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Rows to fit the projection on, and other rows to compare the window with."""
    order = rng.permutation(len(reference))
    half = len(reference) // 2
    return reference[order[:half][:_MOST_ROWS]], reference[order[half:][:_MOST_ROWS]]


def _at_most(rows: Floats, most: int, rng: np.random.Generator) -> Floats:
    return rows if len(rows) <= most else rows[np.sort(rng.permutation(len(rows))[:most])]


# --------------------------------------------------------------------------------------- the projection


def _fit_projection(fitted: Floats) -> Callable[[Floats], Floats]:
    """Map (k, d) to (k, ≤ 32): the leading principal components, and the distance from their plane.

    The distance makes drift visible that leaves the plane, as inputs of a new kind do. It is brought
    to the scale of the first component on rows that did not fit the plane.
    """
    basis, held_out = fitted[: len(fitted) * 3 // 4], fitted[len(fitted) * 3 // 4 :]
    mean, scale = basis.mean(0), basis.std(0)
    varying = scale > 1e-9 * max(1.0, float(np.abs(mean).max()))
    if not varying.any():
        raise InvalidInput("all embeddings of the reference are the same; capture some that a model computed")
    # A dimension that was still and begins to move shows up in the distance, in its neighbours' unit.
    scale = np.where(varying, scale, np.median(scale[varying]))
    standard = (basis - mean) / scale
    _, _, axes = np.linalg.svd(standard, full_matrices=False)
    plane = axes[:_COMPONENTS].T

    def project(rows: Floats) -> tuple[Floats, Floats]:
        z = (rows - mean) / scale
        within = z @ plane
        return within, np.linalg.norm(z - within @ plane.T, axis=1)

    within, distance = project(held_out)
    unit = float(within[:, 0].std()) / max(float(distance.std()), 1e-9)
    centre = float(distance.mean())

    def features(rows: Floats) -> Floats:
        within, distance = project(rows)
        return np.column_stack([within, (distance - centre) * unit])

    return features


def _squared_distances(rows: Floats) -> Floats:
    norms = np.einsum("ij,ij->i", rows, rows)
    sums = norms[:, None] + norms
    squared: Floats = sums - 2 * rows @ rows.T
    # Of equal rows the difference leaves what was rounded, and how much depends on the processor.
    return np.where(squared > _ROUNDING * sums, squared, 0.0)


def _median_squared_distance(rows: Floats) -> float:
    """Over pairs of different rows (the median heuristic)."""
    median = float(np.median(_squared_distances(rows)[np.triu_indices(len(rows), 1)]))
    if median <= 0:
        raise InvalidInput("most embeddings of the reference are the same; capture some of different images")
    return median


# ------------------------------------------------------------------------------------- the distribution


def _permuted_mmd2(
    kernel: Floats, n: int, permutations: int, rng: np.random.Generator
) -> tuple[float, Floats]:
    """The statistic with the first `n` rows as the reference, and its values under permutations.

    With z marking the window's rows, its pairs sum to zᵀKz and the mixed ones to zᵀK1 - zᵀKz, so that
    a thousand permutations are one matrix product.
    """
    np.fill_diagonal(kernel, 0.0)
    total = len(kernel)
    m = total - n
    row_sums = kernel.sum(1)

    def mmd2(members: Floats) -> Floats:
        in_window = np.einsum("ij,ij->i", members @ kernel, members)
        mixed = members @ row_sums - in_window
        in_reference = row_sums.sum() - 2 * mixed - in_window
        values: Floats = in_reference / (n * (n - 1)) + in_window / (m * (m - 1)) - 2 * mixed / (n * m)
        return values

    observed = np.zeros((1, total))
    observed[0, n:] = 1
    null = np.empty(permutations)
    for start in range(0, permutations, _CHUNK):
        count = min(_CHUNK, permutations - start)
        chosen = np.argpartition(rng.random((count, total)), m - 1, axis=1)[:, :m]
        members = np.zeros((count, total))
        np.put_along_axis(members, chosen, 1.0, axis=1)
        null[start : start + count] = mmd2(members)
    return float(mmd2(observed)[0]), null


def _resolved(null: Floats, alpha: float) -> bool:
    """Whether the permutations alone can tell probabilities of `alpha`."""
    return len(null) * alpha > _PER_ALPHA - 1e-9


def _tail(null: Floats) -> tuple[float, float, float]:
    """Where the exponential tail begins, its mean excess, and the probability of being beyond its begin.

    Excesses over a high threshold: Pickands 1975, with shape 0.
    """
    beyond = max(int(len(null) * _TAIL_SHARE), _PER_ALPHA)
    highest = np.sort(null)[-beyond - 1 :]
    start = float(highest[0])
    excess = max(float(np.mean(highest[1:] - start)), float(np.finfo(np.float64).tiny))
    return start, excess, (beyond + 1) / (len(null) + 1)


def _threshold(null: Floats, alpha: float) -> float:
    """The least score whose p-value is at most `alpha`."""
    if not _resolved(null, alpha):
        start, excess, share = _tail(null)
        return start + excess * math.log(share / alpha)
    # p = (1 + permutations at or above) / (1 + permutations), so this many may be at or above.
    allowed = math.floor(alpha * (len(null) + 1) + 1e-9) - 1
    return math.nextafter(float(np.sort(null)[-1 - allowed]), math.inf)


def _p_value(null: Floats, score: float, alpha: float) -> float:
    if not _resolved(null, alpha):
        start, excess, share = _tail(null)
        if score > start:
            return share * math.exp(-(score - start) / excess)
    return (1 + int(np.count_nonzero(null >= score))) / (1 + len(null))
