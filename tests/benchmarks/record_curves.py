"""Records the learning curves that searches are simulated on: `tests/benchmarks/curves/`.

    nice python tests/benchmarks/record_curves.py --store /somewhere --minutes 40

Real trials on two data sets: the solar cells, and the handwritten digits that come with scikit-learn. Configurations
are drawn at random from `search_spaces.demo`: heads on the pooled features of every backbone at every resolution, and
fine-tuned networks until the minutes are over. Every rung's validation and test metrics are kept; images and
weights are not.

Seconds are CPU seconds of this process with one thread, so that what else the machine does hardly matters. Those of
fine-tuned trials and of features are measured. Heads are trained hundreds at a time, so theirs come from a linear
model of steps, rows and products, fitted to heads that were trained one by one. The table says how well it fits.
Features are content-addressed: a second run with the same store finds them. `--only fine-tuned` adds to the tables.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common
import curve_table
import numpy as np
import timm
import torch
from PIL import Image
from scipy.optimize import nnls
from sklearn.datasets import load_digits

from autovision.dataset.importer import import_images
from autovision.dataset.listing import SourceImage
from autovision.features.views import Views
from autovision.model.flops import stage_gflops
from autovision.records.base import now
from autovision.records.datasets import DatasetVersion, Split
from autovision.search.arms import SHAPE
from autovision.space import Choice
from autovision.space.config import TrialConfig
from autovision.store.local import LocalStore
from autovision.trial.data import Labelled
from autovision.trial.fused import HeadProblem, fit_heads
from autovision.trial.pooled import head_columns, load_pooled
from autovision.trial.schedule import steps_per_epoch
from autovision.trial.splits import DataSplits
from autovision.trial.step import NotFinite
from autovision.trial.train import RungReport, score
from autovision.trial.trial import Trial
from autovision.trial.workbench import Workbench
from search_spaces.demo import Demo

FRACTIONS = {Split.TRAIN: 1 / 3, Split.VALIDATION: 2 / 9, Split.TEST: 4 / 9}
"""few to train on, so that trials are short; many to judge by, so that curves are smooth"""
IMAGES = {"solar": 1_500, "digits": 750}
REPEATED = 16
"""heads of each group that are trained with a second seed, which tells noise from what configurations differ in"""
TOGETHER = 16
"""heads of each group that are trained together once more, to see what that saves"""
TIMED = 6
"""heads of each group that are trained alone, too"""
FINE_TUNED_EPOCHS = (4, 14)
PARTS = ("heads", "together", "fine-tuned")
KEPT = ("accuracy", "balanced_accuracy", "neg_log_loss")


@dataclass
class Recorder:
    """One data set: its splits with validation and test as one, told apart when they are judged."""

    bench: Workbench
    name: str
    splits: DataSplits

    @classmethod
    def of(cls, bench: Workbench, version: DatasetVersion) -> Recorder:
        return cls(bench, version.id, bench.splits(version.id))

    @property
    def judged(self) -> Labelled:
        both = (self.splits.validation, self.splits.test)
        return Labelled(
            tuple(image for split in both for image in split.images),
            torch.cat([split.targets for split in both]),
            torch.cat([split.confidence for split in both]),
        )

    def rung(self, report: RungReport, seconds: float) -> dict[str, Any]:
        first = len(self.splits.validation)
        found = {
            "validation": score(report.logits[:first], self.splits.validation, self.splits.positive),
            "test": score(report.logits[first:], self.splits.test, self.splits.positive),
        }
        kept = {split: {name: round(each[name], 5) for name in KEPT} for split, each in found.items()}
        return {"rung": report.rung, "epoch": report.epoch, "seconds": round(seconds, 3), **kept}

    # ------------------------------------------------------------------------------------------------ heads

    def features(self, backbone: str, resolution: int) -> dict[str, Any]:
        """Compute everything pooled of a backbone; what it cost."""
        config = TrialConfig(backbone=backbone, resolution=resolution)
        source, columns = self.bench.source(config), np.arange(3 * sum(self.bench.channels(config)))
        began, before = time.process_time(), source.computed
        for augmentation in ("none", "flip", "dihedral"):
            views = Views(augmentation)
            source.prefix(self.splits.train.images, views, cut=None, columns=columns, deadline=math.inf)
        source.prefix(self.judged.images, Views(), cut=None, columns=columns, deadline=math.inf)
        spent, rows = time.process_time() - began, source.computed - before
        gflops = rows * sum(stage_gflops(backbone, resolution))
        return {
            "backbone": backbone,
            "resolution": resolution,
            "rows": rows,
            "gflops": gflops,
            "cpu_s": spent,
        }

    def heads(self, points: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
        """Train heads of one backbone as one; their rows, without seconds."""
        configs = [Demo.config(point) for point in points]
        source, channels = self.bench.source(configs[0]), self.bench.channels(configs[0])
        train, judged = (
            load_pooled(source, split, configs, channels, training=training, deadline=math.inf)
            for split, training in ((self.splits.train, True), (self.judged, False))
        )
        problem = HeadProblem(train, judged, channels, self.splits.positive)
        heads = fit_heads(configs, problem, seed, math.inf, torch.device("cpu"))
        return [
            {
                "parameters": point,
                "seed": seed,
                "curve": [self.rung(report, 0.0) for report in head.reports],
                "error": head.error,
            }
            for point, head in zip(points, heads, strict=True)
        ]

    def together(self, backbone: str, resolution: int) -> dict[str, Any]:
        """What a batch takes as a search trains it, and what the same heads take as trials of their own.

        They differ in anything but the features that they read and the shape that they have.
        """
        rng, fixed = np.random.default_rng(TOGETHER), {"augmentation": "flip", "unfreeze": 0}
        first = points(rng, 1, backbone=backbone, resolution=resolution, **fixed)[0]
        shape = {name: first[name] for name in SHAPE if name in first}
        drawn = points(rng, TOGETHER, backbone=backbone, resolution=resolution, **fixed)
        # Widths and the like belong to a shape, or do not exist in it.
        batch = [{k: v for k, v in (point | shape).items() if k in first} for point in drawn]
        began = time.process_time()
        self.heads(batch, 0)
        together, began = time.process_time() - began, time.process_time()
        for point in batch:
            self.alone(point, 0)
        return {"parameters": batch, "cpu_s": together, "alone_cpu_s": time.process_time() - began}

    def work(self, config: TrialConfig) -> list[float]:
        """What the seconds of a head are linear in: one, steps, numbers read, and products, both in 10⁹."""
        channels = self.bench.channels(config)
        width, classes = len(head_columns(config, channels)), self.splits.train.classes
        rows = config.epochs * len(self.splits.train)
        hidden = config.head_width if config.head == "mlp" else 0
        weights = width * hidden + hidden * classes if hidden else width * classes
        steps = config.epochs * steps_per_epoch(config, len(self.splits.train))
        return [1.0, float(steps), rows * width / 1e9, rows * weights / 1e9]

    def alone(self, point: dict[str, Any], seed: int) -> dict[str, Any]:
        """Train one configuration by itself: its row, the CPU seconds of its features apart from the others."""
        config = Demo.config(point)
        trial = Trial(self.bench, self.name, config, seed, deadline=math.inf)
        trial.splits = replace(self.splits, validation=self.judged)
        began = time.process_time()
        trial._problem()  # computes what is missing, so that what follows is training alone
        features, began = time.process_time() - began, time.process_time()
        curve: list[dict[str, Any]] = []
        row = {
            "parameters": point,
            "seed": seed,
            "curve": curve,
            "error": None,
            "feature_s": round(features, 3),
        }
        try:
            for report in trial.run():
                curve.append(self.rung(report, time.process_time() - began))
        except NotFinite as error:
            row["error"] = str(error)
        return row


def solar_cells(store: LocalStore, count: int) -> DatasetVersion:
    return common.import_solar_cells(store, count=count, fractions=FRACTIONS)


def digits(store: LocalStore, folder: Path, count: int) -> DatasetVersion:
    """1,797 handwritten digits of 8 by 8 pixels, each pixel drawn as 8 by 8 (UCI, optical recognition)."""
    folder.mkdir(exist_ok=True)
    data = load_digits()
    sources = []
    for number, (image, label) in enumerate(zip(data.images, data.target, strict=True)):
        if number >= count:
            break
        path = folder / f"{number:04d}.png"
        if not path.exists():
            grey = Image.fromarray((image * 255 / 16).astype(np.uint8))
            grey.resize((64, 64), Image.Resampling.BICUBIC).save(path)
        sources.append(SourceImage(label=str(label), path=path))
    return import_images(store, "digits", sources, seed=0, fractions=FRACTIONS)


def points(rng: np.random.Generator, count: int, **fixed: Any) -> list[dict[str, Any]]:
    """Drawn from the demo's space, with some parameters given."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        point = Demo.sample(rng)
        if point["unfreeze"] == fixed.get("unfreeze", point["unfreeze"]):
            found.append(point | fixed)
    return found


