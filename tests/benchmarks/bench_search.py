"""The search policy on recorded curves, with a virtual clock: regret, overhead, restoring, and what each part is worth.

    python tests/benchmarks/bench_search.py --json bench-results/
    python tests/benchmarks/bench_search.py --only regret --seeds 40 --jobs 2

Curves, surrogates and seconds are those of `curve_table.py`; with more workers the data set is as many times larger, so
that budgets stay the same. Regret is the test accuracy of the best of many thousand configurations, less that of the
incumbent, both without noise. The incumbent is what each system would give by its own validation: AutoVision its best
rung, Ray Tune its best last report. What finishing takes is left out for all. Every search of one seed has the same
noise in the same configurations; intervals are of the mean over seeds, by bootstrap (95 %).

What Optuna does for a trial grows with their number, so that many workers and long budgets take long to simulate.
`--kept FILE` notes every search that is over: a run that was stopped goes on with the others.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import common
import numpy as np
import rivals
from curve_table import FINAL_TEST, NAMES, CurveLab, CurveTable, Surrogate

from autovision.provenance import code_version
from autovision.records.trials import TrialResult
from autovision.search import requests
from autovision.search.driver import Driver
from autovision.search.schedulers import SCHEDULERS
from autovision.search.select import best_trial
from autovision.search.warm import Start, winners
from autovision.space import Float, Integer
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore, keys
from autovision.store.local import LocalStore
from autovision.testing.simulation import (
    FeatureShelf,
    Policy,
    Rung,
    Seen,
    Simulation,
    Table,
    VirtualClock,
    simulated_driver,
)
from autovision.trial.execution import value_of
from search_spaces.demo import Demo

BUDGETS_S = (60.0, 300.0, 900.0)
WORKERS = (1, 8, 64)
IMAGES_OF_ONE = 3.0
"""times the recorded images, for one worker: about as many as there are solar cells"""
GUESS = {"solar": 0.687, "digits": 0.1}
"""test accuracy of a search without any result: the majority class"""
MANY = 20_000
OURS = "AutoVision"
PARTS_OFF = ("no stored features", "heads one by one", "no promotion", "not aware of costs", "warm")
PLAIN = ("random", "TPE + ASHA")
SCHEDULED = "fine-tuning alone, "
"""then the scheduler: a space in which every trial trains stages for minutes, which is what there is to cut"""


class FineTuning(Demo):
    """No trial is a head alone."""

    unfreeze = Integer(1, 2, default=1)
    backbone_lr_ratio = Float(0.02, 0.5, log=True)


@functools.cache
def surrogate(name: str) -> tuple[CurveTable, Surrogate]:
    table = CurveTable.load(name)
    return table, Surrogate(table)


@functools.cache
def lab_of(name: str, scale: float) -> CurveLab:
    return CurveLab(*surrogate(name), scale=scale)


@functools.cache
def best_known(name: str) -> float:
    """The best of many random configurations, after their last epoch, without noise; searches may find better ones."""
    lab, rng = lab_of(name, 1.0), np.random.default_rng(0)
    drawn = [Demo.config(Demo.sample(rng)) for _ in range(MANY)]
    return float(lab.surrogate.mean(drawn)[:, FINAL_TEST].max())


# -------------------------------------------------------------------------------------------------- one search


class Unstored:
    """AutoVision's trials without stored features: the compiled prefix runs in every epoch."""

    def __init__(self, lab: CurveLab) -> None:
        self._lab, self.images, self.classes = lab, lab.images, lab.classes

    def tables(self, config: TrialConfig) -> Sequence[Table]:
        return ()

    def table_s(self, table: Table) -> float:
        return self._lab.table_s(table)

    def curve(self, config: TrialConfig, seed: int) -> Sequence[Rung]:
        # One view of each image is drawn an epoch; the deepest table of a trial has all that it needs.
        tables = [table for table in self._lab.tables(config) if table.view == "identity"]
        train, validation = (
            max(self._lab.table_s(table) for table in tables if table.split == split)
            for split in ("train", "validation")
        )
        return [
            Rung(r.rung, r.epoch, r.seconds + train * r.epoch + validation * (r.rung + 1), r.metrics)
            for r in self._lab.curve(config, seed)
        ]

    def together_s(self, configs: Sequence[TrialConfig]) -> float:
        """Heads that are trained together read the same batches, through one prefix."""
        longest = max(configs, key=lambda config: config.epochs)
        prefix = self.curve(longest, 0)[-1].seconds - self._lab.curve(longest, 0)[-1].seconds
        return self._lab.together_s(configs) + prefix


