"""Probabilities of labelled images by something that has not seen their labels: embeddings, and heads in folds.

The embeddings are those of a backbone as it was before any training here, from the store of frozen features: so no
label has left a trace in them (unless the weights were imported, and made from these very images). Logistic
regressions on them are trained fold by fold: the one that judges an image has seen neither it nor any of its group,
which near-duplicates share.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from autovision.features.views import Views
from autovision.metrics import Floats, Ints
from autovision.model.heads import tapped_stages
from autovision.space.config import TrialConfig
from autovision.trial.data import columns_of
from autovision.trial.folds import FOLDS, divided, kinds_of
from autovision.trial.workbench import Workbench

_COMPONENTS = 128
_STRENGTH = 0.1
"""inverse regularization, of embeddings whose components have a variance of 1 on average"""


def embedding_config(config: TrialConfig) -> TrialConfig:
    """The backbone of a configuration as it is, its last stage averaged."""
    return TrialConfig(
        backbone=config.backbone, weights=config.weights, resolution=config.resolution, pooling="avg"
    )


def embeddings(
    bench: Workbench, config: TrialConfig, images: Sequence[str], *, compute: bool = True
) -> dict[str, np.ndarray]:
    """digest -> (D,) float32, of the pretrained backbone of a configuration; what the store lacks is computed.

    Args:
        compute: otherwise images that the store has no features of are left out.

    Raises:
        KeyNotFound, CorruptObject: an image is not in the store, or can no longer be decoded.
    """
    own, source = embedding_config(config), bench.source(config)
    wanted = list(dict.fromkeys(images))
    if not compute:
        lacking = source.lacking(wanted)
        wanted = [image for image in wanted if image not in lacking]
    if not wanted:
        return {}
    channels = bench.channels(own)
    columns = columns_of(own, channels, tapped_stages(own, len(channels)))
    prefix = source.prefix(wanted, Views(), cut=None, columns=columns, deadline=math.inf)
    rows = np.arange(len(wanted))
    pooled = prefix.take(np.zeros_like(rows), rows)[1]
    assert pooled is not None
    return dict(zip(wanted, pooled.astype(np.float32), strict=True))


def out_of_sample(x: np.ndarray, truth: Ints, classes: int, groups: Sequence[str], seed: int) -> Floats:
    """(N, C) probabilities, each by a head that saw neither the image nor its group; NaN where there were no folds.

    Args:
        x: (N, D) embeddings.
        truth: (N,) indices of classes, or (N, C) zeros and ones.
        groups: (N,).
    """
    fold = divided(kinds_of(truth), groups, FOLDS, seed)
    found = np.full((len(x), classes), np.nan)
    if len(set(fold.tolist())) < 2:
        return found
    z = _projected(x, seed)
    for number in sorted(set(fold.tolist())):
        there = fold == number
        if truth.ndim == 1:
            found[there] = _fit(z[~there], truth[~there], z[there], classes)
        else:
            columns = [_fit(z[~there], truth[~there, c], z[there], 2)[:, 1] for c in range(classes)]
            found[there] = np.stack(columns, 1)
    return found


def _projected(x: np.ndarray, seed: int) -> np.ndarray:
    """The main components, with a variance of 1 on average. No label has a part in them."""
    components = min(_COMPONENTS, *x.shape)
    z = PCA(components, random_state=seed).fit_transform(x.astype(np.float64))
    return np.asarray(z / max(float(z.std()), 1e-12))


def _fit(x: np.ndarray, y: Ints, new: np.ndarray, classes: int) -> Floats:
    """Probabilities (M, C); classes that none of the images has get 0."""
    said = np.zeros((len(new), classes))
    present = np.unique(y)
    if len(present) == 1:
        said[:, present[0]] = 1.0
        return said
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly there is near enough
        head = LogisticRegression(C=_STRENGTH, max_iter=300).fit(x, y)
    said[:, present] = head.predict_proba(new)
    return said
