"""Seconds and memory that a trial will take: by arithmetic before anything is measured, then by what was measured.

    arithmetic.py  what a configuration has to do, in seconds by arithmetic: compiling, features, start, epochs
    speeds.py      how much longer each of these takes here, with what is known of nodes of this kind from the store
    CostModel      both together; learns from every rung of every trial

It is asked for hundreds of configurations between two trials, so what it counted in the store is remembered.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from autovision.features.views import Views
from autovision.model.flops import stage_gflops
from autovision.records.trials import CurvePoint
from autovision.search.arms import Arm
from autovision.search.costing import arithmetic, speeds
from autovision.search.costing.arithmetic import Part, Rows, Work
from autovision.search.costing.inventory import Inventory
from autovision.search.costing.node import this_node
from autovision.search.costing.speeds import Measurement, NodeKind, Speeds
from autovision.space.config import TrialConfig
from autovision.trial.memory import Footprint
from autovision.trial.pooled import head_columns
from autovision.trial.splits import DataSplits
from autovision.trial.train import rung_epochs
from autovision.trial.workbench import Workbench

_KEEP_EVERY_S = 15.0
_LEAST_S = 0.002
"""shorter times measure the clock"""
_LEAST_SHARE = 0.1
"""of a sum, that a part of it is taken for at least"""
_Z = 1.2816
"""standard deviations to either side that hold 80 %"""


@dataclass(frozen=True)
class Cost:
    """A prediction in seconds.

    Attributes:
        low, high: four of five trials should lie between them.
        features_s: of `seconds`: computing features that are missing.
        measured: the share of `seconds` that rests on measurements of this backbone on this kind of node; the rest is
            arithmetic, corrected by other backbones.
    """

    seconds: float
    low: float
    high: float
    features_s: float
    measured: float


@dataclass(frozen=True)
class Expected:
    """A trial that has begun, with what was to do at that moment."""

    config: TrialConfig
    work: Work


@dataclass
class CostModel:
    """Predicts the seconds of trials, and learns from every rung of them.

    Attributes:
        node: the kind of node that trials run on; None: this one, with one thread a trial.
        warm: whether to begin with what earlier searches measured on such nodes.
        clock: seconds that only go on.
    """

    bench: Workbench
    splits: DataSplits
    node: NodeKind | None = None
    warm: bool = True
    clock: Callable[[], float] = time.monotonic
    _loaded: set[tuple[str, str]] = field(default_factory=set)
    _new: list[Measurement] = field(default_factory=list)
    _footprints: dict[str, Footprint] = field(default_factory=dict)
    learnt: int = 0
    """measurements of this search"""

    def __post_init__(self) -> None:
        self.kind = self.node or this_node(threads=1)
        earlier = speeds.read(self.bench.store, self.kind) if self.warm else ()
        self.earlier = len(earlier)
        """measurements of earlier searches"""
        self._speeds = Speeds(earlier)
        self._rates = arithmetic.Rates.of(self.kind)
        self._inventory = Inventory(self.bench, self.clock)
        self._kept_at = self.clock()

    # -------------------------------------------------------------------------------------------- predicting

    def predicted_s(self, config: TrialConfig) -> float:
        """Seconds to the first rung, features that are missing included."""
        return self.predict(config).seconds

    def predicted_total_s(self, config: TrialConfig) -> float:
        """Seconds to the last epoch, unless early stopping comes before it."""
        return self.predict(config, epochs=config.epochs).seconds

    def predict(self, config: TrialConfig, *, epochs: int | None = None) -> Cost:
        """Seconds until some epochs are over; None: to the first rung."""
        work = self.work(config)
        times = rung_epochs(config.epochs)[0] if epochs is None else epochs
        seconds = features_s = deviation = measured = 0.0
        for part, expected in work.parts(times):
            belief = self._speeds.belief(*arithmetic.group(part, config))
            own = expected * math.exp(belief.mean)
            seconds += own
            deviation += own * belief.sd
            measured += own if belief.measured else 0.0
            features_s += own if part in (Part.COMPILE, Part.FEATURES) else 0.0
        # A busy node slows all parts of a trial down together: their deviations add up, and do not cancel out.
        spread = math.exp(_Z * deviation / max(seconds, 1e-9))
        return Cost(seconds, seconds / spread, seconds * spread, features_s, measured / max(seconds, 1e-9))

    def evaluation_s(self, config: TrialConfig, images: int, *, threads: int) -> float:
        """Seconds of sending images through the whole network of a configuration once, as it is served.

        Compiling is seldom what a trial waits for, and so seldom measured: then a node that computes features more
        slowly than by arithmetic is taken to compile as much more slowly, too.
        """
        work = arithmetic.evaluation(config, images, self._rates)
        features = self._speeds.belief(*arithmetic.group(Part.FEATURES, config))
        total = 0.0
        for part, expected in work.parts(0):
            belief = self._speeds.belief(*arithmetic.group(part, config))
            mean = belief.mean
            if part is Part.COMPILE and not belief.measured:
                mean = max(mean, features.mean)
            total += expected * math.exp(mean) / (threads if part is Part.FEATURES else 1)
        return total

    def refit_s(self, config: TrialConfig, *, features: bool = True) -> float:
        """Seconds of training a configuration to its end on train and validation, after it was trained on train.

        Args:
            features: whether those of validation images are counted, which are needed under the views of training.
        """
        rows = [
            Rows(cut, views, self._lacking(config, "validation", views, cut))
            for cut, views, splits in arithmetic.needed(config)
            if features and "train" in splits
        ]
        train, validation = len(self.splits.train), len(self.splits.validation)
        work = arithmetic.work(config, rows, (train + validation, validation), self._rates)
        return sum(
            expected * math.exp(self._speeds.belief(*arithmetic.group(part, config)).mean)
            for part, expected in work.parts(config.epochs)
        )

    def gflops(self, config: TrialConfig) -> float:
        """Of its whole backbone, for one view of one image."""
        return sum(stage_gflops(config.backbone, config.resolution))

    def head_s(self, config: TrialConfig) -> float:
        """Seconds of training a head among others, by arithmetic: what tells a wide head from a narrow one."""
        read = head_columns(config, self.bench.channels(config)).size
        width = config.head_width if config.head == "mlp" else self.splits.train.classes
        return arithmetic.head_s(config, read * width, len(self.splits.train), self._rates)

    def memory(self, config: TrialConfig) -> Footprint:
        """Bytes that training takes: see `trial.memory`. The first time for a configuration it takes a moment.

        Raises:
            AutoVisionError: its backbone cannot be had.
        """
        from autovision.search.costing.demand import footprint, key_of

        key = key_of(config)
        if key not in self._footprints:
            self._footprints[key] = footprint(self.bench, self.splits, config)
        return self._footprints[key]

    def memory_bytes(self, config: TrialConfig) -> int:
        """At the peak of a step, with a batch computed in one part."""
        return self.memory(config).of(config.batch_size)

    # ---------------------------------------------------------------------------------------------- learning

    def begin(self, config: TrialConfig) -> Expected:
        """What there is to do for a trial that begins now: `observe` compares with it."""
        self._inventory.forget(config)
        work = self.work(config)
        self._loaded.add((config.backbone, config.weights))
        return Expected(config, work)

    def observe(self, begun: Expected, curve: Sequence[CurvePoint], feature_s: float) -> None:
        """Learn from a trial's curve, of which the last point is new.

        Args:
            feature_s: seconds that it waited for features, or computed them.
        """
        config, work = begun.config, begun.work
        training = {Part.START: work.start_s, Part.EPOCH: work.epoch_s}
        if len(curve) == 1:
            self._inventory.forget(config)
            if work.features_s:
                features = {Part.COMPILE: work.compile_s, Part.FEATURES: work.features_s}
                self._learn(config, feature_s, self._largest(config, features, 1), features)
            # What an epoch takes is known better from the rungs that follow, if there ever were any.
            known = self._speeds.belief(*arithmetic.group(Part.EPOCH, config)).measured
            about = Part.START if known else self._largest(config, training, curve[0].epoch)
            self._learn(config, curve[0].seconds - feature_s, about, training, curve[0].epoch)
        elif curve and (epochs := curve[-1].epoch - curve[-2].epoch) > 0:
            seconds = curve[-1].seconds - curve[-2].seconds
            self._learn(config, seconds, Part.EPOCH, {Part.EPOCH: work.epoch_s}, epochs)
            if len(curve) == 2:
                start = curve[0].seconds - feature_s - curve[0].epoch * seconds / epochs
                self._learn(config, start, Part.START, {Part.START: work.start_s})
        if self.clock() - self._kept_at > _KEEP_EVERY_S:
            self.keep()

    def _predicted(self, config: TrialConfig, part: Part, expected: float, epochs: int) -> float:
        times = epochs if part is Part.EPOCH else 1
        return times * expected * math.exp(self._speeds.belief(*arithmetic.group(part, config)).mean)

    def _largest(self, config: TrialConfig, expected: Mapping[Part, float], epochs: int) -> Part:
        return max(expected, key=lambda part: self._predicted(config, part, expected[part], epochs))

    def _learn(
        self,
        config: TrialConfig,
        seconds: float,
        about: Part,
        expected: Mapping[Part, float],
        epochs: int = 1,
    ) -> None:
        """Learn about one part from what some parts took together: the others are taken for what they should be."""
        if seconds < _LEAST_S or expected[about] <= 0:
            return
        others = sum(
            self._predicted(config, part, each, epochs)
            for part, each in expected.items()
            if part is not about
        )
        name, backbone, detail = arithmetic.group(about, config)
        measurement = Measurement(
            part=name,
            backbone=backbone,
            detail=detail,
            expected_s=expected[about],
            seconds=max(seconds - others, _LEAST_SHARE * seconds) / (epochs if about is Part.EPOCH else 1),
        )
        self._speeds.add(measurement)
        self._new.append(measurement)
        self.learnt += 1

    def keep(self) -> None:
        """Store what was measured since the last time, for the searches to come."""
        self._kept_at = self.clock()
        new, self._new = self._new, []
        speeds.keep(self.bench.store, self.kind, new)

    # ---------------------------------------------------------------------------------------------- counting

    def work(self, config: TrialConfig) -> Work:
        """What a configuration has to do now, in seconds by arithmetic."""
        rows = [
            Rows(cut, views, sum(self._lacking(config, split, views, cut) for split in splits))
            for cut, views, splits in arithmetic.needed(config)
        ]
        known = (config.backbone, config.weights) in self._loaded
        sizes = len(self.splits.train), len(self.splits.validation)
        return arithmetic.work(config, rows, sizes, self._rates, loaded=known)

    def _lacking(self, config: TrialConfig, split: str, views: Views, cut: int | None) -> int:
        images = (self.splits.train if split == "train" else self.splits.validation).images
        return self._inventory.missing(config, images, split, views, cut)


def config_of(arm: Arm, defaults: Mapping[str, object]) -> TrialConfig:
    """The configuration that stands for an arm: the space's default with the arm's values."""
    known = {
        name: value for name, value in {**defaults, **dict(arm)}.items() if name in TrialConfig.model_fields
    }
    return TrialConfig.model_validate(known)