@dataclass(frozen=True)
class Search:
    """What to simulate."""

    data: str
    system: str
    workers: int
    budget_s: float
    seed: int

    @property
    def lab(self) -> CurveLab:
        return lab_of(self.data, IMAGES_OF_ONE * self.workers)


@dataclass
class Outcome:
    """How a search did."""

    reached: dict[float, float]
    """seconds -> test accuracy of the incumbent, without noise"""
    trials: int
    busy: float
    """share of the workers' time"""


def searched(search: Search) -> Outcome:
    """Simulate one search."""
    if search.system.startswith(OURS):
        driver, simulation = ours(search)
        reached = {search.budget_s: truth_of(best_trial(driver.ledger), search)}
    else:
        simulation = theirs(search)
        reached = {
            mark: truth_of(best_last([each for each in simulation.seen if each.at <= mark]), search)
            for mark in BUDGETS_S
            if mark <= search.budget_s
        }
    return Outcome(reached, simulation.trials, simulation.busy_s / (search.workers * search.budget_s))


def truth_of(incumbent: TrialResult | Seen | None, search: Search) -> float:
    """Its test accuracy, without noise, after the epoch that it is kept from."""
    match incumbent:
        case None:
            return GUESS[search.data]
        case Seen():
            return search.lab.truth(incumbent.config, incumbent.epoch)
    values = [value_of(point.metrics, "accuracy") for point in incumbent.curve]
    kept = incumbent.curve[values.index(incumbent.value)]
    return search.lab.truth(TrialConfig.model_validate(incumbent.config), kept.epoch)


def ours(search: Search, **settings: Any) -> tuple[Driver, Simulation]:
    variant = search.system.removeprefix(OURS).strip(", ")
    clock = VirtualClock()
    lab: Any = Unstored(search.lab) if variant == "no stored features" else search.lab
    shelf = FeatureShelf(search.lab, clock)
    if variant == "warm":
        settings["starts"] = earlier_winners(search.data, search.workers, search.seed)
    if variant == "heads one by one":
        settings["together"] = False
    if variant == "no promotion":
        settings["scheduler"] = "asha"
    if variant == "not aware of costs":
        settings["cost_aware"] = False
    space = Demo()
    if variant.startswith(SCHEDULED):
        space, settings["scheduler"] = FineTuning(), variant.removeprefix(SCHEDULED)
    # A larger data set takes longer, but its curves are as noisy as those that were recorded.
    settings["images"] = search.lab.table.images["validation"]
    driver = simulated_driver(
        search.lab, space, clock, shelf, budget_s=search.budget_s, seed=search.seed, **settings
    )
    simulation = Simulation(cast(Policy, driver), lab, clock, shelf, workers=search.workers).run()
    driver.close()
    return driver, simulation


def earlier_winners(data: str, workers: int, seed: int) -> list[Start]:
    """What an earlier search of five minutes leaves to the next one, before the space's default."""
    driver, _ = ours(Search(data, OURS, workers, 300.0, seed + 1_000))
    best = [Start(result.parameters, "ledger") for result in winners(driver.ledger)]
    return [*best, Start(Demo.default(), "default")]


def theirs(search: Search) -> Simulation:
    name, _, stored = search.system.partition(", ")
    clock = VirtualClock()
    until = clock.now + search.budget_s
    policy = (rivals.RandomSearch if name == "random" else rivals.TuneSearch)(
        Demo(), clock, until, search.seed
    )
    lab = rivals.SharedLab(search.lab) if stored else rivals.PlainLab(search.lab)
    simulation = Simulation(
        cast(Policy, policy),
        lab,
        clock,
        FeatureShelf(search.lab, clock),
        workers=search.workers,
        objective=lambda metrics, _: metrics["accuracy"],
    )
    if not stored:
        simulation.overhead_s, simulation.setup_s = rivals.FRESH_TRIAL_S, 0.0
    return simulation.run(until)


