"""256 heads trained as one against the same heads one after the other, on the solar cells' pooled features.

    python tests/benchmarks/bench_fused.py --json bench-results/
    python tests/benchmarks/bench_fused.py --synthetic      # random features of that size: without the demo extra

Both sides get the same linear heads, drawn at random from a fixed seed, on the last three stages of EfficientNet-Lite0.
All features are in the store already. In every round all heads are trained as one; then some of them, others in every
round, by the code that trains a single head: `begin` and `fit`. One after the other is their mean time a head times
the number of heads; the ratio is taken round by round.

What the validation logits of the two sides differ by is shown next to what those of a head alone change by when its
products are summed in another order. Where a head has learnt its images by heart, AdamW divides tiny gradients by
tiny gradients, and rounding grows from step to step, fused or not.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import common
import numpy as np
import torch

from autovision.features.compute import FeatureSource
from autovision.features.prefix import Pair, Prefix
from autovision.features.views import Views
from autovision.model import backbone
from autovision.model.network import Suffix
from autovision.model.stages import channels_of
from autovision.space.config import TrialConfig
from autovision.trial.data import Labelled, load_inputs
from autovision.trial.fused import HeadProblem, fit_heads
from autovision.trial.pooled import load_pooled
from autovision.trial.state import Problem, Training
from autovision.trial.train import begin, fit
from autovision.trial.workbench import Workbench

SEED = 0
SIZES = (1_574, 394)
"""training and validation images, of random features"""
DEFECTIVE = 0.31
"""share of the images"""

Draw = Callable[[np.random.Generator], dict[str, Any]]


def recipe(rng: np.random.Generator) -> dict[str, Any]:
    """Rate, decay, loss, targets and weights."""
    return {
        "lr": float(10 ** rng.uniform(-3.5, -1.5)),
        "weight_decay": float(10 ** rng.uniform(-5, -1)),
        "label_smoothing": float(rng.uniform(0, 0.2)),
        "loss": str(rng.choice(["cross_entropy", "focal"])),
        "class_weighting": str(rng.choice(["none", "balanced"])),
        "logit_adjustment": float(rng.choice([0.0, 1.0])),
    }


def with_pooling(rng: np.random.Generator) -> dict[str, Any]:
    return recipe(rng) | {"pooling": str(rng.choice(["avg", "max", "avgmax", "gem"]))}


def with_dropout(rng: np.random.Generator) -> dict[str, Any]:
    return with_pooling(rng) | {"dropout": float(rng.uniform(0, 0.5))}


def with_mixup(rng: np.random.Generator) -> dict[str, Any]:
    return with_dropout(rng) | {"mixup": float(rng.choice([0.0, 0.2, 0.4]))}


SETS: dict[str, Draw] = {
    "rate, decay, smoothing, weighting, loss": recipe,
    "and pooling": with_pooling,
    "and dropout, a share of its own for each": with_dropout,
    "and mixup": with_mixup,
}


@dataclass(frozen=True)
class Data:
    """What heads are trained on, wherever it comes from."""

    source: FeatureSource
    channels: Sequence[int]
    train: Labelled
    validation: Labelled
    positive: int | None


@dataclass(frozen=True)
class ArrayPrefix:
    """Pooled rows (N, D) in memory, of the images as they are."""

    rows: np.ndarray
    views: int | None = 1
    activation_shape: tuple[int, ...] | None = None

    @property
    def images(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        return int(self.rows.shape[1])

    def take(self, views: np.ndarray, rows: np.ndarray) -> Pair:
        return None, self.rows[rows]


@dataclass(frozen=True)
class ArraySource:
    rows: Mapping[tuple[str, ...], np.ndarray]

    def prefix(
        self, images: tuple[str, ...], views: Views, *, cut: None, columns: np.ndarray, deadline: float
    ) -> Prefix:
        return ArrayPrefix(np.ascontiguousarray(self.rows[images][:, columns]))


def synthetic() -> Data:
    rng = np.random.default_rng(SEED)
    config = TrialConfig(weights="random")
    prep = backbone.preprocessing(config)
    channels = channels_of(backbone.load(config).staged, prep.height, prep.width)
    rows, splits = {}, []
    for name, count in zip(("train", "validation"), SIZES, strict=True):
        labels = (rng.random(count) < DEFECTIVE).astype(np.int64)
        images = tuple(f"{name}{i}" for i in range(count))
        noise = rng.standard_normal((count, 3 * sum(channels)), np.float32)
        rows[images] = (noise + 0.1 * labels[:, None]).astype(np.float16)
        targets = torch.nn.functional.one_hot(torch.from_numpy(labels), 2).float()
        splits.append(Labelled(images, targets, torch.ones(count)))
    return Data(cast(FeatureSource, ArraySource(rows)), channels, *splits, positive=1)


@contextmanager
def solar_cells(count: int | None) -> Iterator[Data]:
    with common.fresh_store() as store:
        version = common.import_solar_cells(store, count=count)
        bench = Workbench(store, torch.get_num_threads())
        splits = bench.splits(version.id)
        config = TrialConfig()
        yield Data(
            bench.source(config), bench.channels(config), splits.train, splits.validation, splits.positive
        )


def together(data: Data, configs: Sequence[TrialConfig]) -> list[np.ndarray]:
    """Validation logits of all heads, trained as one."""
    train, validation = (
        load_pooled(data.source, split, configs, data.channels, training=training, deadline=math.inf)
        for split, training in ((data.train, True), (data.validation, False))
    )
    problem = HeadProblem(train, validation, data.channels, data.positive)
    heads = fit_heads(configs, problem, SEED, math.inf, torch.device("cpu"))
    return [head.reports[-1].logits for head in heads]


class _Halved(torch.nn.Linear):
    """The same layer, whose products are summed in another order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = self.in_features // 2
        first, second = x[:, :half] @ self.weight[:, :half].t(), x[:, half:] @ self.weight[:, half:].t()
        return first + second + self.bias


