"""A search again after 10 % new images: how soon it is as good as a search that begins cold.

    python tests/benchmarks/bench_warm.py --json bench-results/
    python tests/benchmarks/bench_warm.py --json bench-results/ --seeds 0 1 2 --budget-s 120

For each seed a model is searched for on nine tenths of the solar cells; then the last tenth is imported. On the new
version two searches run, one after the other, with the same budget and space: a warm one in that store, which knows the
model, the ledger, the features of the old images and the speeds of this kind of node; and a cold one in a store of its
own with the same images in the same splits and nothing else. The target is what the cold one comes to in the end on
validation, where both are judged on the same images. Seconds are wall seconds since the search was begun, its own
processes included, as the search tells them; the machine's other work is in them. About 7 minutes a seed on two cores.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from common import fresh_store, options, show, solar_cells, some, write_json

from autovision import runtime
from autovision.dataset.importer import extend, import_images
from autovision.records.datasets import DatasetVersion, Split
from autovision.records.searches import SearchState
from autovision.search import requests
from autovision.search.progress import ProgressEvent
from autovision.search.run import run_search
from autovision.space import load_space
from autovision.store.local import LocalStore

NAME, NEW = "solar", 10
"""every tenth cell comes later"""


def imported(store: LocalStore, seed: int, count: int | None) -> tuple[DatasetVersion, list[Any]]:
    """The first version, and the cells that come later."""
    cells = some(solar_cells(), count)
    later = cells[NEW - 1 :: NEW]
    first = [cell for number, cell in enumerate(cells) if number % NEW != NEW - 1]
    return import_images(store, NAME, first, seed=seed, stratify_by="cell_type"), later


def search(
    store: LocalStore, version: DatasetVersion, space: str, budget_s: float, seed: int, **more: Any
) -> tuple[SearchState, list[tuple[float, float]]]:
    """A search to its end, and its best value over time: (seconds, validation accuracy), rising."""
    request = requests.make_request(
        store, version.id, load_space(space), budget_s=budget_s, seed=seed, **more
    )
    requests.submit(store, request)
    rises: list[tuple[float, float]] = []

    def on_progress(event: ProgressEvent) -> None:
        value = event.best_value
        if value is not None and (not rises or value > rises[-1][1]):
            rises.append((event.elapsed_s, value))

    return run_search(store, request.id, on_progress=on_progress), rises


def reached(rises: Sequence[tuple[float, float]], target: float) -> float | None:
    """Seconds until a value was reached; None: it never was."""
    return next((seconds for seconds, value in rises if value >= target - 1e-9), None)


def compare(seed: int, space: str, budget_s: float, count: int | None) -> dict[str, Any]:
    """Both searches of one seed."""
    with fresh_store() as store:
        version, later = imported(store, seed, count)
        before, _ = search(store, version, space, budget_s, seed)
        second = extend(store, version, later, seed=seed)
        warm, warm_rises = search(store, second, space, budget_s, seed, parent_model=before.model)
        origins = [trial.origin for trial in requests.trials(store, warm.search)[:4]]
    with fresh_store() as store:
        version, later = imported(store, seed, count)
        same = extend(store, version, later, seed=seed)
        assert same.digest == second.digest
        cold, cold_rises = search(store, same, space, budget_s, seed, warm_start=False)
    target, image = cold_rises[-1][1], 1 / sum(second.counts[Split.VALIDATION].values())
    found: dict[str, Any] = {
        "seed": seed,
        "target": target,
        "warm": {"trials": warm.trials, "rises": warm_rises, "first_origins": origins},
        "cold": {"trials": cold.trials, "rises": cold_rises},
    }
    for name, value in (("to_target", target), ("to_two_images_less", target - 2 * image)):
        cold_s, warm_s = reached(cold_rises, value), reached(warm_rises, value)
        assert cold_s is not None
        found[name] = {
            "cold_s": cold_s,
            "warm_s": warm_s,
            "share": None if warm_s is None else warm_s / cold_s,
        }
    return found


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"


def report(rows: Sequence[dict[str, Any]], space: str, budget_s: float) -> None:
    notes = []
    for name, text in (("to_target", "the target"), ("to_two_images_less", "two images less")):
        shares = [row[name]["share"] for row in rows if row[name]["share"] is not None]
        middle = f"median {statistics.median(shares):.2f}" if shares else "no figure"
        notes.append(
            f"Warm seconds as a share of cold ones to {text}: {middle}, reached in {len(shares)} of {len(rows)} seeds."
        )
    show(
        f"A search again after 10 % new cells: space {space}, {budget_s:g} s each",
        (
            "seed",
            "target",
            "cold: trials",
            "s to it",
            "warm: first value",
            "at s",
            "trials",
            "s to target",
            "end",
        ),
        [
            [
                str(row["seed"]),
                f"{row['target']:.4f}",
                str(row["cold"]["trials"]),
                _seconds(row["to_target"]["cold_s"]),
                f"{row['warm']['rises'][0][1]:.4f}",
                f"{row['warm']['rises'][0][0]:.1f}",
                str(row["warm"]["trials"]),
                _seconds(row["to_target"]["warm_s"]),
                f"{row['warm']['rises'][-1][1]:.4f}",
            ]
            for row in rows
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
