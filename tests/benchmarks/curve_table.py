"""Recorded learning curves, and what is made of them for configurations that were not recorded.

    CurveTable     what `record_curves.py` wrote for one data set
    Surrogate      Gaussian processes over the recorded curves, with the noise of seeds
    CurveLab       both as simulations want them: curves, tables of features, seconds

    python tests/benchmarks/curve_table.py --fit    # their kernels, after recording
    python tests/benchmarks/curve_table.py          # how well the surrogates predict what they have not seen

A head's curve is predicted by a Gaussian process. That of a fine-tuned network is its probe head's final values, as
predicted, plus what fine-tuning adds, which another process learns: there are few of them, at one resolution, and what
a backbone or a resolution is worth they take from the heads. Noise is the difference between two seeds of a recorded
head whose curve is about the same. (Zela et al. 2022 show that searches may be simulated on such surrogates.)
"""

from __future__ import annotations

import functools
import gzip
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import common
import numpy as np
from scipy.optimize import nnls
from scipy.special import expit, logit
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold

from autovision.model.flops import stage_gflops
from autovision.model.network import cut_of
from autovision.space.config import TrialConfig
from autovision.testing.simulation import Rung, Table, channels, tables_of
from autovision.trial.pooled import head_columns
from autovision.trial.train import PROBE_EPOCHS, rung_epochs
from search_spaces.demo import Demo

FOLDER = Path(__file__).parent / "curves"
NAMES = tuple(name for name in ("solar", "digits") if (FOLDER / f"{name}.json.gz").exists())
"""the tables that are recorded"""
OUTPUTS = ("validation accuracy", "validation log loss", "test accuracy")
"""of each rung; the log loss as its logarithm"""
RUNGS = 3
FINAL_TEST = RUNGS * len(OUTPUTS) - 1
ACCURACIES = [i for i in range(RUNGS * len(OUTPUTS)) if "accuracy" in OUTPUTS[i % len(OUTPUTS)]]
KERNELS = FOLDER / "kernels.json"
_ALIKE = 10
"""recorded heads whose noise a curve may have"""
_LEAST = 1e-3
"""of an accuracy and of what it lacks to 1, where noise is added"""
LENGTH = 6.0
"""standard deviations of each input over which what fine-tuning adds changes"""


def write(path: Path, table: Mapping[str, Any]) -> None:
    """Compressed JSON, the same bytes for the same table."""
    scratch = path.with_name(f".{path.name}")
    with scratch.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        file.write(json.dumps(table, separators=(",", ":")).encode())
    scratch.replace(path)


