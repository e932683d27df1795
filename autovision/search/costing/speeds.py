"""How much longer than by arithmetic the parts of a trial take here: learnt from what was measured, kept in the store.

A trial has parts (features, start, epochs). For each of them `arithmetic.py` says what it should take. What is
learnt is the logarithm of measured over expected seconds, in three levels: of the part as such, of a backbone, of a
configuration. Each level is drawn around the one above it, so that a backbone that was never tried is predicted from
the others, and one that was tried often by itself (a nested normal model, solved exactly by passing messages up and
down the tree; Gelman et al., Bayesian Data Analysis, 2013, ch. 5). Outliers count less, as under a Student
distribution with four degrees of freedom (Lange, Little & Taylor 1989).
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autovision.records.base import Record, digest_of
from autovision.store import keys, records
from autovision.store.protocol import AlreadyExists, KeyNotFound, Store

ARITHMETIC = 2
"""version of the expectations that ratios are relative to: others are of no use"""

_PART_SD, _BACKBONE_SD, _CONFIGURATION_SD, _NOISE_SD = 1.0, 0.4, 0.25, 0.3
"""in units of the natural logarithm: arithmetic may be off by a factor of e, backbones differ by half, …"""
_NOISE_COUNTS = 4.0
"""so many measurements is the belief in `_NOISE_SD` worth"""
_FREEDOM = 4.0
_ROUNDS = 3
_HALF_LIFE = 20
"""measurements of the same configuration after which one counts half: nodes become busier and idle again"""
_REMEMBERED = 6 * _HALF_LIFE
"""older ones together would count as half a measurement"""
_EARLIER = 0.25
"""what a measurement of an earlier search counts"""
_KEPT = 8
"""measurements of each configuration that the store keeps, the latest"""
_KEPT_IN_ALL = 2000


class Measurement(Record):
    """What one part of one trial took."""

    part: str
    backbone: str
    detail: str
    """what else its speed depends on: resolution, cut, …"""
    expected_s: float
    """by arithmetic"""
    seconds: float

    @property
    def log_ratio(self) -> float:
        return math.log(self.seconds / self.expected_s)


class NodeKind(Record):
    """What speeds are the same for."""

    processor: str
    """a GPU where there is one, else the CPU model"""
    threads: int
    """of each trial"""
    precision: str
    gpu: bool = False
    workers: int = 1
    """that train a trial together"""
    arithmetic: int = ARITHMETIC

    @property
    def id(self) -> str:
        return digest_of(self.model_dump(mode="json"))[:16]

    def __str__(self) -> str:
        threads = "" if self.gpu else f", {self.threads} thread{'s' if self.threads > 1 else ''} a trial"
        workers = f", {self.workers} workers a trial" if self.workers > 1 else ""
        return f"{self.processor}{threads}{workers}, {self.precision}"


class SpeedRecord(Record):
    """What searches measured on a kind of node, oldest first; changed by compare-and-swap."""

    node: NodeKind
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class Belief:
    """A normal distribution of a logarithm.

    Attributes:
        mean: of log(seconds / expected seconds).
        sd: of the next measurement around it: what is not known, and noise.
        measured: how many measurements of this very part and backbone it rests on, those of earlier searches included.
    """

    mean: float
    sd: float
    measured: int


Leaf = tuple[str, str]
"""a backbone, and what else its speed depends on"""


class Speeds:
    """What is believed of every part.

    Args:
        earlier: measurements of earlier searches, oldest first.
    """

    def __init__(self, earlier: Iterable[Measurement] = ()) -> None:
        self._seen: dict[str, _Seen] = defaultdict(_Seen)
        self._trees: dict[str, _Tree] = {}
        for measurement in earlier:
            self._seen[measurement.part].add(measurement, _EARLIER)

    def add(self, measurement: Measurement) -> None:
        self._seen[measurement.part].add(measurement, 1.0)
        self._trees.pop(measurement.part, None)

    def belief(self, part: str, backbone: str, detail: str) -> Belief:
        tree = self._trees.get(part)
        if tree is None:
            tree = self._trees[part] = _Tree(self._seen.get(part, _Seen()))
        return tree.belief(backbone, detail)


class _Seen:
    """The measurements of one part that still count: of each configuration the latest."""

    def __init__(self) -> None:
        self.leaves: dict[Leaf, deque[tuple[float, float]]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        """logarithms of ratios, and what each counted when it was new; oldest first"""
        self.counts: dict[str, int] = defaultdict(int)
        """of all measurements, by backbone"""

    def add(self, measurement: Measurement, weight: float) -> None:
        self.leaves[measurement.backbone, measurement.detail].append((measurement.log_ratio, weight))
        self.counts[measurement.backbone] += 1


@dataclass(frozen=True)
class _Normal:
    """By precision; precision 0 says nothing."""

    mean: float
    precision: float

    def __mul__(self, other: _Normal) -> _Normal:
        precision = self.precision + other.precision
        if precision <= 0:
            return _Normal(0.0, 0.0)
        mean = (self.mean * self.precision + other.mean * other.precision) / precision
        return _Normal(mean, precision)

    def widened(self, variance: float) -> _Normal:
        """One level up or down."""
        return self if self.precision <= 0 else _Normal(self.mean, 1 / (1 / self.precision + variance))


def _product(factors: Iterable[_Normal], start: _Normal) -> _Normal:
    for factor in factors:
        start *= factor
    return start


_ROOT = _Normal(0.0, _PART_SD**-2)


class _Tree:
    """The posterior of one part."""

    def __init__(self, seen: _Seen) -> None:
        self._counts = dict(seen.counts)
        self._names = list(seen.leaves)
        pairs = [pair for leaf in seen.leaves.values() for pair in leaf]
        self._values, weights = np.array(pairs, dtype=float).reshape(-1, 2).T
        sizes = [len(leaf) for leaf in seen.leaves.values()]
        self._leaf_of = np.repeat(np.arange(len(sizes)), sizes)
        since = np.concatenate([np.arange(size)[::-1] for size in sizes]) if sizes else np.empty(0)
        weights = weights * 0.5 ** (since / _HALF_LIFE)
        self._noise = _NOISE_SD**2
        robust = weights
        for _ in range(_ROUNDS):
            self._solve(robust)
            means = np.array([self._leaves[name].mean for name in self._names])
            squared = np.square(self._values - means[self._leaf_of])
            robust = weights * (_FREEDOM + 1) / (_FREEDOM + squared / self._noise)
            squares, total = float(robust @ squared), float(weights.sum())
            self._noise = (_NOISE_COUNTS * _NOISE_SD**2 + squares) / (_NOISE_COUNTS + total)
        self._solve(robust)

    def _solve(self, weights: NDArray[np.float64]) -> None:
        own = self._observed(weights)
        below: dict[str, dict[str, _Normal]] = defaultdict(dict)
        for (backbone, detail), likelihood in own.items():
            below[backbone][detail] = likelihood.widened(_CONFIGURATION_SD**2)
        backbones = {
            backbone: _product(details.values(), _Normal(0.0, 0.0)) for backbone, details in below.items()
        }
        up = {backbone: likelihood.widened(_BACKBONE_SD**2) for backbone, likelihood in backbones.items()}
        self._root = _product(up.values(), _ROOT)
        self._backbones: dict[str, _Normal] = {}
        self._leaves: dict[Leaf, _Normal] = {}
        for backbone, details in below.items():
            # What the others say: what one said itself must not come back to it.
            prior = (self._root * _without(up[backbone])).widened(_BACKBONE_SD**2)
            self._backbones[backbone] = prior * backbones[backbone]
            for detail, message in details.items():
                above = (self._backbones[backbone] * _without(message)).widened(_CONFIGURATION_SD**2)
                self._leaves[backbone, detail] = above * own[backbone, detail]

    def _observed(self, weights: NDArray[np.float64]) -> dict[Leaf, _Normal]:
        """What the measurements of each configuration say by themselves."""
        totals = np.bincount(self._leaf_of, weights, len(self._names))
        means = np.bincount(self._leaf_of, weights * self._values, len(self._names)) / totals
        return {
            name: _Normal(mean, total / self._noise)
            for name, mean, total in zip(self._names, means.tolist(), totals.tolist(), strict=True)
        }

    def belief(self, backbone: str, detail: str) -> Belief:
        known = self._leaves.get((backbone, detail))
        if known is None:
            family = self._backbones.get(backbone) or self._root.widened(_BACKBONE_SD**2)
            known = family.widened(_CONFIGURATION_SD**2)
        return Belief(known.mean, math.sqrt(1 / known.precision + self._noise), self._counts.get(backbone, 0))


def _without(message: _Normal) -> _Normal:
    return _Normal(message.mean, -message.precision)


# ------------------------------------------------------------------------------------------------ the store


def read(store: Store, node: NodeKind) -> tuple[Measurement, ...]:
    """What earlier searches measured on this kind of node, oldest first."""
    try:
        return records.read(store, keys.speeds(node.id), SpeedRecord).measurements
    except KeyNotFound:
        return ()


def keep(store: Store, node: NodeKind, new: Sequence[Measurement]) -> None:
    """Add measurements to what the store has; of each configuration the latest few stay."""
    if not new:
        return
    key = keys.speeds(node.id)
    try:
        records.create(store, key, SpeedRecord(node=node, measurements=thinned(new)))
    except AlreadyExists:
        records.update(
            store,
            key,
            SpeedRecord,
            lambda known: known.with_(measurements=thinned([*known.measurements, *new])),
        )


def thinned(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """The latest of each configuration, in their order."""
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    kept = []
    for one in reversed(measurements):
        group = one.part, one.backbone, one.detail
        counts[group] += 1
        if counts[group] <= _KEPT:
            kept.append(one)
    return tuple(reversed(kept[:_KEPT_IN_ALL]))