def best_last(seen: Sequence[Seen]) -> Seen | None:
    """As `ResultGrid.get_best_result` chooses: by each trial's last report."""
    last = {each.trial: each for each in seen}
    return max(last.values(), key=lambda each: each.objective, default=None)


# ------------------------------------------------------------------------------------------------------ regret


def all_searched(searches: Sequence[Search], args: Any) -> dict[Search, Outcome]:
    """Every search once; what `--kept` names holds those that an earlier run of the same code came to."""
    found: dict[Search, Outcome] = {}
    for line in args.kept.read_text().splitlines() if args.kept and args.kept.exists() else ():
        kept = json.loads(line)
        if kept["code"] == code_version():
            reached = {float(mark): value for mark, value in kept["reached"].items()}
            found[Search(**kept["search"])] = Outcome(reached, kept["trials"], kept["busy"])
    left = [search for search in dict.fromkeys(searches) if search not in found]
    with ProcessPoolExecutor(args.jobs) as pool:
        going = {pool.submit(searched, search): search for search in left}
        for count, done in enumerate(as_completed(going), 1):
            outcome = found[going[done]] = done.result()
            if args.kept:
                kept = {"code": code_version(), "search": asdict(going[done]), **asdict(outcome)}
                with args.kept.open("a") as file:
                    file.write(json.dumps(kept) + "\n")
            if count % 20 == 0:
                print(f"{count} of {len(left)} searches", file=sys.stderr, flush=True)
    return found


