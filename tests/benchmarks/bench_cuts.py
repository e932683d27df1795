"""A trial from stored activations against computing everything below the cut in every epoch, at every cut.

    python tests/benchmarks/bench_cuts.py --json bench-results/

EfficientNet-Lite0 at 224 px on solar cells, flips, batches of 32; about 12 minutes. The very same epoch (same images,
same views, same steps) is trained

- from stored activations,
- recomputing them by the compiled prefix, which is what a trial falls back to when its features may not be stored,
- recomputing them in eager PyTorch, as scripts do,

one way after the other in each round, and ratios are taken round by round. The process is bound to as many cores as
it has threads: one, which is what a trial of a search has. All ways find the decoded images in memory. What storing
costs once is timed apart, the compilation of the network not included, which both compiled ways need.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from common import fresh_store, import_solar_cells, options, ratios, show, spread, write_json

from autovision.dataset.loader import load_pixels
from autovision.features.compute import FeatureSource
from autovision.features.extract import FrozenPrefix
from autovision.features.prefix import ComputedPrefix, Prefix
from autovision.features.views import Views
from autovision.model.compiled import Compiled
from autovision.model.heads import tapped_stages
from autovision.model.inference import EagerModule, compile_module, native_precision
from autovision.model.network import cut_of
from autovision.records.datasets import Split
from autovision.space.config import TrialConfig
from autovision.trial.data import columns_of, tensors, views_of
from autovision.trial.state import Training
from autovision.trial.step import run_epoch
from autovision.trial.trial import Trial
from autovision.trial.workbench import Workbench

STORED, COMPILED, EAGER = "stored", "recomputed, compiled", "recomputed, eager"
FRACTIONS = {Split.TRAIN: 0.8, Split.VALIDATION: 0.1, Split.TEST: 0.1}


@dataclass(frozen=True)
class Frozen:
    """What a configuration wants to know of the network below its cut."""

    source: FeatureSource
    config: TrialConfig

    @property
    def keep(self) -> int:
        return len(self.source.shapes.channels)

    @property
    def cut(self) -> int | None:
        """None: the head alone is trained, on the pooled output of the last stage."""
        return cut_of(self.config, self.keep) if self.config.needs_maps else None

    @property
    def columns(self) -> np.ndarray | None:
        if self.config.needs_maps:
            return None
        return columns_of(self.config, self.source.shapes.channels, tapped_stages(self.config, self.keep))

    def stored(self, images: tuple[str, ...], views: Views) -> Prefix:
        return self.source.prefix(images, views, cut=self.cut, columns=self.columns, deadline=math.inf)

    def recomputed(self, images: tuple[str, ...], pixels: np.ndarray, *, compiled: bool) -> Prefix:
        shapes, prep = self.source.shapes, self.source.preprocessing
        stages = [] if self.columns is None else shapes.stages_of(self.columns)
        module = FrozenPrefix(self.source.loaded.staged, prep, self.cut, stages)
        network: Compiled = (
            compile_module(
                module, (prep.height, prep.width), precision=native_precision(), threads=self.source.threads
            )
            if compiled and self.cut != 0
            else EagerModule(module)
        )
        return ComputedPrefix(
            names=images,
            draw=views_of(self.config),
            pixels=lambda rows: pixels[rows],
            network=network,
            activation_shape=None if self.cut is None else shapes.activations[self.cut],
            columns=None
            if self.columns is None
            else np.searchsorted(shapes.columns_of(stages), self.columns),
            spent=lambda seconds, images: None,
            rounded=self.cut != 0,
        )

    @property
    def row_bytes(self) -> int:
        """Of one view of one image, as it is stored; at cut 0 its pixels are."""
        prep, shapes = self.source.preprocessing, self.source.shapes
        if self.cut == 0:
            return 3 * prep.height * prep.width
        return 2 * (shapes.columns if self.cut is None else math.prod(shapes.activations[self.cut]))


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def input_ms(prefix: Prefix, batch: int, round_number: int) -> float:
    """Milliseconds of processor time for an image of a batch, up to the tensor that the trained part begins with."""
    rng = np.random.default_rng(round_number)
    rows = rng.integers(prefix.images, size=batch)
    views = rng.integers(prefix.views or 1, size=batch)
    began = time.process_time()
    tensors(prefix, views, rows, torch.device("cpu"))
    return 1000 * (time.process_time() - began) / batch


def measure(bench: Workbench, dataset: str, config: TrialConfig, rounds: int) -> dict[str, Any]:
    """Seconds per epoch of each way, round by round, and what storing took."""
    trial = Trial(bench, dataset, config, seed=0, deadline=math.inf)
    frozen = Frozen(bench.source(config), config)
    images = trial.splits.train.images
    frozen.stored(trial.splits.validation.images, Views())  # compiles the network
    once = seconds(lambda: frozen.stored(images, views_of(config)))
    for _ in trial.run():
        pass  # gives what is trained below, warmed up
    pixels = load_pixels(bench.store, images, frozen.source.preprocessing, threads=bench.threads)
    ways = {
        STORED: frozen.stored(images, views_of(config)),
        COMPILED: frozen.recomputed(images, pixels, compiled=True),
        EAGER: frozen.recomputed(images, pixels, compiled=False),
    }
    for prefix in ways.values():
        prefix.take(np.zeros(config.batch_size, np.int64), np.arange(config.batch_size))
    inputs: dict[str, list[float]] = {way: [] for way in ways}
    epochs: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        # There and back: what comes first in one round comes last in the next.
        for way, prefix in list(ways.items())[:: -1 if number % 2 else 1]:
            inputs[way].append(input_ms(prefix, config.batch_size, number))
            epochs[way].append(epoch(trial.training, prefix))
    return {
        "cut": frozen.cut,
        "images": len(images),
        "views": views_of(config).number,
        "row_bytes": frozen.row_bytes,
        "store_once_s": once,
        "input_cpu_ms": inputs,
        "epoch_s": epochs,
        "ratio": {way: ratios(epochs[way], epochs[STORED]) for way in (COMPILED, EAGER)},
        "break_even_epochs": {
            way: break_even(once, epochs[way], epochs[STORED]) for way in (COMPILED, EAGER)
        },
    }


def epoch(run: Training, prefix: Prefix) -> float:
    """Seconds of the first epoch on what a prefix gives."""
    run.epoch = 0
    run.problem = replace(run.problem, train=replace(run.problem.train, prefix=prefix))
    return seconds(lambda: run_epoch(run, math.inf))


def break_even(once: float, recomputed: list[float], stored: list[float]) -> float | None:
    """After how many epochs storing has paid for itself; None: never."""
    saved = statistics.median(r - s for r, s in zip(recomputed, stored, strict=True))
    return once / saved if saved > 0 else None


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    epoch_s, ratio, even = row["epoch_s"], row["ratio"], row["break_even_epochs"]
    return [
        "head alone" if row["cut"] is None else str(row["cut"]),
        f"{row['row_bytes'] * 1000 / 1e6:.1f}",
        f"{row['store_once_s']:.1f}",
        f"{statistics.median(epoch_s[STORED]):.2f}",
        spread(ratio[COMPILED]),
        spread(ratio[EAGER]),
        " / ".join(f"{statistics.median(values):.2f}" for values in row["input_cpu_ms"].values()),
        " / ".join("never" if even[way] is None else f"{even[way]:.1f}" for way in (COMPILED, EAGER)),
    ]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=128, help="that are trained on")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cuts", type=int, nargs="*", help="only these; default: all, and the head alone")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.images, chosen.resolution = 2, 64, 64
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: chosen.threads])
    torch.set_num_threads(chosen.threads)
    base = TrialConfig(resolution=chosen.resolution, augmentation="flip", epochs=1, batch_size=32)
    rows = []
    with fresh_store() as store:
        count = round(chosen.images / FRACTIONS[Split.TRAIN])
        dataset = import_solar_cells(store, count=count, fractions=FRACTIONS).id
        bench = Workbench(store, chosen.threads)
        stages = len(bench.channels(base))
        for cut in range(stages + 1) if chosen.cuts is None else chosen.cuts:
            rows.append(measure(bench, dataset, base.with_(unfreeze=stages - cut), chosen.rounds))
    show(
        f"An epoch of {rows[0]['images']} images, {base.backbone} at {chosen.resolution} px, "
        f"{chosen.threads} thread(s), n = {chosen.rounds} rounds",
        (
            "cut",
            "MB per 1,000",
            f"{rows[0]['views']} views once, s",
            "stored epoch, s",
            "compiled / stored",
            "eager / stored",
            "input, CPU ms per image",
            "pays after epochs",
        ),
        [cells(row) for row in rows],
        "MB are of one view. Ratios are min / median / max of seconds per epoch. Input: processor time until a batch "
        "is at the cut, stored / compiled / eager. Storing pays after so many epochs against compiled / eager.",
        "Cut 0 trains the whole network: nothing is frozen, its pixels are what is stored, all ways are one.",
    )
    write_json(
        chosen.json,
        "cuts",
        {
            "config": base.model_dump(mode="json"),
            "threads": chosen.threads,
            "rounds": chosen.rounds,
            "quick": chosen.quick,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
