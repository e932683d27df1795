"""Trials per minute on the solar cells: AutoVision's engine against plain Ray Tune and timm, in one run.

    python tests/benchmarks/bench_trials.py --json bench-results/
    python tests/benchmarks/bench_trials.py --agreement --json bench-results/    # about an hour and a half on two cores

Both get the same 40 configurations, drawn at random from a fixed seed: how many stages are unfrozen, flips, rates,
decay, smoothing, mixup, dropout; 8 epochs on the same splits, ranked on the same validation images.

- AutoVision runs all 40 as `autovision search` does, from an empty store: driver, Ray Tune, workers that are reused,
  frozen features. Pruning is off, so that every trial trains all of its epochs.
- The plain script (`plain_tune.py`) would take hours for 40. Some trials of every depth run some epochs, two at a
  time as on AutoVision's side; whole trials and trials per minute are extrapolated, weighted by the depths of the 40.

With `--agreement` the plain script trains six whole trials, AutoVision's three best and three others: their validation
accuracies stand side by side, next to what another seed changes.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common
import numpy as np
import plain_tune
import torch
from scipy import stats

from autovision import runtime
from autovision.dataset import manifest
from autovision.evaluation import wilson
from autovision.model import backbone, weights
from autovision.model.flops import stage_gflops
from autovision.records.datasets import DatasetVersion, Split
from autovision.records.trials import TrialResult
from autovision.search import requests
from autovision.search.costing.cost import CostModel
from autovision.search.driver import Driver
from autovision.search.sharing.placement import placement
from autovision.search.tune_loop import nodes, run_trials
from autovision.search.warm import Start
from autovision.space import Choice, Float, Integer, Space
from autovision.space.config import TrialConfig
from autovision.store import keys
from autovision.store.local import LocalStore
from autovision.trial.execution import value_of
from autovision.trial.workbench import Workbench

Point = dict[str, Any]

SEED = 0
OTHER_SEEDS = (1, 2)
BUDGET_S = 24 * 3600.0
"""so much that nothing is cut short"""
BACKWARD = 2.0
"""arithmetic of a backward pass, relative to the forward pass"""


class Frozen(Space):
    """One backbone of which most is frozen."""

    backbone = plain_tune.BACKBONE
    resolution = plain_tune.RESOLUTION
    unfreeze = Integer(0, 2)
    layer_decay = 1.0
    augmentation = Choice("none", "flip")
    lr = Float(3e-4, 1e-2, log=True)
    weight_decay = Float(1e-5, 1e-1, log=True)
    label_smoothing = Float(0.0, 0.2)
    mixup = Choice(0.0, 0.2, 0.4)
    dropout = Float(0.0, 0.5)
    batch_size = 64
    epochs = 8


def space_of(count: int) -> Space:
    class Timed(Frozen):
        epochs = count

    return Timed()


class Unpruned(Driver):
    """Lets every trial train all of its epochs."""

    def goes_on(self, trial: str, result: dict[str, Any]) -> bool:
        known = trial in self.running
        super().goes_on(trial, result)
        if known:
            self.running[trial].pruned = False
        return known


# -------------------------------------------------------------------------------------------- AutoVision


@dataclass(frozen=True)
class Ours:
    """What AutoVision's engine did.

    Attributes:
        trials: in the order of the points.
        wall_s: from the first look at the data set to the end of the last trial.
        started_s: until the first trial began in a worker.
    """

    trials: list[TrialResult]
    wall_s: float
    started_s: float


def run_ours(
    store: LocalStore, cells: DatasetVersion, space: Space, points: Sequence[Point], seed: int
) -> Ours:
    """The points as a search runs its starting points; Ray must be connected."""
    began = time.time()
    request = requests.make_request(
        store, cells.id, space, budget_s=BUDGET_S, max_trials=len(points), seed=seed, warm_start=False
    )
    requests.submit(store, request)
    bench = Workbench(store, common.machine()["cores"])
    driver = Unpruned(
        store=store,
        request=request,
        space=space,
        cost=CostModel(bench, bench.splits(cells.id)),
        starts=[Start(dict(point), "drawn") for point in points],
        ledger=[],
        attempt=1,
        deadline=began + BUDGET_S,
        search_started=began,
        threads=1,
    )
    run_trials(driver, lambda: False)
    wall_s = time.time() - began
    for trial in driver.ledger:
        if trial.value is None:
            raise RuntimeError(f"trial {trial.trial} gave no value: {trial.error}")
    trials = {space.config(trial.parameters).digest: trial for trial in driver.ledger}
    first = min(trial.curve[0].search_s - trial.curve[0].seconds for trial in driver.ledger)
    return Ours([trials[space.config(point).digest] for point in points], wall_s, first)


# ------------------------------------------------------------------------------------- plain Tune and timm


@dataclass(frozen=True)
class Plain:
    """What the plain script did for some of the points.

    Attributes:
        numbers: of the points.
        reports: the last one of each.
        start_s: until the first trial began in its worker; every trial has a worker of its own.
    """

    numbers: list[int]
    reports: list[dict[str, Any]]
    start_s: float
    wall_s: float

    def trial_s(self, index: int, epochs: int) -> float:
        """A whole trial: what was measured of it, and its other epochs at the median of those."""
        report = self.reports[index]
        return float(self.start_s + report["setup_s"] + epochs * statistics.median(report["epochs_s"]))


def write_folders(store: LocalStore, cells: DatasetVersion, folder: Path) -> Path:
    """The same splits as folders of class folders, for `ImageFolder`; and the backbone's weights, for timm."""
    for row in manifest.read(store, cells):
        path = folder / row.split / str(row.label) / f"{row.image}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(keys.image(row.image)).data)
    config = TrialConfig(backbone=plain_tune.BACKBONE)
    model = backbone.create(config)
    weights.load_into(model, config)
    torch.save(model.state_dict(), folder / "weights.pth")
    return folder


