"""What a configuration has to do, counted, and the seconds that this should take before anything was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from autovision.features.views import Views
from autovision.model.flops import stage_gflops
from autovision.model.network import cut_of
from autovision.search.costing.speeds import NodeKind
from autovision.space.config import TrialConfig
from autovision.trial.data import judged_views_of, views_of
from autovision.trial.train import PROBE_EPOCHS

_INFERENCE_GFLOPS_S = {"f32": 60.0, "bf16": 110.0}
"""of the compiled network on one CPU thread"""
_TRAINING_GFLOPS_S = {"f32": 20.0, "bf16": 30.0}
"""of PyTorch on one CPU thread"""
_GPU_GFLOPS_S = (8000.0, 4000.0)
"""of a GPU: the compiled network, PyTorch"""
_BACKWARD = 3.0
"""a training step against its forward pass"""
_DECODE_S, _ROW_S = 4e-3, 1e-3
"""one image from bytes to pixels; one row from pixels into the store, without the network"""
_SHARED_STEP_S = 2e-4
"""of a step that is one for many heads, each head's part of what is not arithmetic"""
_STEP_S, _JUDGE_S = 2e-3, 0.02
"""one step of training, and one validation, without the network"""
_COMPILE_S, _LOAD_S, _BEGIN_S = 2.0, 1.5, 0.3
"""a network for one cut; a backbone into a process; all else before the first epoch"""


class Part(StrEnum):
    """What a trial's seconds are made of."""

    COMPILE = "compile"
    """the networks that compute features which the store lacks"""
    FEATURES = "features"
    """these features"""
    START = "start"
    """loading, and the head that fine-tuning starts from"""
    EPOCH = "epoch"
    """one of them, with validation"""


@dataclass(frozen=True)
class Rates:
    """10⁹ floating-point operations a second."""

    inference: float
    training: float

    @classmethod
    def of(cls, node: NodeKind) -> Rates:
        """Before anything was measured."""
        if node.gpu:
            return cls(*_GPU_GFLOPS_S)
        threads = node.threads
        return cls(
            _INFERENCE_GFLOPS_S.get(node.precision, 60.0) * threads,
            _TRAINING_GFLOPS_S.get(node.precision, 20.0) * threads,
        )


@dataclass(frozen=True)
class Rows:
    """Features of one output of a backbone.

    Attributes:
        cut: activations below this stage; None: pooled ones of all stages.
        missing: image views that the store lacks.
    """

    cut: int | None
    views: Views
    missing: int


@dataclass(frozen=True)
class Work:
    """What a configuration has to do, in seconds by arithmetic; see `Part`.

    Attributes:
        gflops: of the features that are missing.
    """

    compile_s: float
    features_s: float
    start_s: float
    epoch_s: float
    gflops: float

    def parts(self, epochs: int) -> Iterator[tuple[Part, float]]:
        """Those that take any time, until some epochs are over."""
        for part, seconds in (
            (Part.COMPILE, self.compile_s),
            (Part.FEATURES, self.features_s),
            (Part.START, self.start_s),
            (Part.EPOCH, epochs * self.epoch_s),
        ):
            if seconds > 0:
                yield part, seconds


Need = tuple[int | None, Views, tuple[str, ...]]
"""cut, views, and the splits that are seen so"""


def needed(config: TrialConfig) -> list[Need]:
    """The features that a configuration reads."""
    seen, judged = views_of(config), judged_views_of(config)
    if seen.number is None:
        # Views that are drawn afresh are computed while training; the head is probed on the images themselves.
        seen = Views()
    outputs: list[int | None] = [] if config.head == "attention" else [None]
    if config.needs_maps:
        outputs.append(_cut(config, len(stage_gflops(config.backbone, config.resolution))))
    if seen == judged:
        return [(output, seen, ("train", "validation")) for output in outputs]
    splits = ((seen, ("train",)), (judged, ("validation",)))
    return [(output, views, of) for output in outputs for views, of in splits]


def group(part: Part, config: TrialConfig) -> tuple[str, str, str]:
    """Part, backbone and detail by which speeds are learnt: see `speeds.Speeds.belief`."""
    tuned = config.needs_maps
    where = f"{config.resolution or 'own'} px"
    if part in (Part.START, Part.EPOCH):
        kind = "tuned" if tuned else "head"
        name = f"{part} {kind}"
        if not tuned:
            return name, config.backbone, config.head
        fresh = ", fresh views" if views_of(config).number is None else ""
        return name, config.backbone, f"{where}, {config.unfreeze} of {-config.drop_stages}{fresh}"
    return str(part), config.backbone, f"{where}, maps" if tuned else where


def work(
    config: TrialConfig,
    rows: Sequence[Rows],
    sizes: tuple[int, int],
    rates: Rates,
    *,
    loaded: bool = True,
) -> Work:
    """What a configuration has to do.

    Args:
        rows: what the store lacks of what is `needed`.
        sizes: images to train on and to validate by.
        loaded: whether a process that has the backbone is likely to get the trial.
    """
    stages = stage_gflops(config.backbone, config.resolution)
    gflops = seconds = 0.0
    networks = set()
    for row in rows:
        if not row.missing:
            continue
        networks.add(row.cut)
        own = row.missing * sum(stages if row.cut is None else stages[: row.cut])
        decoded = row.missing / (row.views.number or 1)
        gflops += own
        seconds += own / rates.inference + row.missing * _ROW_S + decoded * _DECODE_S
    start_s, epoch_s = _training(config, stages, sizes, rates)
    return Work(
        compile_s=_COMPILE_S * len(networks - {0}),
        features_s=seconds,
        start_s=start_s + (0.0 if loaded else _LOAD_S),
        epoch_s=epoch_s,
        gflops=gflops,
    )


def _training(
    config: TrialConfig, stages: Sequence[float], sizes: tuple[int, int], rates: Rates
) -> tuple[float, float]:
    """Seconds before the first epoch, and of each epoch."""
    train, validation = sizes
    steps = math.ceil(train / config.batch_size)
    head_s = steps * _STEP_S + _JUDGE_S
    if not config.needs_maps:
        return _BEGIN_S, head_s
    keep = len(stages) - config.drop_stages
    cut = _cut(config, len(stages))
    above = sum(stages[cut:keep])
    judged = validation * (judged_views_of(config).number or 1)
    epoch_s = head_s + above * (_BACKWARD * train + judged) / rates.training
    if views_of(config).number is None:
        epoch_s += train * (sum(stages[:cut]) / rates.inference + _ROW_S)
    probe_s = PROBE_EPOCHS * head_s if config.head != "attention" else 0.0
    return _BEGIN_S + probe_s, epoch_s


def head_s(config: TrialConfig, weights: int, images: int, rates: Rates) -> float:
    """Seconds of training one head of so many weights among others that are trained together."""
    steps = config.epochs * math.ceil(images / config.batch_size)
    gflops = 2e-9 * weights * images * config.epochs * _BACKWARD
    return steps * _SHARED_STEP_S + gflops / rates.training


def evaluation(config: TrialConfig, images: int, rates: Rates) -> Work:
    """Sending images through the whole network once, under all views of its test-time augmentation."""
    stages, views = stage_gflops(config.backbone, config.resolution), judged_views_of(config).number or 1
    gflops = images * views * sum(stages[: len(stages) - config.drop_stages])
    seconds = gflops / rates.inference + images * (views * _ROW_S + _DECODE_S)
    return Work(_COMPILE_S, seconds, _BEGIN_S, 0.0, gflops)


def _cut(config: TrialConfig, stages: int) -> int:
    return cut_of(config, stages - config.drop_stages)
