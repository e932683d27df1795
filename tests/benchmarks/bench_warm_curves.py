"""A search again after 10 % new data, on recorded curves with a virtual clock: how soon it is as good as a cold one.

    python tests/benchmarks/bench_warm_curves.py --json bench-results/
    python tests/benchmarks/bench_warm_curves.py --seeds 40 --budgets 300 --workers 1

`bench_warm.py` measures the same on real images, for few seeds. Here are many, and the incumbent is judged by its test
accuracy without noise: nobody wins by luck. For each seed there are three searches with the same budget: an earlier one
with another seed, of which nothing but its ledger and the features of nine tenths of the images are left; a warm one,
which begins from these; and a cold one. The noise in the curves of the earlier one is its own, as if all images were
new: where validation keeps its images, as it does, a warm search has it easier. Intervals are of the mean over seeds,
by bootstrap (95 %).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, cast

import common
import numpy as np
from bench_search import BUDGETS_S, GUESS, OURS, WORKERS, Search, interval
from curve_table import NAMES

from autovision.records.trials import TrialResult
from autovision.search.warm import Start, winners
from autovision.space.config import TrialConfig
from autovision.testing.simulation import (
    FeatureShelf,
    Policy,
    Simulation,
    Table,
    VirtualClock,
    simulated_driver,
)
from autovision.trial.execution import value_of
from search_spaces.demo import Demo

KNOWN = 0.9
"""share of the images that the earlier search has seen"""
MARKS = (0.1, 0.2, 0.5, 1.0)
"""shares of the budget at which searches are compared"""
EARLIER = 1_000
"""what the earlier search adds to the seed"""


@dataclass(frozen=True)
class Incumbents:
    """Whatever was the best by validation, one after the other: (seconds, its test accuracy without noise)."""

    steps: tuple[tuple[float, float], ...]
    trials: int

    def at(self, seconds: float, guess: float) -> float:
        return next((truth for second, truth in reversed(self.steps) if second <= seconds), guess)

    def reached_s(self, truth: float) -> float:
        """Infinite if it never came to that."""
        return next((second for second, own in self.steps if own >= truth - 1e-9), float("inf"))


def searched(
    search: Search, starts: Iterable[Start] = (), stored: Iterable[Table] = ()
) -> tuple[list[TrialResult], frozenset[Table]]:
    """The ledger of a search, and the features that it has left."""
    clock = VirtualClock()
    shelf = FeatureShelf(search.lab, clock)
    shelf.stock(stored, KNOWN)
    driver = simulated_driver(
        search.lab,
        Demo(),
        clock,
        shelf,
        budget_s=search.budget_s,
        seed=search.seed,
        starts=[*starts, Start(Demo.default(), "default")],
        images=search.lab.table.images["validation"],
    )
    Simulation(cast(Policy, driver), search.lab, clock, shelf, workers=search.workers).run()
    driver.close()
    return driver.ledger, shelf.complete_tables


def incumbents(ledger: Sequence[TrialResult], search: Search) -> Incumbents:
    """At every rung of every trial that left weights."""
    reports = sorted(
        (
            (point.search_s, -value_of(point.metrics, "accuracy"), result.number, point.epoch, result.config)
            for result in ledger
            if result.weights_key is not None
            for point in result.curve
        ),
        key=lambda report: report[:4],
    )
    best: tuple[float, int] | None = None
    steps = []
    for second, worse, number, epoch, config in reports:
        if best is None or (worse, number) < best:
            best = worse, number
            steps.append((second, search.lab.truth(TrialConfig.model_validate(config), epoch)))
    return Incumbents(tuple(steps), len(ledger))


def pair(search: Search) -> tuple[Incumbents, Incumbents]:
    """A cold search, and a warm one."""
    cold, _ = searched(search)
    before, stored = searched(replace(search, seed=search.seed + EARLIER))
    warm, _ = searched(search, [Start(result.parameters, "ledger") for result in winners(before)], stored)
    return incumbents(cold, search), incumbents(warm, search)


def compared(
    search: Search, pairs: Sequence[tuple[Incumbents, Incumbents]]
) -> tuple[dict[str, Any], list[str]]:
    """Figures of all seeds, and the line of the table that shows them."""
    guess, rng = GUESS[search.data], np.random.default_rng(0)
    ends = [cold.at(search.budget_s, guess) for cold, _ in pairs]
    figures: dict[str, Any] = {
        "cold_end": float(np.mean(ends)),
        "trials": [median(each.trials for each in side) for side in zip(*pairs, strict=True)],
    }
    cells = []
    for mark in MARKS:
        ahead = [
            warm.at(mark * search.budget_s, guess) - end for (_, warm), end in zip(pairs, ends, strict=True)
        ]
        figures[f"ahead_at_{mark:g}"] = mean, low, high = interval(ahead, rng)
        cells.append(f"{100 * mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]")
    seconds = [warm.reached_s(end) for (_, warm), end in zip(pairs, ends, strict=True)]
    firsts = [cold.reached_s(end) for (cold, _), end in zip(pairs, ends, strict=True)]
    figures["share_of_time"] = median(second / search.budget_s for second in seconds)
    figures["share_of_first"] = median(a / b for a, b in zip(seconds, firsts, strict=True))
    figures["never"] = sum(np.isinf(seconds).tolist())
    cells += [
        f"{figures['share_of_time']:.2f}",
        f"{figures['share_of_first']:.2f}",
        f"{figures['never']} of {len(pairs)}",
        " / ".join(f"{trials:.0f}" for trials in figures["trials"]),
    ]
    head = [search.data, str(search.workers), f"{search.budget_s:g}", f"{100 * figures['cold_end']:.2f}"]
    return figures, head + cells


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budgets", type=float, nargs="+", default=[300.0], choices=BUDGETS_S)
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS[:2]))
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="simulations at once")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.budgets, args.workers = 2, list(BUDGETS_S[:1]), [2]
    searches = [
        Search(data, OURS, workers, budget, seed)
        for data in NAMES
        for workers in args.workers
        for budget in args.budgets
        for seed in range(args.seeds)
    ]
    with ProcessPoolExecutor(args.jobs) as pool:
        found = dict(zip(searches, pool.map(pair, searches), strict=True))
    figures, rows = {}, []
    for first in (search for search in searches if search.seed == 0):
        pairs = [found[replace(first, seed=seed)] for seed in range(args.seeds)]
        figures[f"{first.data}/{first.workers}/{first.budget_s:g}"], row = compared(first, pairs)
        rows.append(row)
    common.show(
        "A search again after 10 % new data: test accuracy of the incumbent, in points ahead of the cold search's end",
        [
            "data",
            "workers",
            "budget, s",
            "cold end",
            *(f"warm at {mark:g}" for mark in MARKS),
            "share of time",
            "of first time",
            "never",
            "trials",
        ],
        rows,
        f"{args.seeds} seeds; mean [95 % interval]; shares: until warm was as good, of the cold search's budget, and "
        "of its seconds until it was first as good as in the end (medians)",
    )
    common.write_json(args.json, "bench_warm_curves", figures)


if __name__ == "__main__":
    main()