def plain_config(config: TrialConfig, number: int, folder: Path, *, channels_last: bool) -> dict[str, Any]:
    wanted = ("unfreeze", "lr", "backbone_lr_ratio", "weight_decay", "label_smoothing", "mixup", "dropout")
    return {
        **{name: getattr(config, name) for name in (*wanted, "batch_size", "epochs")},
        "flip": config.augmentation == "flip",
        "number": number,
        "seed": SEED,
        "data": str(folder),
        "weights": str(folder / "weights.pth"),
        "memory_format": torch.channels_last if channels_last else torch.contiguous_format,
    }


def run_plain(
    configs: Sequence[TrialConfig],
    numbers: Sequence[int],
    folder: Path,
    epochs: int,
    *,
    channels_last: bool = False,
) -> Plain:
    began = time.time()
    params = [plain_config(configs[i], i, folder, channels_last=channels_last) for i in numbers]
    with tempfile.TemporaryDirectory(prefix="plain-tune-") as scratch:
        resources = placement(nodes()).of_worker()
        reports = plain_tune.run(params, Path(scratch), epochs=epochs, resources=resources)
    start_s = min(report["began"] for report in reports) - began
    return Plain(list(numbers), reports, start_s, time.time() - began)


def stratified(configs: Sequence[TrialConfig], ranked: Sequence[int], count: int) -> list[int]:
    """`count` of the points: the best of every depth, the deepest first, then the next best."""
    depths = sorted({config.unfreeze for config in configs}, reverse=True)
    first = [next(i for i in ranked if configs[i].unfreeze == depth) for depth in depths]
    return [*first, *(i for i in ranked if i not in first)][:count]


def for_agreement(ranked: Sequence[int]) -> list[int]:
    """The three best, and three others at random."""
    others = np.random.default_rng(SEED).choice(ranked[3:], size=min(3, len(ranked) - 3), replace=False)
    return [*ranked[:3], *map(int, others)]


