"""A search again after 10 % new images: how soon it is as good as a search that begins cold.

    python tests/benchmarks/bench_warm.py --json bench-results/
    python tests/benchmarks/bench_warm.py --json bench-results/ --seeds 0 1 2 --budget-s 120

For each seed a model is searched for on nine tenths of the solar cells; then the last tenth is imported. On the new
version two searches run, one after the other, with the same budget and space: a warm one in that store, which knows the
model, the ledger, the features of the old images and the speeds of this kind of node; and a cold one in a store of its
own with the same images in the same splits and nothing else. Both are judged on the same images, in two ways:

    on test         by what the best trial so far says of images that nobody chose by: how good it is
    on validation   by the best value so far, which rises with the number of trials alone, as some are lucky

The targets are what the cold one comes to in the end, and its time is its budget, or until it first came to that.
Seconds are wall seconds since the search was begun, its own processes included, as the search tells them; the machine's
other work is in them. About 7 minutes a seed on two cores.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from common import fresh_store, machine, options, show, solar_cells, some, write_json
from safetensors.torch import load as load_tensors

from autovision import runtime
from autovision.dataset.importer import extend, import_images
from autovision.records.datasets import DatasetVersion, Split
from autovision.records.searches import SearchState
from autovision.search import requests
from autovision.search.run import run_search
from autovision.search.select import best_trial
from autovision.space import load_space
from autovision.space.config import TrialConfig
from autovision.store.local import LocalStore
from autovision.trial.tasting import Tasting
from autovision.trial.workbench import Workbench

NAME, NEW = "solar", 10
"""every tenth cell comes later"""
SHARE = 0.2
"""of the budget, after which a warm search is looked at"""


@dataclass(frozen=True)
class Best:
    """The best trial of a search from some second on: its accuracy on validation, and on test."""

    second: float
    validation: float
    test: float


def imported(store: LocalStore, seed: int, count: int | None) -> tuple[DatasetVersion, list[Any]]:
    """The first version, and the cells that come later."""
    cells = some(solar_cells(), count)
    later = cells[NEW - 1 :: NEW]
    first = [cell for number, cell in enumerate(cells) if number % NEW != NEW - 1]
    return import_images(store, NAME, first, seed=seed, stratify_by="cell_type"), later


def search(
    store: LocalStore, version: DatasetVersion, space: str, budget_s: float, seed: int, **more: Any
) -> SearchState:
    """A search to its end."""
    request = requests.make_request(
        store, version.id, load_space(space), budget_s=budget_s, seed=seed, **more
    )
    requests.submit(store, request)
    return run_search(store, request.id)


def bests(store: LocalStore, version: DatasetVersion, search: str) -> list[Best]:
    """Whatever was the best trial of a search, one after the other."""
    bench = Workbench(store, machine()["cores"])
    test = bench.splits(version.id).test
    ended = sorted(
        (trial for trial in requests.trials(store, search) if trial.curve and trial.weights_key),
        key=lambda trial: trial.curve[-1].search_s,
    )
    found: list[Best] = []
    best = None
    for trial in ended:
        before, best = best, best_trial([trial] if best is None else [best, trial])
        if best is before or best is None or best.weights_key is None:
            continue
        logits = Tasting(bench, test, TrialConfig.model_validate(best.config)).logits(
            load_tensors(store.get(best.weights_key).data)
        )
        right = float(np.mean(logits.argmax(1) == test.truth))
        found.append(Best(trial.curve[-1].search_s, best.metrics["accuracy"], right))
    return found


def reached(rises: Sequence[Best], target: float, of: str) -> float | None:
    """Seconds until a value was reached; None: it never was."""
    return next((best.second for best in rises if getattr(best, of) >= target - 1e-9), None)


def after(rises: Sequence[Best], seconds: float) -> Best | None:
    """The best at that second; None: there was none yet."""
    return next((best for best in reversed(rises) if best.second <= seconds), None)


def compare(seed: int, space: str, budget_s: float, count: int | None) -> dict[str, Any]:
    """Both searches of one seed."""
    with fresh_store() as store:
        version, later = imported(store, seed, count)
        before = search(store, version, space, budget_s, seed)
        second = extend(store, version, later, seed=seed)
        warm = search(store, second, space, budget_s, seed, parent_model=before.model)
        warm_bests = bests(store, second, warm.search)
    with fresh_store() as store:
        version, later = imported(store, seed, count)
        same = extend(store, version, later, seed=seed)
        assert same.digest == second.digest
        cold = search(store, same, space, budget_s, seed, warm_start=False)
        cold_bests = bests(store, same, cold.search)
    found: dict[str, Any] = {
        "seed": seed,
        "test_images": sum(second.counts[Split.TEST].values()),
        "validation_images": sum(second.counts[Split.VALIDATION].values()),
        "warm": {"trials": warm.trials, "bests": [asdict(best) for best in warm_bests]},
        "cold": {"trials": cold.trials, "bests": [asdict(best) for best in cold_bests]},
    }
    early = after(warm_bests, SHARE * budget_s)
    for of in ("test", "validation"):
        target = getattr(cold_bests[-1], of)
        found[of] = {
            "cold": target,
            "cold_s": reached(cold_bests, target, of),
            "warm_early": None if early is None else getattr(early, of),
            "warm": getattr(warm_bests[-1], of),
            "warm_s": reached(warm_bests, target, of),
        }
    return found


def _figure(value: float | None, digits: int) -> str:
    return "none" if value is None else f"{value:.{digits}f}"


def report(rows: Sequence[dict[str, Any]], space: str, budget_s: float) -> None:
    notes = []
    for of in ("test", "validation"):
        shares = [float("inf") if row[of]["warm_s"] is None else row[of]["warm_s"] / budget_s for row in rows]
        ahead = [row[of]["warm_early"] - row[of]["cold"] for row in rows if row[of]["warm_early"] is not None]
        notes.append(
            f"On {of}, warm came to the cold search's end after {statistics.median(shares):.2f} of its time (median; "
            f"never in {shares.count(float('inf'))} of {len(rows)}); after {SHARE:g} of it, it was "
            f"{100 * statistics.mean(ahead or [float('nan')]):+.2f} points from it (mean of {len(ahead)})."
        )
    show(
        f"A search again after 10 % new cells: space {space}, {budget_s:g} s each",
        (
            "seed",
            "judged on",
            "cold: trials",
            "end",
            "first at s",
            f"warm: at {SHARE * budget_s:g} s",
            "cold's end at s",
            "end",
            "trials",
        ),
        [
            [
                str(row["seed"]),
                of,
                str(row["cold"]["trials"]),
                _figure(row[of]["cold"], 4),
                _figure(row[of]["cold_s"], 1),
                _figure(row[of]["warm_early"], 4),
                _figure(row[of]["warm_s"], 1),
                _figure(row[of]["warm"], 4),
                str(row["warm"]["trials"]),
            ]
            for row in rows
            for of in ("test", "validation")
        ],
        *notes,
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--budget-s", type=float, default=120.0, help="of each search")
    parser.add_argument("--space", default="demo")
    parser.add_argument("--images", type=int, help="default: all")
    chosen = parser.parse_args()
    budget_s, count = (60.0, 200) if chosen.quick else (chosen.budget_s, chosen.images)
    space = "quick" if chosen.quick else chosen.space
    with runtime.connected():
        rows = [compare(seed, space, budget_s, count) for seed in chosen.seeds]
    report(rows, space, budget_s)
    figures = {"quick": chosen.quick, "space": space, "budget_s": budget_s, "seeds": rows}
    write_json(chosen.json, "warm", figures)


if __name__ == "__main__":
    main()
