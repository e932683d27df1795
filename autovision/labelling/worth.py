"""Which unlabelled images to ask about: those that a model is unsure of, and of these such as differ (BADGE).

An image's gradient embedding is what the last layer would learn from it if the model's answer were its label: the
outer product of (probabilities - answer) and the embedding. It is long where the model is unsure, and points elsewhere
for images that would teach something else. k-means++ on these (Arthur & Vassilvitskii 2007) draws images that are both
(Ash et al. 2020). Distances are computed from the two factors; the products themselves are never made.
"""

from __future__ import annotations

import numpy as np

from autovision.metrics import THRESHOLD, Floats

MOST = 20_000
"""images that are drawn from: the ones that the model is least sure of"""


def uncertainty(probabilities: Floats, *, multi_label: bool) -> Floats:
    """(N,) 0 to 1: one minus the margin between the two likeliest classes; of several labels, of the least sure one."""
    if multi_label:
        sure: Floats = np.abs(2 * probabilities - 1).min(1)
        return 1 - sure
    two = np.sort(probabilities, axis=1)[:, -2:]
    margin: Floats = two[:, 1] - two[:, 0]
    return 1 - margin


def most_worth(
    probabilities: Floats, embeddings: Floats, number: int, *, multi_label: bool, seed: int
) -> list[int]:
    """Rows of up to `number` images, in the order in which they were drawn: the first is the one of most effect.

    Args:
        probabilities: (N, C).
        embeddings: (N, D), of one model.
    """
    if not len(probabilities):
        return []
    rows = np.argsort(-uncertainty(probabilities, multi_label=multi_label), kind="stable")[:MOST]
    p, h = probabilities[rows], embeddings[rows].astype(np.float64)
    answer = p > THRESHOLD if multi_label else np.eye(p.shape[1], dtype=bool)[p.argmax(1)]
    a = p - answer
    h = h / max(float(np.linalg.norm(h, axis=1).mean()), 1e-12)
    length = (a**2).sum(1) * (h**2).sum(1)
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    distance = length.copy()
    while len(chosen) < min(number, len(rows)):
        total = distance.sum()
        if not chosen:
            at = int(length.argmax())
        elif total > 0:
            at = int(np.searchsorted(np.cumsum(distance), rng.random() * total, side="right"))
            at = min(at, len(rows) - 1)
        else:  # nothing is left that would teach anything else
            break
        chosen.append(at)
        apart = length + length[at] - 2 * (a @ a[at]) * (h @ h[at])
        distance = np.minimum(distance, np.maximum(apart, 0.0))
        distance[chosen] = 0.0
    return [int(rows[at]) for at in chosen]