def plain_trial_s(plain: Plain, configs: Sequence[TrialConfig]) -> dict[int, float]:
    """Seconds of a whole trial by depth; a depth that was not run counts as the nearest one that was."""
    seconds: dict[int, list[float]] = {}
    for index, number in enumerate(plain.numbers):
        config = configs[number]
        seconds.setdefault(config.unfreeze, []).append(plain.trial_s(index, config.epochs))
    return {
        depth: statistics.mean(seconds[min(seconds, key=lambda known: (abs(known - depth), known))])
        for depth in sorted({config.unfreeze for config in configs})
    }


# ----------------------------------------------------------------------------------------------- the bound


def frozen_share(config: TrialConfig, train: int, validation: int) -> float:
    """f: the frozen forward passes as a share of the arithmetic of a trial that recomputes them."""
    stages = stage_gflops(config.backbone, config.resolution)
    cut = len(stages) - config.unfreeze
    below, above = sum(stages[:cut]), sum(stages[cut:])
    frozen = below * (train + validation)
    return frozen / (frozen + above * ((1 + BACKWARD) * train + validation))


def bound(f: float, trials: int, epochs: int) -> float:
    """How many times faster computing the frozen part once for all trials and epochs can be."""
    return 1 / ((1 - f) + f / (trials * epochs))


# ------------------------------------------------------------------------------------------------- results


def depth_rows(
    configs: Sequence[TrialConfig], ours: Ours, plain_s: dict[int, float], cells: DatasetVersion
) -> list[dict[str, Any]]:
    train, validation = (sum(cells.counts[split].values()) for split in (Split.TRAIN, Split.VALIDATION))
    rows = []
    for depth, seconds in plain_s.items():
        mine = [t for c, t in zip(configs, ours.trials, strict=True) if c.unfreeze == depth]
        one = next(config for config in configs if config.unfreeze == depth)
        f = frozen_share(one, train, validation)
        rows.append(
            {
                "unfreeze": depth,
                "T": len(mine),
                "E": one.epochs,
                "f": f,
                "bound": bound(f, len(mine), one.epochs),
                "training_s": [trial.seconds - trial.feature_s for trial in mine],
                "feature_s": [trial.feature_s for trial in mine],
                "plain_s": seconds,
            }
        )
    return rows


def agreement(
    ours: Ours, plain: Plain, repeats: Sequence[Sequence[TrialResult]], validation: int
) -> dict[str, Any]:
    """Both sides on what both trained, and whether AutoVision's winner is the plain script's, too, within noise.

    Args:
        repeats: the best trials, once for each seed.
    """
    mine = [ours.trials[number] for number in plain.numbers]
    theirs = [report["accuracy"] for report in plain.reports]
    by_seed = zip(*[[trial.metrics["accuracy"] for trial in trials] for trials in repeats], strict=True)
    seed_sd = float(np.sqrt(np.mean([np.var(values, ddof=1) for values in by_seed])))
    winner = max(range(len(mine)), key=lambda i: mine[i].value or 0.0)
    behind = max(theirs) - theirs[winner]
    rank = stats.spearmanr(
        [trial.value for trial in mine],
        [value_of(report, "accuracy") for report in plain.reports],
    )
    return {
        "numbers": plain.numbers,
        "unfreeze": [trial.config["unfreeze"] for trial in mine],
        "autovision_accuracy": [trial.metrics["accuracy"] for trial in mine],
        "plain_accuracy": theirs,
        "seed_sd": seed_sd,
        "rank_correlation": float(rank.statistic),
        "winner_behind_plain_best": behind,
        # The difference of two runs has the noise of both.
        "same_winner": bool(behind <= 1.96 * math.sqrt(2) * max(seed_sd, 1 / validation)),
    }


