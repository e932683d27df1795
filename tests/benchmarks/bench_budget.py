"""Several trials under a feature budget of 256 MiB, against the same trials without a limit.

    python tests/benchmarks/bench_budget.py --json bench-results/

Two processes share a store, as the workers of a search do, and each trains three configurations, whose frozen features
take some 900 MB together. Meanwhile it is watched, twice a second, how many bytes of features the store holds and what
memory the processes take: resident, proportional (shared pages counted once) and private. The budget promises that
features exceed it by no more than the shard that each process is writing; what does not fit is computed in every
epoch. About 10 minutes on two cores.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from common import fresh_store, import_solar_cells, options, show, write_json

from autovision.features.budget import (
    ENVIRONMENT_VARIABLE,
    configured_bytes,
    parse_bytes,
    readable,
    used_bytes,
)
from autovision.space.config import TrialConfig
from autovision.store.local import LocalStore
from autovision.store.open import open_store
from autovision.trial.trial import Trial
from autovision.trial.workbench import Workbench

BUDGET = "256 MiB"
BASE = TrialConfig(epochs=2, batch_size=32, resolution=224)
PLANS = (
    (
        BASE.with_(unfreeze=4, augmentation="flip"),
        BASE.with_(unfreeze=3, augmentation="dihedral"),
        BASE.with_(unfreeze=2, augmentation="flip"),
    ),
    (
        BASE.with_(unfreeze=2, augmentation="dihedral"),
        BASE.with_(unfreeze=4, augmentation="trivialaugment", views=8),
        BASE.with_(unfreeze=0, augmentation="dihedral", epochs=10),
    ),
)
EVERY_S = 0.5


@dataclass
class Watched:
    """What was seen while the processes worked: a sample every half second.

    Attributes:
        samples: (seconds since the start, bytes of features, and of the processes together: resident,
            proportional and private bytes).
        processes: most resident, proportional and private bytes that any one process took.
    """

    samples: list[tuple[float, ...]] = field(default_factory=list)
    processes: list[int] = field(default_factory=lambda: [0, 0, 0])

    def look(self, began: float, store: LocalStore) -> None:
        total = [0, 0, 0]
        for process in psutil.Process().children():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                memory = process.memory_full_info()
                for i, value in enumerate((memory.rss, memory.pss, memory.uss)):
                    total[i] += value
                    self.processes[i] = max(self.processes[i], value)
        self.samples.append((time.monotonic() - began, used_bytes(store), *total))

    def peak(self, column: int) -> int:
        return max(int(sample[column]) for sample in self.samples)


def work(uri: str, dataset: str, plan: Sequence[TrialConfig], limit: str) -> list[dict[str, Any]]:
    """One process: trials one after the other, on one thread."""
    os.environ[ENVIRONMENT_VARIABLE] = limit
    torch.set_num_threads(1)
    bench = Workbench(open_store(uri), threads=1, budget_bytes=configured_bytes())
    return [tried(bench, dataset, config) for config in plan]


def tried(bench: Workbench, dataset: str, config: TrialConfig) -> dict[str, Any]:
    began = time.monotonic()
    trial = Trial(bench, dataset, config, seed=0, deadline=math.inf)
    last = list(trial.run())[-1]
    return {
        "config": config.model_dump(mode="json"),
        "seconds": time.monotonic() - began,
        "feature_s": trial.feature_s,
        "epochs": last.epoch,
        "accuracy": last.metrics["accuracy"],
        "notes": list(trial.notes),
    }


def measure(limit: str, plans: Sequence[Sequence[TrialConfig]], count: int) -> dict[str, Any]:
    """Run all plans at once under a limit; under none if it is empty. Raises what stopped a trial, if anything did."""
    watched = Watched()
    with (
        fresh_store() as store,
        ProcessPoolExecutor(len(plans), mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        dataset = import_solar_cells(store, count=count).id
        began = time.monotonic()
        running = [pool.submit(work, store.uri, dataset, plan, limit) for plan in plans]
        while not all(future.done() for future in running):
            watched.look(began, store)
            time.sleep(EVERY_S)
        seconds = time.monotonic() - began
        trials = [trial for future in running for trial in future.result()]
    return {
        "limit": limit,
        "seconds": seconds,
        "trials": trials,
        "planned": sum(map(len, plans)),
        "peak_feature_bytes": watched.peak(1),
        "peak_together": dict(zip(("rss", "pss", "uss"), map(watched.peak, (2, 3, 4)), strict=True)),
        "peak_of_one": dict(zip(("rss", "pss", "uss"), watched.processes, strict=True)),
        "samples": watched.samples,
    }


def report(runs: Sequence[dict[str, Any]], count: int) -> None:
    show(
        f"{runs[0]['planned']} trials in two processes on {count} solar cells, Lite0 at {BASE.resolution} px",
        (
            "budget",
            "finished",
            "s",
            "features at most",
            "resident",
            "proportional",
            "private",
            "mean accuracy",
        ),
        [
            [
                run["limit"] or "unlimited",
                f"{len(run['trials'])} of {run['planned']}",
                f"{run['seconds']:.0f}",
                readable(run["peak_feature_bytes"]),
                *(readable(run["peak_together"][kind]) for kind in ("rss", "pss", "uss")),
                f"{sum(trial['accuracy'] for trial in run['trials']) / max(1, len(run['trials'])):.4f}",
            ]
            for run in runs
        ],
        f"{runs[0]['limit']} are {readable(parse_bytes(runs[0]['limit']))}. Memory is the peak of both together.",
        *sorted(
            {f"{run['limit']}: {note}" for run in runs for trial in run["trials"] for note in trial["notes"]}
        ),
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=1200)
    chosen = parser.parse_args()
    plans: Sequence[Sequence[TrialConfig]] = PLANS
    count, limit = chosen.images, BUDGET
    if chosen.quick:
        count, limit = 100, "2 MB"
        plans = [[config.with_(resolution=64, epochs=1) for config in plan] for plan in PLANS]
    runs = [measure(one, plans, count) for one in (limit, "")]
    report(runs, count)
    write_json(chosen.json, "budget", {"quick": chosen.quick, "images": count, "runs": runs})


if __name__ == "__main__":
    main()
