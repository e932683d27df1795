"""Which data sets look alike to a backbone, so that what won on one is tried early on another.

The pooled features of a version's training images are kept as a *sketch*: their mean and covariance after a fixed
random projection to a few dimensions, which keeps distances nearly as they are (Johnson & Lindenstrauss 1984). Two
sketches are as far apart as two normal distributions are (Fréchet distance, Dowson & Landau 1982), as a share of
their spread, and a little farther where the numbers of classes or images differ. Sketches are made from features that
a search has computed anyway, for whichever backbone it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autovision.features.views import Views
from autovision.model.heads import tapped_stages
from autovision.records.base import Record
from autovision.records.datasets import DatasetVersion, Split
from autovision.search.costing.inventory import specs_of
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound, Store
from autovision.trial.data import columns_of
from autovision.trial.splits import DataSplits
from autovision.trial.workbench import Workbench

_DIMENSIONS = 32
_IMAGES = 2000
"""of a larger split so many, evenly spread, are enough for a mean and a covariance"""
_CLASSES_WEIGHT, _IMAGES_WEIGHT = 0.1, 0.03
"""of a factor of e in either, in units of the distance between features"""
_FARTHEST = 1.0
"""data sets that are farther apart say nothing about each other"""


class Sketch(Record):
    """What the training images of a data set version look like to a backbone."""

    dataset: str
    """`name@version`"""
    name: str
    classes: int
    multi_label: bool
    images: int
    mean: tuple[float, ...]
    """(D,)"""
    covariance: tuple[tuple[float, ...], ...]
    """(D, D)"""


@dataclass(frozen=True)
class Neighbour:
    """A data set that looks like another one; `distance` 0: the same."""

    dataset: str
    name: str
    distance: float


def sketch_of(features: np.ndarray, version: DatasetVersion) -> Sketch:
    """The sketch of features (N, C), N at least 2."""
    projected = features.astype(np.float64) @ _projection(features.shape[1])
    return Sketch(
        dataset=version.id,
        name=version.name,
        classes=len(version.classes),
        multi_label=version.multi_label,
        images=version.images.get(Split.TRAIN) or sum(version.counts.get(Split.TRAIN, {}).values()),
        mean=tuple(map(_short, projected.mean(0))),
        covariance=tuple(tuple(map(_short, row)) for row in np.cov(projected, rowvar=False)),
    )


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _projection(columns: int) -> np.ndarray:
    """(C, D), the same for everybody."""
    drawn = np.random.default_rng(20_240_117).standard_normal((columns, _DIMENSIONS))
    return np.asarray(drawn / math.sqrt(_DIMENSIONS))


def distance(a: Sketch, b: Sketch) -> float:
    """How different two data sets are; 0 for the same one, above 1 for those that have little in common."""
    mean_a, mean_b = np.array(a.mean), np.array(b.mean)
    cov_a, cov_b = np.array(a.covariance), np.array(b.covariance)
    spread = np.trace(cov_a) + np.trace(cov_b)
    # The root of a product of two covariances has the same trace as that of this symmetric one.
    root = _root(cov_a)
    common = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_b @ root), 0, None)).sum()
    frechet = float(((mean_a - mean_b) ** 2).sum() + spread - 2 * common)
    features = math.sqrt(max(frechet, 0.0) / max(float(spread), 1e-12))
    classes = abs(math.log(max(a.classes, 1) / max(b.classes, 1)))
    images = abs(math.log(max(a.images, 1) / max(b.images, 1)))
    return features + _CLASSES_WEIGHT * classes + _IMAGES_WEIGHT * images


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T)


def remember(bench: Workbench, splits: DataSplits, configs: Sequence[TrialConfig]) -> list[Sketch]:
    """The sketches of a version for the backbones of `configs` whose features the store has; new ones are stored.

    Nothing is computed by any backbone for it.
    """
    found = {}
    for config in configs:
        key = keys.sketch(_spec(bench, config), splits.version.id)
        if key in found:
            continue
        try:
            found[key] = records.read(bench.store, key, Sketch)
        except KeyNotFound:
            if (made := _make(bench, splits, config)) is not None:
                found[key] = records.create_or_read(bench.store, key, made)[0]
    return list(found.values())


def neighbours(bench: Workbench, splits: DataSplits, configs: Sequence[TrialConfig]) -> list[Neighbour]:
    """Other data sets that look like this one, nearest first, by the backbones of `configs` that have seen both.

    A data set counts with the latest of its versions that has a sketch. Raises nothing where there is none.
    """
    nearest: dict[str, Neighbour] = {}
    seen = set()
    for config in configs:
        if (spec := _spec(bench, config)) in seen:
            continue
        seen.add(spec)
        (own,) = remember(bench, splits, [config]) or (None,)
        if own is None:
            continue
        for other in _latest(bench.store, spec):
            if other.name == own.name or other.multi_label != own.multi_label:
                continue
            apart = distance(own, other)
            known = nearest.get(other.name)
            if apart <= _FARTHEST and (known is None or apart < known.distance):
                nearest[other.name] = Neighbour(other.dataset, other.name, apart)
    return sorted(nearest.values(), key=lambda one: (one.distance, one.name))


def _latest(store: Store, spec: str) -> list[Sketch]:
    """Of each data set the latest version's."""
    latest: dict[str, Sketch] = {}
    for sketch in records.read_all(store, keys.sketches(spec), Sketch):
        known = latest.get(sketch.name)
        if known is None or _version(sketch) > _version(known):
            latest[sketch.name] = sketch
    return list(latest.values())


def _version(sketch: Sketch) -> int:
    return int(sketch.dataset.rpartition("@")[2])


def _spec(bench: Workbench, config: TrialConfig) -> str:
    """Of the pooled features of images as they are."""
    return specs_of(bench, config, Views(), None)[0].digest


def _make(bench: Workbench, splits: DataSplits, config: TrialConfig) -> Sketch | None:
    """None: the store lacks features of the images, or there is nothing to take a covariance of."""
    names = splits.train.images
    images = names[:: max(1, len(names) // _IMAGES)]
    source = bench.source(config)
    if len(images) < 2 or source.missing(images, Views(), None):
        return None
    channels = bench.channels(config)
    own = TrialConfig(backbone=config.backbone, pooling="avg")
    columns = columns_of(own, channels, tapped_stages(own, len(channels)))
    prefix = source.prefix(images, Views(), cut=None, columns=columns, deadline=math.inf)
    rows = np.arange(len(images))
    pooled = prefix.take(np.zeros_like(rows), rows)[1]
    assert pooled is not None
    return sketch_of(pooled, splits.version)