def fine_tuned_points(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Without end: mostly small images, few epochs, few views, so that they are affordable."""
    low, high = FINE_TUNED_EPOCHS
    while True:
        yield points(
            rng,
            1,
            backbone=str(rng.choice(["tf_efficientnet_lite0", "tf_efficientnet_lite1"])),
            resolution=int(rng.choice([160, 224], p=[0.75, 0.25])),
            augmentation=str(rng.choice(["none", "flip", "dihedral"], p=[0.4, 0.4, 0.2])),
            unfreeze=int(rng.integers(1, 3)),
        )[0] | {"epochs": round(math.exp(rng.uniform(math.log(low), math.log(high))))}


def plain_costs() -> dict[str, float]:
    """What a script pays that computes everything in every epoch: PyTorch, eager, one thread, CPU seconds."""
    name, size, batch = "tf_efficientnet_lite0", 224, 32
    gflops = batch * sum(stage_gflops(name, size))
    model = timm.create_model(name, pretrained=False).eval().to(memory_format=torch.channels_last)
    x = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)

    def seconds(train: bool) -> float:
        best = math.inf
        for _ in range(4):
            began = time.process_time()
            with torch.set_grad_enabled(train):
                out = model(x)
                if train:
                    out.sum().backward()
            best = min(best, time.process_time() - began)
        return best

    forward, both = seconds(False), seconds(True)
    return {
        "forward_s_per_gflop": forward / gflops,
        "backward_s_per_gflop": (both - forward) / gflops,
    }


def seconds_of_heads(recorder: Recorder, rows: Sequence[dict[str, Any]], timed: Any) -> dict[str, Any]:
    """Fit the linear model of a head's seconds, and give every row its own; the coefficients, and how they fit."""
    work = np.array([recorder.work(Demo.config(point)) for point, _ in timed])
    measured = np.array([seconds for _, seconds in timed])
    # Relative errors: short heads are most of them.
    coefficients, _ = nnls(work / measured[:, None], np.ones(len(measured)))
    said = work @ coefficients
    for row in rows:
        config = Demo.config(row["parameters"])
        total = float(np.dot(recorder.work(config), coefficients))
        for rung in row["curve"]:
            share = rung["epoch"] / config.epochs
            rung["seconds"] = round(coefficients[0] + (total - coefficients[0]) * share, 3)
    return {
        "per_trial_step_read_product": [float(x) for x in coefficients],
        "timed": len(timed),
        "median_relative_error": float(np.median(np.abs(said / measured - 1))),
    }


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--store", type=Path, required=True, help="folder of features, kept between runs")
    parser.add_argument("--out", type=Path, default=curve_table.FOLDER)
    parser.add_argument("--heads", type=int, default=64, help="of each backbone at each resolution")
    parser.add_argument("--data", choices=list(IMAGES), nargs="+", default=list(IMAGES))
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--minutes", type=float, default=40, help="after which no fine-tuned trial begins")
    args = parser.parse_args()
    if args.quick:
        args.heads, args.minutes = 4, 1.0
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * args.minutes
    store = LocalStore(args.store)
    bench = Workbench(store, 1)
    counts = {name: 60 if args.quick else images for name, images in IMAGES.items()}
    recorders = {}
    for name in args.data:
        own = counts[name]
        version = solar_cells(store, own) if name == "solar" else digits(store, args.store / "digits", own)
        recorders[name] = Recorder.of(bench, version)
    if "heads" in args.only:
        record_heads(recorders, args.out, args.heads)
    if "together" in args.only:
        record_together(recorders, args.out)
    if "fine-tuned" in args.only:
        record_fine_tuned(recorders, args.out, until)


def record_heads(recorders: Mapping[str, Recorder], out: Path, count: int) -> None:
    """Begin the tables anew, with the heads of every backbone at every resolution."""
    plain = plain_costs()
    for name, recorder in recorders.items():
        rng = np.random.default_rng(list(IMAGES).index(name))
        rows, timed, features = [], [], []
        for backbone in choices("backbone"):
            for resolution in choices("resolution"):
                features.append(recorder.features(backbone, resolution))
                drawn = points(rng, count, backbone=backbone, resolution=resolution, unfreeze=0)
                rows += recorder.heads(drawn, 0) + recorder.heads(drawn[:REPEATED], 1)
                # The first one compiles and loads what the others find.
                alone = [recorder.alone(point, 0) for point in drawn[: TIMED + 1]][1:]
                timed += [
                    (row["parameters"], row["curve"][-1]["seconds"]) for row in alone if not row["error"]
                ]
                print(name, features[-1], flush=True)
        splits = recorder.splits
        table = {
            "about": " ".join((__doc__ or "").split()),
            "recorded_at": now().isoformat(timespec="seconds"),
            "machine": {
                key: common.machine()[key] for key in ("processor", "amx", "inference_precision", "packages")
            },
            "images": {
                "train": len(splits.train),
                "validation": len(splits.validation),
                "test": len(splits.test),
            },
            "classes": splits.train.classes,
            "seconds_of_heads": seconds_of_heads(recorder, rows, timed),
            "features": features,
            "together": [],
            "plain": plain,
            "rows": rows,
        }
        curve_table.write(out / f"{name}.json.gz", table)


def record_together(recorders: Mapping[str, Recorder], out: Path) -> None:
    """Into the tables that are there, what heads save that are trained together."""
    for name, recorder in recorders.items():
        table = dict(curve_table.CurveTable.load(name, out).data)
        found = [
            recorder.together(backbone, r) for backbone in choices("backbone") for r in choices("resolution")
        ]
        curve_table.write(out / f"{name}.json.gz", table | {"together": found})
        print(name, [(round(each["cpu_s"], 1), round(each["alone_cpu_s"], 1)) for each in found], flush=True)


def record_fine_tuned(recorders: Mapping[str, Recorder], out: Path, until: float) -> None:
    """Add fine-tuned trials to the tables that are there, one of each data set in turn."""
    drawn: dict[str, Iterator[dict[str, Any]]] = {}
    while time.monotonic() < until:
        for name, recorder in recorders.items():
            if not (out / f"{name}.json.gz").exists():
                continue
            table = dict(curve_table.CurveTable.load(name, out).data)
            if name not in drawn:
                done = sum(row["parameters"]["unfreeze"] > 0 for row in table["rows"])
                drawn[name] = itertools.islice(
                    fine_tuned_points(np.random.default_rng(100 + list(IMAGES).index(name))), done, None
                )
            row = recorder.alone(next(drawn[name]), 0)
            curve_table.write(out / f"{name}.json.gz", table | {"rows": [*table["rows"], row]})
            print(
                name,
                row["parameters"]["epochs"],
                row["feature_s"],
                row["curve"][-1:],
                row["error"],
                flush=True,
            )


def choices(name: str) -> tuple[Any, ...]:
    parameter = Demo.parameters[name]
    assert isinstance(parameter, Choice)
    return tuple(parameter.values)


if __name__ == "__main__":
    main()
