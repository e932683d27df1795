"""What a proposal costs, and whether it is a good one: each sampler, as the history grows.

    python tests/benchmarks/bench_sampler.py --json bench-results/

First: milliseconds of processor time to ask for a point of the space `standard` and to tell how it ended, one by one
and by the hundred, at 100, 1,000 and 10,000 trials; and seconds to rebuild the sampler from a ledger of so many. A
Gaussian process, and Optuna's own estimator, are asked a few times at each size.

Then: simple regret on three made-up objectives with conditional parameters, mean over seeds with its 95 % interval
(Student's t): the estimator with a bounded history, with all of it, Optuna's multivariate one with groups, and chance.
Some 20 minutes on two cores.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import optuna
from common import options, show, write_json
from scipy.stats import t as student

from autovision.records.trials import TrialResult, TrialState
from autovision.search.sampling.coordinates import Coordinates
from autovision.search.sampling.sampler import Sampler
from autovision.search.sampling.samplers import SAMPLERS
from autovision.search.sampling.strategies import Tpe
from autovision.space import Choice, Float, Integer, Space
from autovision.space.config import TrialConfig
from autovision.space.load import load_space

SIZES = (100, 1_000, 10_000)
SLOW = ("gp", "bench_sampler:optuna_tpe")
BATCH = 100
ALL = 10**9


def optuna_tpe(seed: int) -> optuna.samplers.BaseSampler:
    """The estimator as Optuna has it, with what conditional spaces need."""
    return optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed, n_startup_trials=8)


# ------------------------------------------------------------------------------------------------- cost


def cost(sampler: str, sizes: tuple[int, ...]) -> list[list[Any]]:
    """Rows: sampler, trials, ms one by one, ms each by the hundred, seconds to rebuild."""
    space, rows = load_space("standard"), []
    ledger = ledger_of(space, max(sizes))
    for size in sizes:
        began = time.process_time()
        made = Sampler(space, 0, sampler)
        made.replay((result, steps_of(result)) for result in ledger[:size])
        rebuilt_s = time.process_time() - began
        n = 3 if sampler in SLOW else 50
        began = time.process_time()
        for i in range(n):
            proposal = made.ask()
            made.tell(proposal.number, TrialState.COMPLETE, [(0, 0.5 + 0.001 * i)])
        single_ms = 1e3 * (time.process_time() - began) / n
        n = 3 if sampler in SLOW else BATCH
        began = time.process_time()
        for proposal in [made.ask() for _ in range(n)]:
            made.tell(proposal.number, TrialState.COMPLETE, [(0, 0.5)])
        batch_ms = 1e3 * (time.process_time() - began) / n
        rows.append([sampler.split(":")[-1], size, single_ms, batch_ms, rebuilt_s])
    return rows


def ledger_of(space: Space, n: int) -> list[TrialResult]:
    """Trials of random points, a third of them pruned and a few failed."""
    rng, at = np.random.default_rng(0), datetime(2026, 1, 1, tzinfo=UTC)
    states = (TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED)
    return [
        TrialResult(
            search="s",
            trial=f"{i}",
            number=i,
            state=TrialState.FAILED if i % 20 == 0 else states[i % 3],
            config={},
            parameters=space.sample(rng),
            origin="sampled",
            created_at=at + timedelta(seconds=i),
            value=float(rng.random()),
        )
        for i in range(n)
    ]


def steps_of(result: TrialResult) -> list[tuple[int, float]]:
    return [] if result.state is TrialState.FAILED or result.value is None else [(0, result.value)]


# ------------------------------------------------------------------------------------------------ regret


class Recipe(Space):
    """Numbers, and two that exist for some depths only."""

    backbone = Choice("resnet18", "resnet34", "resnet50")
    unfreeze = Integer(0, 2)
    backbone_lr_ratio = Float(0.01, 1.0, log=True, when={"unfreeze": (1, 2)})
    layer_decay = Float(0.4, 1.0, when={"unfreeze": 2})
    optimizer = Choice("adamw", "sgd")
    lr = Float(1e-5, 1e-1, log=True)
    weight_decay = Float(1e-6, 1e-1, log=True)
    dropout = Float(0.0, 0.8)
    label_smoothing = Float(0.0, 0.4)


def _bowl(value: float, best: float, width: float) -> float:
    return ((value - best) / width) ** 2


def smooth(c: TrialConfig) -> float:
    """The best rate depends on the optimiser; deeper is better, if its own rates are right."""
    loss = _bowl(math.log10(c.lr), -3.0 if c.optimizer == "adamw" else -1.5, 2.0)
    loss += 0.3 * _bowl(c.dropout, 0.3, 0.5) + 0.2 * _bowl(math.log10(c.weight_decay), -3, 3)
    loss += 0.3 * _bowl(c.label_smoothing, 0.1, 0.3) + 0.2 * (c.backbone != "resnet50")
    if c.unfreeze:
        loss += _bowl(math.log10(c.backbone_lr_ratio), -1, 1) - 0.2
    if c.unfreeze == 2:
        loss += 0.5 * _bowl(c.layer_decay, 0.7, 0.3) - 0.2
    return -loss


def deceptive(c: TrialConfig) -> float:
    """The shallow branch is better but for a narrow place in the deepest one."""
    loss = 0.3 * _bowl(math.log10(c.lr), -2, 2) + 0.2 * _bowl(c.dropout, 0.5, 0.5) + 0.2 * (c.unfreeze > 0)
    if c.unfreeze == 2:
        inside = _bowl(math.log10(c.backbone_lr_ratio), -0.5, 0.25) + _bowl(c.layer_decay, 0.9, 0.1)
        loss -= 0.6 * math.exp(-inside)
    return -loss


def rugged(c: TrialConfig) -> float:
    """Many local optima, and one backbone for each optimiser."""
    x = np.array([(math.log10(c.lr) + 5) / 4, c.dropout / 0.8, c.label_smoothing / 0.4])
    loss = float(np.sum((x - 0.62) ** 2 + 0.05 * (1 - np.cos(6 * np.pi * (x - 0.62)))))
    pairs = {"adamw": "resnet34", "sgd": "resnet50"}
    return -loss - 0.3 * (c.backbone != pairs[c.optimizer]) - 0.1 * (c.optimizer == "adamw")


OBJECTIVES: Mapping[str, tuple[Callable[[TrialConfig], float], float]] = {
    "smooth": (smooth, 0.4),
    "deceptive": (deceptive, 0.4),
    "rugged": (rugged, 0.0),
}
"""each with its highest value"""
WAYS = ("tpe", "tpe, all trials", "optuna_tpe", "random")
AT = (50, 150, 600)


def regret(way: str, objective: str, seed: int, most: int) -> list[float]:
    """How far the best is from the highest value, after `AT` trials, four of them pending at any time."""
    value_of, highest = OBJECTIVES[objective]
    space = Recipe()
    made = Sampler(space, seed, "bench_sampler:optuna_tpe" if way == "optuna_tpe" else way.split(",")[0])
    if way == "tpe, all trials":
        made._strategy = Tpe(Coordinates(space), most=ALL)
    rng, best, found, pending = np.random.default_rng(seed), -math.inf, [], [made.ask() for _ in range(3)]
    for i in range(most):
        pending.append(made.ask())
        proposal = pending.pop(int(rng.integers(len(pending))))
        value = value_of(space.config(proposal.point))
        made.tell(proposal.number, TrialState.COMPLETE, [(0, value + 0.02 * float(rng.standard_normal()))])
        best = max(best, value)
        if i + 1 in AT:
            found.append(highest - best)
    return found


def interval(values: list[float]) -> str:
    spread = statistics.stdev(values) / math.sqrt(len(values)) * float(student.ppf(0.975, len(values) - 1))
    return f"{statistics.mean(values):.3f} ± {spread:.3f}"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", choices=("cost", "regret"))
    arguments = parser.parse_args()
    seeds, sizes, most = (2, (20,), 50) if arguments.quick else (arguments.seeds, SIZES, AT[-1])
    figures: dict[str, Any] = {}
    if arguments.only != "regret":
        names = [name for name in SAMPLERS if name != "gp"] + list(SLOW)
        rows = [row for name in names for row in cost(name, sizes)]
        shown = [[name, f"{size:,}", f"{a:.2f}", f"{b:.2f}", f"{c:.2f}"] for name, size, a, b, c in rows]
        show("Processor time", ["sampler", "trials", "ms ask + tell", "ms in a batch", "s to rebuild"], shown)
        figures["cost"] = rows
    if arguments.only != "cost":
        # Optuna's walks all trials for each proposal: no further than 150.
        found = {
            (name, way): [
                regret(way, name, seed, min(most, AT[1]) if way == "optuna_tpe" else most)
                for seed in range(seeds)
            ]
            for name in OBJECTIVES
            for way in WAYS
        }
        rows = [
            [name, way, *(interval(list(column)) for column in zip(*runs, strict=True))]
            for (name, way), runs in found.items()
        ]
        reached = [f"after {n}" for n in AT if n <= most]
        shown = [row + [""] * (2 + len(reached) - len(row)) for row in rows]
        show(f"Regret, {seeds} seeds", ["objective", "sampler", *reached], shown)
        figures["regret"] = [[name, way, runs] for (name, way), runs in found.items()]
    write_json(arguments.json, "sampler", figures)


if __name__ == "__main__":
    main()
