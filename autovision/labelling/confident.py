"""Labels that are probably wrong: confident learning (Northcutt, Jiang & Chuang 2021).

A class's threshold is the mean probability that its own images get for it: how sure one may be of this class at all.
Of the classes whose threshold an image's probability reaches, the likeliest is what it shows. Where that is another one
than the label's, the label is probably wrong; the farther the label's probability is behind, the more so.

Probabilities have to be out-of-sample: a model that was trained on a wrong label has learnt it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autovision.metrics import Floats, Ints

_FEWEST = 3
"""images of a class that its threshold is a mean of, at least"""


@dataclass(frozen=True)
class Suspect:
    """A label that is probably wrong.

    Attributes:
        row: of the arrays.
        column: the class that it should be; with several labels the one that should be there, or should not.
        margin: 0 to 1: how much more probable that is than what the label says.
    """

    row: int
    column: int
    margin: float


def suspects(probabilities: Floats, labels: Ints) -> list[Suspect]:
    """Probably wrong labels, the clearest first; of several labels an image the clearest one.

    Args:
        probabilities: (N, C), out-of-sample. Rows with NaN are left out.
        labels: (N,) indices, or (N, C) zeros and ones where an image may have any number of classes.
    """
    known = np.flatnonzero(~np.isnan(probabilities).any(1))
    p, y = probabilities[known], labels[known]
    if not len(p):
        return []
    if y.ndim == 1:
        columns, margins = _of_one(p, y)
    else:
        each = [_of_one(np.stack([1 - p[:, c], p[:, c]], 1), y[:, c])[1] for c in range(p.shape[1])]
        table = np.stack(each, 1)
        columns, margins = table.argmax(1), table.max(1)
    found = [Suspect(int(known[i]), int(columns[i]), float(margins[i])) for i in np.flatnonzero(margins > 0)]
    return sorted(found, key=lambda one: (-one.margin, one.row))


def _of_one(p: Floats, y: Ints) -> tuple[Ints, Floats]:
    """(N,) classes that are meant, and margins: 0 where the label stands."""
    classes = p.shape[1]
    counts = np.bincount(y, minlength=classes)
    rows = np.arange(len(p))
    sums = np.bincount(y, p[rows, y], minlength=classes)
    thresholds = np.where(counts >= _FEWEST, sums / np.maximum(counts, 1), np.inf)
    confident = np.where(p >= thresholds, p, -1.0)
    meant = confident.argmax(1)
    differs = (confident[rows, meant] >= 0) & (meant != y)
    return meant, np.where(differs, np.maximum(p[rows, meant] - p[rows, y], 1e-9), 0.0)