def interval(values: Sequence[float], rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean, and the ends of its bootstrap interval."""
    array = np.array(values)
    means = rng.choice(array, (2_000, len(array))).mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(array.mean()), float(low), float(high)


def regret(args: Any) -> dict[str, Any]:
    """Against random search and TPE + ASHA, as they come and with AutoVision's feature store."""
    competitors = [*PLAIN, *(f"{name}, stored features" for name in PLAIN)]
    searches = [
        Search(data, system, workers, budget, seed)
        for data in NAMES
        for workers in args.workers
        for seed in range(args.seeds)
        for system, budgets in [(OURS, args.budgets), *((each, args.budgets[-1:]) for each in competitors)]
        for budget in budgets
    ]
    found = all_searched(searches, args)
    figures: dict[str, Any] = {}
    for data in NAMES:
        rows = []
        for workers in args.workers:
            for system in (OURS, *competitors):
                row = [str(workers), system]
                for budget in args.budgets:
                    ran = budget if system == OURS else args.budgets[-1]
                    own = regrets(found, Search(data, system, workers, ran, 0), budget, args.seeds)
                    base = regrets(found, Search(data, OURS, workers, budget, 0), budget, args.seeds)
                    figures[f"{data}/{workers}/{system}/{budget:g}"], cell = compared(own, base)
                    row.append(cell)
                last = Search(data, system, workers, args.budgets[-1], 0)
                trials = [found[replace(last, seed=seed)].trials for seed in range(args.seeds)]
                rows.append([*row, f"{statistics.median(trials):.0f}"])
        common.show(
            f"{data}: regret in points of test accuracy, and how much more it is than AutoVision's",
            ["workers", "system", *(f"{budget:g} s" for budget in args.budgets), "trials"],
            rows,
            f"best: {best_of(found, data):.4f}; {args.seeds} seeds; mean, then the paired difference [95 % interval]",
        )
    return figures


def regrets(found: Mapping[Search, Outcome], of: Search, at: float, seeds: int) -> list[float]:
    """Of every seed."""
    best = best_of(found, of.data)
    return [best - found[replace(of, seed=seed)].reached[at] for seed in range(seeds)]


def best_of(found: Mapping[Search, Outcome], data: str) -> float:
    """The best that anything has found, be it by chance."""
    reached = (outcome.reached.values() for search, outcome in found.items() if search.data == data)
    return max(best_known(data), *(value for values in reached for value in values))


def compared(own: Sequence[float], base: Sequence[float]) -> tuple[dict[str, Any], str]:
    """Figures of a system against all of AutoVision, and how a table shows them, in points."""
    rng = np.random.default_rng(0)
    mean, more = interval(own, rng), interval([a - b for a, b in zip(own, base, strict=True)], rng)
    cell = f"{100 * mean[0]:.2f}"
    if list(own) != list(base):
        cell += f"  {100 * more[0]:+.2f} [{100 * more[1]:+.2f}, {100 * more[2]:+.2f}]"
    return {"regret": mean, "more_than_ours": more, "of_seeds": list(own)}, cell


# ---------------------------------------------------------------------------------------------------- ablation


def ablation(args: Any) -> dict[str, Any]:
    """AutoVision without one of its parts."""
    variants = [OURS, *(f"{OURS}, {each}" for each in args.parts)]
    workers = args.workers[0]
    searches = [
        Search(data, system, workers, budget, seed)
        for data in NAMES
        for system in variants
        for budget in args.budgets
        for seed in range(args.seeds)
    ]
    found = all_searched(searches, args)
    figures: dict[str, Any] = {}
    rows = []
    for data in NAMES:
        for system in variants:
            row = [data, system]
            for budget in args.budgets:
                own, base = (
                    regrets(found, Search(data, each, workers, budget, 0), budget, args.seeds)
                    for each in (system, OURS)
                )
                figures[f"{data}/{system}/{budget:g}"], cell = compared(own, base)
                row.append(cell)
            rows.append(row)
    common.show(
        f"What the parts are worth: regret in points with {workers} workers, and the paired difference to all parts on",
        ["data", "system", *(f"{budget:g} s" for budget in args.budgets)],
        rows,
        "`warm` begins from an earlier search of 300 s on the same data with another seed; the others begin cold.",
    )
    return figures


# -------------------------------------------------------------------------------------------------- schedulers


def schedulers(args: Any) -> dict[str, Any]:
    """What pausing and promoting is worth where all trials are long ones, against what only stops, and nothing."""
    default, *others = SCHEDULERS
    searches = [
        Search(data, f"{OURS}, {SCHEDULED}{name}", workers, budget, seed)
        for data in NAMES
        for name in SCHEDULERS
        for workers in args.workers
        for budget in args.budgets
        for seed in range(args.seeds)
    ]
    found = all_searched(searches, args)
    figures: dict[str, Any] = {}
    rows = []
    for data in NAMES:
        for workers in args.workers:
            for name in (default, *others):
                row = [data, str(workers), name]
                for budget in args.budgets:
                    own, base = (
                        regrets(
                            found,
                            Search(data, f"{OURS}, {SCHEDULED}{each}", workers, budget, 0),
                            budget,
                            args.seeds,
                        )
                        for each in (name, default)
                    )
                    figures[f"{data}/{workers}/{name}/{budget:g}"], cell = compared(own, base)
                    row.append(cell)
                last = Search(data, f"{OURS}, {SCHEDULED}{name}", workers, args.budgets[-1], 0)
                trials = [found[replace(last, seed=seed)].trials for seed in range(args.seeds)]
                rows.append([*row, f"{statistics.median(trials):.0f}"])
    common.show(
        f"Schedulers where every trial is fine-tuned: regret in points, and the paired difference to {default}",
        ["data", "workers", "scheduler", *(f"{budget:g} s" for budget in args.budgets), "trials"],
        rows,
        f"{args.seeds} seeds; mean, then the paired difference [95 % interval]",
    )
    return figures


# ---------------------------------------------------------------------------------------------------- overhead


@dataclass
class Timed:
    """A policy whose decisions are timed."""

    policy: Policy
    seconds: float = 0.0
    at: list[tuple[int, float]] = field(default_factory=list)
    """trials that were begun, and seconds so far, whenever a worker is given work"""

    def _timed(self, act: Callable[..., Any], *given: Any) -> Any:
        began = time.perf_counter()
        try:
            return act(*given)
        finally:
            self.seconds += time.perf_counter() - began

    def next(self) -> Any:
        task = self._timed(self.policy.next)
        self.at.append((cast(Driver, self.policy).begun, self.seconds))
        return task

    def goes_on(self, trial: str, result: dict[str, Any]) -> bool:
        return bool(self._timed(self.policy.goes_on, trial, result))

    def ended(self, trial: str) -> None:
        self._timed(self.policy.ended, trial)


def long_search(trials: int, store: MemoryStore) -> tuple[Driver, Timed, float]:
    """So many trials on 64 workers; the driver, its seconds, and those of the whole simulation."""
    lab, clock = lab_of(NAMES[0], IMAGES_OF_ONE * 64), VirtualClock()
    shelf = FeatureShelf(lab, clock)
    began = time.perf_counter()
    driver = simulated_driver(lab, Demo(), clock, shelf, budget_s=1e7, max_trials=trials, store=store)
    timed = Timed(cast(Policy, driver))
    Simulation(cast(Policy, timed), lab, clock, shelf, workers=64).run()
    timed._timed(driver.close)
    return driver, timed, time.perf_counter() - began


def overhead(args: Any) -> dict[str, Any]:
    """What deciding takes, and building a driver from a ledger in a folder."""
    figures: dict[str, Any] = {}
    rows = []
    lab_of(NAMES[0], IMAGES_OF_ONE * 64).tables(TrialConfig())
    long_search(10, MemoryStore())  # counts every backbone's arithmetic once
    for trials in args.trials:
        store = MemoryStore()
        driver, timed, whole_s = long_search(trials, store)
        count = len(driver.ledger)
        mean = 1e3 * timed.seconds / count
        (before, began), (after, ended) = (
            next(at for at in timed.at if at[0] >= share * timed.at[-1][0]) for share in (0.9, 1.0)
        )
        last = 1e3 * (ended - began) / max(1, after - before)
        read_s, built_s = restored(driver, store)
        figures[str(trials)] = {
            "trials": count,
            "ms": mean,
            "ms_of_last_tenth": last,
            "simulation_s": whole_s,
            "read_s": read_s,
            "built_s": built_s,
        }
        rows.append(
            [
                f"{count:,}",
                f"{mean:.1f}",
                f"{last:.1f}",
                f"{whole_s:.1f}",
                f"{read_s:.2f}",
                f"{built_s:.2f}",
            ]
        )
    common.show(
        "Scheduling overhead: simulated trials on 64 workers, and restoring the search from a folder",
        [
            "trials",
            "ms a trial",
            "ms, last tenth",
            "simulation, s",
            "reading the ledger, s",
            "building the driver, s",
        ],
        rows,
    )
    return figures


def restored(driver: Driver, store: MemoryStore) -> tuple[float, float]:
    """Seconds to read the ledger from a folder, and to build a driver that goes on."""
    with tempfile.TemporaryDirectory(prefix="autovision-bench-") as name:
        folder = LocalStore(Path(name))
        for key in store.list(keys.trials(driver.request.id)):
            folder.put_new(key, store.get(key).data)
        began = time.perf_counter()
        ledger = requests.trials(folder, driver.request.id)
        read_s, began = time.perf_counter() - began, time.perf_counter()
        lab, clock = lab_of(NAMES[0], IMAGES_OF_ONE * 64), VirtualClock()
        again = simulated_driver(
            lab, Demo(), clock, FeatureShelf(lab, clock), budget_s=1e7, store=folder, ledger=ledger
        )
        built_s = time.perf_counter() - began
        assert again.begun == len(driver.ledger)
        return read_s, built_s


PARTS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "regret": regret,
    "ablation": ablation,
    "schedulers": schedulers,
    "overhead": overhead,
}


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS_S), choices=BUDGETS_S)
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS))
    parser.add_argument(
        "--parts", nargs="+", default=list(PARTS_OFF), choices=PARTS_OFF, help="of the ablation"
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--kept", type=Path, help="a file of searches that are over, to go on from")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="simulations at once")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.budgets, args.workers, args.trials = 2, list(BUDGETS_S[:1]), [2], [20]
    figures = {part: PARTS[part](args) for part in args.only}
    common.write_json(args.json, "bench_search", figures)


if __name__ == "__main__":
    main()
