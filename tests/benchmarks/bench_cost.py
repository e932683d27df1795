"""How well the cost model predicts the seconds of trials on the solar cells, before they run.

    python tests/benchmarks/bench_cost.py --json bench-results/

Mixed trials (two backbones, two resolutions, heads and fine-tuning, with and without flips) run one after the other on
one thread, twice: on a first data set with a model that knows arithmetic alone, and on other cells with one that has
read from the store what the first pass measured. Before each trial it is asked for the seconds to the first rung and to
the end; the error is |predicted / measured - 1|. `one rate` is what a single median GFLOP/s says, with which AutoVision
began. Whatever else the machine does is in the errors. About 8 minutes on two idle cores.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from common import fresh_store, options, show, solar_cells, some, write_json

from autovision.dataset.importer import import_images
from autovision.model.flops import stage_gflops
from autovision.model.network import cut_of
from autovision.records.trials import CurvePoint
from autovision.search.costing.cost import CostModel
from autovision.space import Choice, Space
from autovision.space.config import TrialConfig
from autovision.store.local import LocalStore
from autovision.trial.train import rung_epochs
from autovision.trial.trial import Trial
from autovision.trial.workbench import Workbench

SEED = 0


class Mixed(Space):
    """What trials differ in that makes them cost more or less."""

    backbone = Choice("tf_efficientnet_lite0", "tf_efficientnet_lite1")
    resolution = Choice(160, 224)
    augmentation = Choice("none", "flip")
    unfreeze = Choice(0, 1, 2)
    taps = Choice(1, 3)
    batch_size = Choice(32, 64)
    epochs = 6


class OneRate:
    """The median of GFLOP/s so far; training takes four times the seconds; nothing else is known."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def predicted_s(self, config: TrialConfig, gflops: float, images: int) -> float:
        rate = statistics.median(self.rates[-9:]) if self.rates else 20.0
        seconds = (gflops / rate + 4.0 if gflops else 0.0) + 1.0
        if config.needs_maps:
            stages = stage_gflops(config.backbone, config.resolution)
            above = sum(stages[cut_of(config, len(stages)) :])
            seconds += 4.0 * above * images * max(1, config.epochs // 9) / rate
        return seconds

    def observe(self, gflops: float, seconds: float) -> None:
        if gflops > 0 and seconds > 0.5:
            self.rates.append(gflops / seconds)


def run_pass(
    store: LocalStore, dataset: str, configs: Sequence[TrialConfig], *, warm: bool
) -> list[dict[str, Any]]:
    """Every trial in turn: what was predicted of it, and what it took."""
    bench = Workbench(store, threads=1)
    cost = CostModel(bench, bench.splits(dataset), warm=warm)
    arithmetic = CostModel(bench, bench.splits(dataset), warm=False)
    one_rate, rows = OneRate(), []
    for config in configs:
        begun = cost.begin(config)
        arithmetic.begin(config)
        predicted, total = cost.predict(config), cost.predict(config, epochs=config.epochs)
        by_arithmetic = arithmetic.predicted_s(config)
        gflops = begun.work.gflops
        by_rate = one_rate.predicted_s(config, gflops, len(cost.splits.train))
        started, curve = time.time(), []
        trial = Trial(bench, dataset, config, seed=0, deadline=math.inf)
        for report in trial.run():
            seconds = time.time() - started
            curve.append(
                CurvePoint(
                    rung=report.rung,
                    epoch=report.epoch,
                    seconds=seconds,
                    search_s=seconds,
                    train_loss=report.train_loss,
                    metrics=report.metrics,
                )
            )
            cost.observe(begun, curve, trial.feature_s)
        one_rate.observe(gflops, trial.feature_s)
        rows.append(
            {
                "config": config.model_dump(mode="json"),
                "tuned": config.needs_maps,
                "new_features": gflops > 0,
                "measured_s": curve[0].seconds,
                "measured_total_s": curve[-1].seconds,
                "feature_s": trial.feature_s,
                "one_rate_s": by_rate,
                "arithmetic_s": by_arithmetic,
                "predicted_s": predicted.seconds,
                "interval_s": [predicted.low, predicted.high],
                "predicted_total_s": total.seconds,
            }
        )
    cost.keep()
    return rows


def error(predicted: float, measured: float) -> float:
    return abs(predicted / measured - 1)


def median_error(rows: Sequence[dict[str, Any]], name: str, measured: str = "measured_s") -> float:
    return statistics.median(error(row[name], row[measured]) for row in rows)


def covered(rows: Sequence[dict[str, Any]]) -> float:
    """The share of trials whose first rung came within the interval that should hold four of five."""
    return statistics.mean(row["interval_s"][0] <= row["measured_s"] <= row["interval_s"][1] for row in rows)


def asking_ms(store: LocalStore, dataset: str, configs: Sequence[TrialConfig]) -> float:
    bench = Workbench(store, threads=1)
    cost = CostModel(bench, bench.splits(dataset))
    for config in configs:
        cost.predicted_s(config)
    times = 200
    began = time.perf_counter()
    for _ in range(times):
        for config in configs:
            cost.predicted_s(config)
    return 1e3 * (time.perf_counter() - began) / times / len(configs)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--trials", type=int, default=24, help="in each pass")
    parser.add_argument("--images", type=int, default=600, help="of each data set")
    chosen = parser.parse_args()
    count, images = (4, 80) if chosen.quick else (chosen.trials, chosen.images)
    torch.set_num_threads(1)
    space, rng = Mixed(), np.random.default_rng(SEED)
    configs = [space.config(space.sample(rng)) for _ in range(count)]
    cells = solar_cells()
    halves = [some(cells[::2], images), some(cells[1::2], images)]
    with fresh_store() as store:
        passes = {}
        for name, half, warm in (("first", halves[0], False), ("second", halves[1], True)):
            dataset = import_images(store, name, half, seed=SEED, stratify_by="cell_type").id
            passes[name] = run_pass(store, dataset, configs, warm=warm)
        asked_ms = asking_ms(store, "second@1", configs)
    first, second = passes["first"], passes["second"]
    kinds = {
        "all": lambda row: True,
        "heads": lambda row: not row["tuned"],
        "fine-tuned": lambda row: row["tuned"],
        "with new features": lambda row: row["new_features"],
        "features were there": lambda row: not row["new_features"],
    }
    table = []
    for name, which in kinds.items():
        a, b = [row for row in first if which(row)], [row for row in second if which(row)]
        if a and b:
            one = [f"{median_error(a, key):.2f}" for key in ("one_rate_s", "arithmetic_s", "predicted_s")]
            table.append([name, str(len(a)), *one, f"{median_error(b, 'predicted_s'):.2f}"])
    show(
        f"Median relative error of the seconds to the first rung, {count} trials in each pass, {images} cells",
        ("trials", "n", "one rate", "arithmetic alone", "learning, from nothing", "learning, from the store"),
        table,
        f"To the last epoch: {median_error(first, 'predicted_total_s', 'measured_total_s'):.2f} from nothing, "
        f"{median_error(second, 'predicted_total_s', 'measured_total_s'):.2f} from the store.",
        f"The first five trials alone: {median_error(first[:5], 'predicted_s'):.2f} from nothing, "
        f"{median_error(second[:5], 'predicted_s'):.2f} from the store.",
        f"Within the interval that should hold 80 %: {100 * covered(first):.0f} % and {100 * covered(second):.0f} %. "
        f"Being asked takes {asked_ms:.3f} ms.",
    )
    figures = {
        "quick": chosen.quick,
        "images": images,
        "asked_ms": asked_ms,
        "rungs": rung_epochs(6),
        **passes,
    }
    write_json(chosen.json, "cost", figures)


if __name__ == "__main__":
    main()
