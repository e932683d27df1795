"""A data set that grew by a tenth, imported again and made ready to train on, against the same from nothing.

    python tests/benchmarks/bench_import.py --json bench-results/

Nine tenths of the solar cells are imported and their features computed: everything pooled, and the activations at one
cut, with flips. Then all cells become the next version, in two ways, each timed on a copy of that store: as an
extension, in which old images keep their splits, and as a plain import of everything, which splits anew, so that some
images come to need views that they had none of. Against them stands the import of all cells into an empty store; and
an import of nothing new says what of their time is there in any case. A round does all of them, and ratios are taken
round by round.

Every step begins like a new process: it knows no features, loads the backbone, and compiles the networks, which were
converted beforehand for all of them. About 5 minutes on two cores.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from common import fresh_store, options, ratios, show, solar_cells, some, spread, write_json

from autovision.dataset.importer import extend, import_images
from autovision.dataset.listing import SourceImage
from autovision.records.datasets import DatasetVersion
from autovision.space.config import TrialConfig
from autovision.store.local import LocalStore
from autovision.trial.data import load_inputs
from autovision.trial.workbench import Workbench

CONFIG = TrialConfig(unfreeze=4, augmentation="flip", resolution=224)
NOTHING, EXTENDED, AGAIN, UNCHANGED = "from nothing", "extended", "imported again", "nothing new"
PROMISED = 0.15
NAME, STRATIFY_BY = "solar", "cell_type"

Import = Callable[[LocalStore], DatasetVersion]


def imported(store: LocalStore, cells: Sequence[SourceImage]) -> DatasetVersion:
    return import_images(store, NAME, cells, seed=0, stratify_by=STRATIFY_BY)


def make_ready(store: LocalStore, version: DatasetVersion, config: TrialConfig, threads: int) -> int:
    """Compute what training and validation lack of features; how many rows that were."""
    bench = Workbench(store, threads)
    source, splits, channels = bench.source(config), bench.splits(version.id), bench.channels(config)
    for split, training in ((splits.train, True), (splits.validation, False)):
        load_inputs(source, split, config, channels, training=training, deadline=math.inf)
    return source.computed


def timed(store: LocalStore, action: Import, config: TrialConfig, threads: int) -> dict[str, float]:
    """Seconds of an import, and of making ready what it brought."""
    began = time.perf_counter()
    version = action(store)
    then = time.perf_counter()
    rows = make_ready(store, version, config, threads)
    done = time.perf_counter()
    return {"import_s": then - began, "features_s": done - then, "total_s": done - began, "rows": rows}


def measure(
    config: TrialConfig, count: int | None, rounds: int, threads: int
) -> dict[str, list[dict[str, float]]]:
    """The steps of each way, round by round."""
    cells = some(solar_cells(), count)
    old, new = [cell for i, cell in enumerate(cells) if i % 10 != 9], cells[9::10]
    steps: dict[str, list[dict[str, float]]] = {NOTHING: [], EXTENDED: [], AGAIN: [], UNCHANGED: []}
    with fresh_store() as base:
        before = imported(base, old)
        make_ready(base, before, config, threads)
        grow: dict[str, Import] = {
            EXTENDED: lambda store: extend(store, before, new, seed=0, stratify_by=STRATIFY_BY),
            AGAIN: lambda store: imported(store, cells),
            UNCHANGED: lambda store: imported(store, old),
        }
        for _ in range(rounds):
            with fresh_store() as empty:
                steps[NOTHING].append(timed(empty, grow[AGAIN], config, threads))
            for way, action in grow.items():
                with fresh_store() as aside:
                    shutil.copytree(base.root, aside.root, dirs_exist_ok=True)
                    steps[way].append(timed(LocalStore(Path(aside.root)), action, config, threads))
    return steps


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    config, count = CONFIG, None
    if chosen.quick:
        config, count, chosen.rounds = CONFIG.with_(resolution=64), 240, 1
    steps = measure(config, count, chosen.rounds, chosen.threads)
    totals = {way: [step["total_s"] for step in of] for way, of in steps.items()}
    share = {way: ratios(of, totals[NOTHING]) for way, of in totals.items()}
    show(
        f"All solar cells ready to train on, where nine tenths were; n = {chosen.rounds}, {chosen.threads} threads",
        ("way", "import, s", "features, s", "rows computed", "total, s", "share of from nothing"),
        [
            [
                way,
                spread([step["import_s"] for step in of]),
                spread([step["features_s"] for step in of]),
                f"{of[0]['rows']:.0f}",
                spread(totals[way]),
                spread(share[way], 3),
            ]
            for way, of in steps.items()
        ],
        f"min / median / max; at most {PROMISED:.2f} of the time from nothing is what is wanted.",
    )
    write_json(
        chosen.json,
        "import",
        {
            "config": config.model_dump(mode="json"),
            "rounds": chosen.rounds,
            "quick": chosen.quick,
            "steps": steps,
            "share": share,
            "promised": PROMISED,
        },
    )


if __name__ == "__main__":
    main()