def print_agreement(found: dict[str, Any], n: int) -> None:
    common.show(
        f"Accuracy on {n} validation images, with 95 % intervals",
        ("configuration", "unfrozen", "AutoVision", "plain"),
        [
            [str(number), str(depth), _interval(mine, n), _interval(theirs, n)]
            for number, depth, mine, theirs in zip(
                found["numbers"],
                found["unfreeze"],
                found["autovision_accuracy"],
                found["plain_accuracy"],
                strict=True,
            )
        ],
        f"Another seed changes AutoVision's best by {found['seed_sd']:.4f} (one standard deviation). Its winner is "
        f"{found['winner_behind_plain_best']:.4f} behind the plain script's best: "
        f"{'the same' if found['same_winner'] else 'NOT the same'} winner within seed noise. "
        f"Rank correlation {found['rank_correlation']:.2f} over {len(found['numbers'])}.",
    )


def _interval(accuracy: float, n: int) -> str:
    found = wilson(accuracy * n, n)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def figures(
    configs: Sequence[TrialConfig],
    cells: DatasetVersion,
    ours: Ours,
    plain: Plain,
    tuned: Plain,
    slots: int,
) -> dict[str, Any]:
    """The comparison in figures; nothing is measured here."""
    by_depth = plain_trial_s(plain, configs)
    plain_rate, tuned_rate = (
        60 * slots / statistics.mean(of_depth[config.unfreeze] for config in configs)
        for of_depth in (by_depth, plain_trial_s(tuned, configs))
    )
    rate = 60 * len(configs) / ours.wall_s
    rows = depth_rows(configs, ours, by_depth, cells)
    plain_s = [by_depth[config.unfreeze] for config in configs]
    f = float(np.average([row["f"] for row in rows], weights=[row["T"] * row["plain_s"] for row in rows]))
    busy_s = sum(trial.seconds for trial in ours.trials)
    return {
        "trials": len(configs),
        "epochs": configs[0].epochs,
        "images": {split: sum(counts.values()) for split, counts in cells.counts.items()},
        "concurrent": slots,
        "trials_per_minute": {"autovision": rate, "plain": plain_rate, "plain_channels_last": tuned_rate},
        "ratio": rate / plain_rate,
        "ratio_to_channels_last": rate / tuned_rate,
        "f": f,
        "T": len(configs),
        "E": configs[0].epochs,
        "bound": bound(f, len(configs), configs[0].epochs),
        "autovision": {
            "wall_s": ours.wall_s,
            "start_s": ours.started_s,
            "feature_s": sum(trial.feature_s for trial in ours.trials),
            "training_s": sum(trial.seconds - trial.feature_s for trial in ours.trials),
            "idle_s": slots * (ours.wall_s - ours.started_s) - busy_s,
        },
        "plain": {
            "measured_trials": plain.numbers,
            "measured_epochs": len(plain.reports[0]["epochs_s"]),
            "wall_s": plain.wall_s,
            "start_s": plain.start_s,
            "epochs_s": [report["epochs_s"] for report in plain.reports],
            "all_trials_s": sum(plain_s) / slots,
        },
        "depths": rows,
    }


def print_rates(found: dict[str, Any]) -> None:
    mine, theirs, rates = found["autovision"], found["plain"], found["trials_per_minute"]
    n, k = len(theirs["measured_trials"]), theirs["measured_epochs"]
    common.show(
        f"{found['trials']} trials of {found['epochs']} epochs, {found['concurrent']} at a time, "
        f"{found['images']['train']} images to train on",
        ("side", "seconds for all", "trials/min", "AutoVision is faster"),
        [
            [
                "AutoVision, measured",
                f"{mine['wall_s']:.0f}",
                f"{rates['autovision']:.2f}",
                "",
            ],
            [
                "plain Ray Tune + timm, extrapolated",
                f"{theirs['all_trials_s']:.0f}",
                f"{rates['plain']:.3f}",
                f"{found['ratio']:.1f} times",
            ],
            [
                "the same in channels-last",
                f"{60 * found['trials'] / rates['plain_channels_last']:.0f}",
                f"{rates['plain_channels_last']:.3f}",
                f"{found['ratio_to_channels_last']:.1f} times",
            ],
        ],
        f"Plain: n = {n} trials ran {k} of {found['epochs']} epochs each, in {theirs['wall_s']:.0f} s; the other "
        f"epochs and trials are extrapolated, by depth. In channels-last {found['concurrent']} trials ran one epoch.",
        f"f = {found['f']:.2f}, T = {found['T']}, E = {found['E']}: computing once what is frozen bounds the gain to "
        f"{found['bound']:.1f} times; the rest is compiling what is frozen, and workers that are reused.",
    )