@dataclass(frozen=True)
class CurveTable:
    """One data set's curves, and what they cost."""

    name: str
    data: Mapping[str, Any]

    @classmethod
    def load(cls, name: str, folder: Path = FOLDER) -> CurveTable:
        with gzip.open(folder / f"{name}.json.gz") as file:
            return cls(name, json.load(file))

    @property
    def images(self) -> Mapping[str, int]:
        return self.data["images"]  # type: ignore[no-any-return]

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Those that did not fail."""
        return [row for row in self.data["rows"] if not row["error"] and len(row["curve"]) == RUNGS]

    @functools.cached_property
    def configs(self) -> list[TrialConfig]:
        return [Demo.config(row["parameters"]) for row in self.rows]

    @functools.cached_property
    def inputs(self) -> np.ndarray:
        """(rows, parameters)"""
        return np.array([encoded(config) for config in self.configs])

    @functools.cached_property
    def outputs(self) -> np.ndarray:
        """(rows, 9): `OUTPUTS` at each rung."""
        return np.array([[value for rung in row["curve"] for value in _outputs(rung)] for row in self.rows])


def _outputs(rung: Mapping[str, Any]) -> tuple[float, float, float]:
    validation, test = rung["validation"], rung["test"]
    return validation["accuracy"], math.log(max(1e-4, -validation["neg_log_loss"])), test["accuracy"]


# ------------------------------------------------------------------------------------------------- the surrogate


def encoded(config: TrialConfig) -> list[float]:
    """A resolved configuration as numbers."""
    fine_tuned = config.unfreeze > 0
    return [
        float(config.backbone[-1]),
        float(config.resolution or 224),
        float(config.drop_stages),
        float(config.taps),
        float(config.pooling == "avgmax"),
        float(config.pooling == "gem"),
        float(config.head == "mlp"),
        float(config.head == "cosine"),
        math.log(config.head_width) if config.head == "mlp" else 0.0,
        config.dropout,
        float(config.unfreeze),
        math.log(config.backbone_lr_ratio) if fine_tuned else 0.0,
        config.layer_decay if config.unfreeze > 1 else 0.0,
        float(("none", "flip", "dihedral").index(config.augmentation)),
        config.mixup,
        config.cutmix,
        float(config.class_weighting == "balanced"),
        float(config.confidence_weighting),
        float(config.optimizer == "sgd"),
        math.log(config.lr),
        math.log(config.weight_decay),
        config.label_smoothing,
        math.log(config.epochs),
        float(config.batch_size),
        math.log(config.lr * config.epochs / config.batch_size),
    ]


def probe_of(config: TrialConfig) -> TrialConfig:
    """The head that a fine-tuned trial begins with."""
    return config.with_(unfreeze=0, cutmix=0.0, epochs=PROBE_EPOCHS).resolved()


@dataclass(frozen=True)
class Kernel:
    """Of a Gaussian process, for inputs and outputs of unit variance."""

    lengths: list[float]
    """of each input"""
    amplitude: float
    """variance"""
    noise: float
    """variance"""

    @classmethod
    def fitted(cls, inputs: np.ndarray, output: np.ndarray) -> Kernel:
        """By maximum likelihood, to one output of many rows: takes tens of seconds."""
        start = ConstantKernel(1.0) * Matern(np.full(inputs.shape[1], 3.0), (0.3, 1e3), nu=2.5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an input without effect gets the longest length that is allowed
            model = GaussianProcessRegressor(start + WhiteKernel(0.1, (1e-3, 1.0)))
            model.fit(_scaled(inputs, inputs), _scaled(output, output))
        found = model.kernel_
        return cls(
            [float(x) for x in found.k1.k2.length_scale],
            float(found.k1.k1.constant_value),
            float(found.k2.noise_level),
        )

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Matérn 5/2: (rows of a, rows of b)."""
        a, b = a / self.lengths, b / self.lengths
        squares = np.maximum(0.0, (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T)
        r = np.sqrt(5 * squares)
        covariance: np.ndarray = self.amplitude * (1 + r + r**2 / 3) * np.exp(-r)
        return covariance


def _scaled(x: np.ndarray, by: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (x - by.mean(0)) / np.where(by.std(0) > 0, by.std(0), 1.0)
    return scaled


class Process:
    """The mean of a Gaussian process (Rasmussen & Williams 2006) with the same kernel for every output."""

    def __init__(self, inputs: np.ndarray, outputs: np.ndarray, kernel: Kernel) -> None:
        self._inputs, self._outputs, self._kernel = inputs, outputs, kernel
        self._rows = _scaled(inputs, inputs)
        covariance = kernel(self._rows, self._rows) + kernel.noise * np.eye(len(inputs))
        self._weights = np.linalg.solve(covariance, _scaled(outputs, outputs))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(N, 9) for (N, inputs)."""
        said = self._kernel(_scaled(rows, self._inputs), self._rows) @ self._weights
        scaled: np.ndarray = said * self._outputs.std(0) + self._outputs.mean(0)
        return scaled


class Surrogate:
    """What a configuration comes to, on average over seeds, and what seeds make of it."""

    def __init__(self, table: CurveTable, rows: Sequence[int] | None = None) -> None:
        use = list(range(len(table.rows)) if rows is None else rows)
        heads = [i for i in use if not table.configs[i].unfreeze]
        tuned = [i for i in use if table.configs[i].unfreeze]
        kernel = Kernel(**json.loads(KERNELS.read_text())[table.name])
        self._heads = Process(table.inputs[heads], table.outputs[heads], kernel)
        self._gains: Process | None = None
        if tuned:
            gains = table.outputs[tuned] - self._probed([table.configs[i] for i in tuned])
            # There are too few of them to fit a kernel to.
            broad = Kernel([LENGTH] * len(kernel.lengths), 1.0, 0.5)
            self._gains = Process(table.inputs[tuned], gains, broad)
        self._pairs = _pairs(table, heads)

    def _probed(self, configs: Sequence[TrialConfig]) -> np.ndarray:
        """(N, 9): what the probe heads end with, at each rung."""
        said = self._heads(np.array([encoded(probe_of(config)) for config in configs]))
        return np.tile(said[:, -len(OUTPUTS) :], RUNGS)

    def mean(self, configs: Sequence[TrialConfig]) -> np.ndarray:
        """(N, 9): `OUTPUTS` at each rung."""
        rows = np.array([encoded(config) for config in configs])
        said = self._heads(rows)
        tuned = [i for i, config in enumerate(configs) if config.unfreeze]
        if tuned:
            said[tuned] = self._probed([configs[i] for i in tuned])
            if self._gains:
                said[tuned] += self._gains(rows[tuned])
        said[:, ACCURACIES] = np.clip(said[:, ACCURACIES], 0.0, 1.0)
        return said

    def seen(self, config: TrialConfig, seed: int, said: np.ndarray) -> np.ndarray:
        """(9,): the mean with the noise of one seed; the same noise for the same configuration and seed."""
        rng = np.random.default_rng([seed, int(config.digest[:12], 16)])
        # Alike at every rung: what ends alike may have begun far apart, and varies there as nothing does at its end.
        apart = self._pairs.mean(1)[:, ACCURACIES] - said[ACCURACIES]
        near = np.argsort(np.square(apart).sum(1))[:_ALIKE]
        one, other = _unbounded(self._pairs[near[rng.integers(len(near))]])
        return _bounded(_unbounded(said) + (one - other) * rng.choice([-1.0, 1.0]) / math.sqrt(2))


def _pairs(table: CurveTable, rows: Sequence[int]) -> np.ndarray:
    """(pairs, 2, 9): each configuration that was recorded with two seeds."""
    of: dict[str, list[int]] = {}
    for i in rows:
        of.setdefault(table.configs[i].digest, []).append(i)
    return np.array([table.outputs[each] for each in of.values() if len(each) == 2])


def _unbounded(outputs: np.ndarray) -> np.ndarray:
    """With accuracies as their logits: noise lifts none above what is possible, as much as it may let some fall."""
    found = outputs.copy()
    found[..., ACCURACIES] = logit(np.clip(outputs[..., ACCURACIES], _LEAST, 1 - _LEAST))
    return found


def _bounded(outputs: np.ndarray) -> np.ndarray:
    found = outputs.copy()
    found[..., ACCURACIES] = expit(outputs[..., ACCURACIES])
    return found


# -------------------------------------------------------------------------------------------------------- seconds


@functools.cache
def columns(
    backbone: str,
    resolution: int | None,
    drop_stages: int,
    taps: int,
    pooling: Literal["avg", "avgmax", "gem"],
) -> int:
    """That a head reads."""
    config = TrialConfig(
        backbone=backbone, resolution=resolution, drop_stages=drop_stages, taps=taps, pooling=pooling
    )
    return len(head_columns(config, channels(backbone, resolution)))


def gflops_above(config: TrialConfig) -> float:
    """Of one image, of the stages that are trained."""
    stages = stage_gflops(config.backbone, config.resolution)
    keep = len(stages) - config.drop_stages
    return sum(stages[cut_of(config, keep) : keep])


@dataclass(frozen=True)
class Seconds:
    """What training takes on one CPU thread, from what was measured."""

    head: np.ndarray
    """of each trial, step, 10⁹ numbers read, 10⁹ products"""
    classes: int
    trained_gflop: float
    judged_gflop: float
    error: float
    """median of the relative errors for the fine-tuned trials"""

    @classmethod
    def of(cls, table: CurveTable) -> Seconds:
        head = np.array(table.data["seconds_of_heads"]["per_trial_step_read_product"])
        classes = table.data["classes"]
        train, judged = table.images["train"], table.images["validation"] + table.images["test"]
        work, left, whole = [], [], []
        for row, config in zip(table.rows, table.configs, strict=True):
            if config.unfreeze:
                probe = cls(head, classes, 0.0, 0.0, 0.0).of_head(probe_of(config), PROBE_EPOCHS, train)
                rung, above = row["curve"][-1], gflops_above(config)
                work.append([above * train * config.epochs, above * judged * RUNGS])
                left.append(max(0.1, rung["seconds"] - probe))
                whole.append(rung["seconds"])
        if not work:
            return cls(head, classes, 0.1, 0.03, math.nan)
        a, b = np.array(work), np.array(left)
        found, _ = nnls(a / b[:, None], np.ones(len(b)))
        return cls(head, classes, *found, float(np.median(np.abs(a @ found - b) / np.array(whole))))

    def of_head(self, config: TrialConfig, epochs: float, train: int) -> float:
        width = columns(config.backbone, config.resolution, config.drop_stages, config.taps, config.pooling)
        rows = epochs * train
        products = width * config.head_width if config.head == "mlp" else width * self.classes
        steps = epochs * max(1, math.ceil(train / config.batch_size))
        return float(np.dot(self.head, [1.0, steps, rows * width / 1e9, rows * products / 1e9]))

    def until(self, config: TrialConfig, rung: int, epoch: int, train: int, validation: int) -> float:
        """Seconds until the end of a rung."""
        if not config.unfreeze:
            return self.of_head(config, epoch, train)
        above = gflops_above(config)
        trained, judged = above * train * epoch, above * validation * (rung + 1)
        probe = self.of_head(probe_of(config), PROBE_EPOCHS, train)
        return probe + trained * self.trained_gflop + judged * self.judged_gflop


@dataclass(frozen=True)
class Together:
    """What training heads as one computation changes, measured on batches as searches draw them.

    Attributes:
        begin_s: of every trial: making its network, mapping its features.
        factor: what each of very many heads takes, of what it takes as a trial of its own.
    """

    begin_s: float
    factor: float

    @classmethod
    def of(cls, table: CurveTable, seconds: Seconds) -> Together:
        begin, factors = [], []
        for batch in table.data["together"]:
            configs = [Demo.config(point) for point in batch["parameters"]]
            training = sum(seconds.of_head(c, c.epochs, table.images["train"]) for c in configs)
            begin.append(max(0.0, batch["alone_cpu_s"] - training) / len(configs))
            ratio, one = batch["cpu_s"] / batch["alone_cpu_s"], 1 / len(configs)
            factors.append((ratio - one) / (1 - one))
        return cls(float(np.mean(begin)), max(0.0, float(np.mean(factors))))

    def seconds(self, alone_s: float, heads: int) -> float:
        """Of so many heads that would take `alone_s` one after the other."""
        return alone_s * (1 / heads + self.factor * (1 - 1 / heads))


# ------------------------------------------------------------------------------------------------------------ labs


class CurveLab:
    """AutoVision's trials on one data set.

    Args:
        scale: as if the data set had so many times the images: all seconds grow, the curves stay.
    """

    def __init__(self, table: CurveTable, surrogate: Surrogate | None = None, *, scale: float = 1.0) -> None:
        self.table, self.surrogate = table, surrogate or Surrogate(table)
        self.images = {name: round(scale * count) for name, count in table.images.items()}
        self.classes: int = table.data["classes"]
        self.seconds = Seconds.of(table)
        self._feature_s = {
            (each["backbone"], each["resolution"]): each["cpu_s"] / each["gflops"]
            for each in table.data["features"]
        }
        self._together = Together.of(table, self.seconds)
        self._curves: dict[tuple[str, int], list[Rung]] = {}
        self._means: dict[str, np.ndarray] = {}

    def tables(self, config: TrialConfig) -> Sequence[Table]:
        return tables_of(config)

    def table_s(self, table: Table) -> float:
        stages = stage_gflops(table.backbone, table.resolution)
        gflops = sum(stages if table.cut is None else stages[: table.cut])
        return self.images[table.split] * gflops * self.feature_s(table.backbone, table.resolution)

    def feature_s(self, backbone: str, resolution: int | None) -> float:
        """Of 10⁹ operations below the cut."""
        return self._feature_s[backbone, resolution or 224]

    def curve(self, config: TrialConfig, seed: int) -> Sequence[Rung]:
        key = config.digest, seed
        if key not in self._curves:
            values = self.values(config, seed)
            epochs = rung_epochs(config.epochs)
            self._curves[key] = [
                Rung(
                    rung,
                    epoch,
                    self.until(config, rung, epoch),
                    self.metrics(values, rung + RUNGS - len(epochs)),
                )
                for rung, epoch in enumerate(epochs)
            ]
        return self._curves[key]

    def values(self, config: TrialConfig, seed: int) -> np.ndarray:
        """(9,): `OUTPUTS` at each rung, with the noise of a seed."""
        return self.surrogate.seen(config, seed, self.mean(config))

    def until(self, config: TrialConfig, rung: int, epoch: int) -> float:
        training = self.seconds.until(config, rung, epoch, self.images["train"], self.images["validation"])
        return self._together.begin_s + training

    def together_s(self, configs: Sequence[TrialConfig]) -> float:
        alone = sum(self.until(config, RUNGS - 1, config.epochs) for config in configs)
        return self._together.seconds(alone, len(configs))

    def mean(self, config: TrialConfig) -> np.ndarray:
        if config.digest not in self._means:
            self._means[config.digest] = self.surrogate.mean([config])[0]
        return self._means[config.digest]

    @staticmethod
    def metrics(values: np.ndarray, rung: int) -> dict[str, float]:
        accuracy, log_loss = values[rung * len(OUTPUTS)], values[rung * len(OUTPUTS) + 1]
        return {
            "accuracy": float(np.clip(accuracy, 0.0, 1.0)),
            "neg_log_loss": -math.exp(min(log_loss, 5.0)),
        }

    def truth(self, config: TrialConfig, epoch: float) -> float:
        """Test accuracy after so many epochs, without noise."""
        return float(at_epoch(self.mean(config)[2 :: len(OUTPUTS)], rung_epochs(config.epochs), epoch))


def at_epoch(values: np.ndarray, epochs: Sequence[int], epoch: float) -> float:
    """Between rungs on a line over log epochs; before the first one on the line through the first two."""
    x = np.log(epochs)
    where = math.log(max(1.0, epoch))
    if where < x[0] and len(x) > 1:
        slope = (values[1] - values[0]) / (x[1] - x[0])
        return float(values[0] + max(0.0, slope) * (where - x[0]))
    return float(np.interp(where, x, values[-len(x) :]))


def validation(table: CurveTable) -> list[tuple[str, int, float, float, float, float]]:
    """Cross-validated by configuration, with the kernels as they are.

    Returns:
        kind, rows, R², rank correlation, median error, and the median noise of a seed.
    """
    groups = [config.digest for config in table.configs]
    predicted = np.zeros_like(table.outputs)
    for fit, left in GroupKFold(5).split(groups, groups=groups):
        surrogate = Surrogate(table, fit)
        predicted[left] = surrogate.mean([table.configs[i] for i in left])
    said, true = predicted[:, FINAL_TEST], table.outputs[:, FINAL_TEST]
    pairs = _pairs(table, range(len(groups)))
    noise = float(np.median(np.abs(pairs[:, 0, FINAL_TEST] - pairs[:, 1, FINAL_TEST])) / math.sqrt(2))
    tuned = np.array([config.unfreeze > 0 for config in table.configs])
    good = true >= np.median(true)
    found = []
    for kind, rows in (
        ("all", tuned | ~tuned),
        ("heads", ~tuned),
        ("fine-tuned", tuned),
        ("better half", good),
    ):
        if rows.sum() > 4:
            r2, rank = r2_score(true[rows], said[rows]), spearmanr(true[rows], said[rows]).statistic
            error = float(np.median(np.abs(true[rows] - said[rows])))
            found.append((kind, int(rows.sum()), float(r2), float(rank), error, noise))
    return found


def fit_kernels() -> None:
    """To the final test accuracy of the heads of each data set."""
    found = {}
    for name in NAMES:
        table = CurveTable.load(name)
        heads = [i for i, config in enumerate(table.configs) if not config.unfreeze]
        found[name] = asdict(Kernel.fitted(table.inputs[heads], table.outputs[heads][:, FINAL_TEST]))
    KERNELS.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--fit", action="store_true", help="fit the kernels, and keep them with the curves")
    args = parser.parse_args()
    if args.fit:
        fit_kernels()
    figures: dict[str, Any] = {}
    rows = []
    for name in NAMES:
        table = CurveTable.load(name)
        figures[name] = validation(table)
        for kind, count, r2, rank, error, noise in figures[name]:
            rows.append([name, kind, str(count), f"{r2:.3f}", f"{rank:.3f}", f"{error:.4f}", f"{noise:.4f}"])
        heads, tuned = table.data["seconds_of_heads"], Seconds.of(table)
        print(
            f"{name}: seconds of heads are known to {heads['median_relative_error']:.0%}, of fine-tuned trials to "
            f"{tuned.error:.0%} (medians of the relative errors)"
        )
    common.show(
        "Final test accuracy of configurations that the surrogate has not seen (5 folds)",
        ["data", "rows", "n", "R²", "rank correlation", "median error", "median noise of a seed"],
        rows,
    )
    common.write_json(args.json, "curve_table", figures)


if __name__ == "__main__":
    main()