def alone(data: Data, config: TrialConfig, staged: Any, *, reordered: bool = False) -> np.ndarray:
    """Validation logits of one head, as a trial trains it; or with its sums taken in another order."""
    train, validation = (
        load_inputs(data.source, split, config, data.channels, training=training, deadline=math.inf)
        for split, training in ((data.train, True), (data.validation, False))
    )
    problem = Problem(train, validation, data.positive)
    torch.manual_seed(SEED)
    suffix = Suffix(staged, config, data.channels, data.train.classes)
    if reordered:
        suffix.head.out.__class__ = _Halved
    begin(suffix, problem, config, SEED, math.inf, None)
    return list(fit(Training(suffix, problem, config, SEED), math.inf))[-1].logits


@dataclass
class Measured:
    """Seconds, round by round."""

    fused_s: list[float]
    alone_s: list[float]
    """of all heads one after the other, extrapolated"""
    differences: list[float]
    """the largest one of each head's logits"""
    reordered: list[float]
    """the same between a head alone, and alone with its sums in another order"""


def measure(data: Data, configs: Sequence[TrialConfig], rounds: int, each: int) -> Measured:
    """Every round measures `each` other heads alone."""
    staged = backbone.load(TrialConfig(weights="random")).staged
    order = np.random.default_rng(SEED).permutation(len(configs))
    together(data, [config.with_(epochs=1) for config in configs])
    alone(data, configs[0].with_(epochs=1), staged)
    measured = Measured([], [], [], [])
    for number in range(rounds):
        began = time.perf_counter()
        logits = together(data, configs)
        measured.fused_s.append(time.perf_counter() - began)
        some = [order[(number * each + i) % len(order)] for i in range(each)]
        began = time.perf_counter()
        expected = [alone(data, configs[head], staged) for head in some]
        measured.alone_s.append((time.perf_counter() - began) * len(configs) / each)
        for head, x in zip(some, expected, strict=True):
            measured.differences.append(float(np.abs(logits[head] - x).max()))
            again = alone(data, configs[head], staged, reordered=True)
            measured.reordered.append(float(np.abs(again - x).max()))
    return measured


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--synthetic", action="store_true", help="random features: the demo extra is missing")
    parser.add_argument("--heads", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", type=int, default=16, help="heads of each round that are trained alone")
    options = parser.parse_args()
    if options.quick:
        options.heads, options.epochs, options.rounds, options.alone = 12, 2, 1, 2
    if options.synthetic:
        run(synthetic(), options)
        return
    with solar_cells(120 if options.quick else None) as data:
        run(data, options)


def run(data: Data, options: Any) -> None:
    rows, figures = [], []
    for name, draw in SETS.items():
        rng = np.random.default_rng(SEED)
        configs = [
            TrialConfig.model_validate({"taps": 3, "epochs": options.epochs, **draw(rng)})
            for _ in range(options.heads)
        ]
        measured = measure(data, configs, options.rounds, options.alone)
        ratio = common.ratios(measured.alone_s, measured.fused_s)
        rows.append(
            (
                name,
                common.spread(measured.fused_s, 1),
                common.spread(measured.alone_s, 0),
                common.spread(ratio, 1),
                *(
                    f"{statistics.median(x):.0e} / {max(x):.0e}"
                    for x in (measured.differences, measured.reordered)
                ),
            )
        )
        figures.append({"varies": name, "ratio": ratio, **vars(measured)})
    count = options.rounds * options.alone
    common.show(
        f"{options.heads} linear heads, {options.epochs} epochs, {len(data.train)} images, "
        f"{torch.get_num_threads()} threads",
        (
            "what varies",
            "as one, s",
            "one after the other, s",
            "ratio",
            "logits differ by",
            "alone, summed otherwise",
        ),
        rows,
        "Seconds and ratio: min / median / max of the rounds. Logits: median / max of the heads.",
        f"One after the other: extrapolated from n = {count} heads, {options.alone} a round.",
    )
    told = {name: getattr(options, name) for name in ("heads", "epochs", "rounds", "alone", "synthetic")}
    common.write_json(options.json, "fused", {**told, "rows": figures})


if __name__ == "__main__":
    main()