def print_depths(found: dict[str, Any]) -> None:
    mine = found["autovision"]
    common.show(
        "By how many stages are unfrozen",
        ("unfrozen", "T", "f", "bound", "AutoVision s (min / median / max)", "of it features", "plain s"),
        [
            [
                str(row["unfreeze"]),
                str(row["T"]),
                f"{row['f']:.3f}",
                f"{row['bound']:.1f}",
                common.spread(row["training_s"], 1),
                f"{sum(row['feature_s']):.0f} in all",
                f"{row['plain_s']:.0f}",
            ]
            for row in found["depths"]
        ],
        f"AutoVision's {found['concurrent']} workers: {mine['start_s']:.0f} s until the first trial began; then "
        f"{mine['feature_s']:.0f} s on features, {mine['training_s']:.0f} s on training, {mine['idle_s']:.0f} s idle "
        "between trials.",
    )


# ------------------------------------------------------------------------------------------------ the run


@dataclass(frozen=True)
class Size:
    """How much of the comparison is run; `images` None: all."""

    points: int = 40
    epochs: int = 8
    images: int | None = None
    plain_trials: int = 4
    plain_epochs: int = 2


QUICK = Size(points=6, epochs=2, images=300, plain_trials=4, plain_epochs=1)


def compare(size: Size, *, with_agreement: bool) -> dict[str, Any]:
    """Both sides, one after the other; prints what was found."""
    space = space_of(size.epochs)
    rng = np.random.default_rng(SEED)
    points = [space.sample(rng) for _ in range(size.points)]
    configs = [space.config(point) for point in points]
    with (
        common.fresh_store() as store,
        tempfile.TemporaryDirectory(prefix="plain-cells-") as scratch,
        runtime.connected(),
    ):
        began = time.time()
        cells = common.import_solar_cells(store, count=size.images)
        import_s = time.time() - began
        folder = write_folders(store, cells, Path(scratch))
        slots = placement(nodes()).concurrent
        ours = run_ours(store, cells, space, points, SEED)
        ranked = sorted(range(size.points), key=lambda i: ours.trials[i].value or 0.0, reverse=True)
        chosen = for_agreement(ranked) if with_agreement else stratified(configs, ranked, size.plain_trials)
        plain = run_plain(configs, chosen, folder, size.epochs if with_agreement else size.plain_epochs)
        tuned = run_plain(configs, chosen[:slots], folder, 1, channels_last=True)
        found = figures(configs, cells, ours, plain, tuned, slots)
        found["autovision"]["import_s"] = import_s
        print_rates(found)
        print_depths(found)
        if with_agreement:
            best = ranked[:3]
            repeats = [[ours.trials[i] for i in best]] + [
                run_ours(store, cells, space, [points[i] for i in best], seed).trials for seed in OTHER_SEEDS
            ]
            found["agreement"] = agreement(ours, plain, repeats, found["images"]["validation"])
            print_agreement(found["agreement"], found["images"]["validation"])
    return found


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--agreement", action="store_true", help="six whole plain trials, to compare winners")
    for name, value in vars(Size()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"default: {value or 'all'}")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in vars(Size()) if getattr(options, name) is not None}
    size = replace(QUICK if options.quick else Size(), **given)
    common.write_json(options.json, "trials", compare(size, with_agreement=options.agreement))


if __name__ == "__main__":
    main()
