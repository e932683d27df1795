"""A search on several nodes: what each further one is worth, and what it costs to lose them, workers and the driver.

    python tests/benchmarks/bench_nodes.py --json bench-results/

Raylets on this machine are the nodes, of one CPU each; so no more of them are worth something than there are
processors. The same trials run on one, two and three of them; then on three of which one is killed every half minute,
and between two of them the worker of a trial or the driver, each once: the search is resumed as a controller would do.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from common import options, show, write_json
from ray.cluster_utils import Cluster

sys.path.insert(0, str(Path(__file__).parents[2]))
from autovision.errors import Conflict
from autovision.records.searches import SearchStatus
from autovision.records.trials import TrialState
from tests.slow.searches import Killed, Plan, Tunings, colours, kill

AT_WORK = re.compile(r"ray::\w+\.(?:train|step)")
ORDER = ("node", "worker", "node", "driver")


@dataclass
class Ran:
    """One search.

    Attributes:
        seconds: wall seconds from its submission to its model.
        begun_again: trials that lost their worker.
        failed: trials that lost it twice.
    """

    nodes: int
    seconds: float = 0.0
    trials: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    begun_again: int = 0
    failed: int = 0
    attempts: int = 1


def kill_worker() -> bool:
    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if AT_WORK.match(" ".join(each.cmdline())):
                each.kill()
                return True
    return False


def searched(nodes: int, trials: int, folder: Path, root: Path, every_s: float | None = None) -> Ran:
    """Run a search to its end; with `every_s` something is killed whenever so many seconds have passed."""
    ran, root = Ran(nodes), root / f"{nodes}-{every_s}"
    root.mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        plan = Plan(
            Tunings(), ("--max-trials", str(trials), "--seed", "3", "--no-confirm", "--no-soup"), nodes, 0
        )
        search = Killed(plan, folder, root, cluster.address)
        order, began = itertools.cycle(ORDER), time.monotonic()
        due = began + (every_s or float("inf"))
        with ExitStack() as ends:
            process = ends.enter_context(search.submitted())
            while (code := process.poll()) is None or search.state.status is not SearchStatus.FINISHED:
                if code is not None:  # resumed as soon as the lease of the one that was killed has ended
                    if code not in (-9, Conflict.exit_code):
                        raise RuntimeError(f"the search ended with {code}: {search.state}")
                    time.sleep(1.0)
                    process = ends.enter_context(search._running(["search", "resume", search.search]))
                    continue
                if time.monotonic() >= due and search.state.status is not SearchStatus.FINISHED:
                    due = time.monotonic() + (every_s or 0.0)
                    what = next(order)
                    if what == "node":
                        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
                        cluster.add_node(num_cpus=1)
                    elif what == "worker":
                        what = what if kill_worker() else "nothing"
                    else:
                        kill([process])
                    ran.killed[what] += 1
                time.sleep(0.2)
        ran.seconds = time.monotonic() - began
        ledger = search.trials
        assert sorted(trial.number for trial in ledger) == list(range(trials)), "the ledger is whole"
        ran.failed = sum(trial.state is TrialState.FAILED for trial in ledger)
        ran.trials, ran.attempts = len(ledger), search.state.attempt
        ran.begun_again = sum(any("a worker was lost" in note for note in each.notes) for each in ledger)
    finally:
        cluster.shutdown()
    return ran


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--every-s", type=float, default=30.0, help="between two kills")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 3])
    chosen = parser.parse_args()
    # Where others have the machine, too, workers of the low priority that Ray gives them would not come to their turn.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if chosen.quick:
        chosen.trials, chosen.nodes, chosen.every_s = 4, [2], 10.0
    with tempfile.TemporaryDirectory() as made:
        folder = colours(Path(made) / "images")
        quiet = [searched(nodes, chosen.trials, folder, Path(made)) for nodes in chosen.nodes]
        disturbed = searched(max(chosen.nodes), chosen.trials, folder, Path(made), chosen.every_s)
    first = quiet[0]
    show(
        f"{chosen.trials} trials, each of a network in part",
        ("nodes", "s", "of the first row's pace", "efficiency"),
        [
            [
                str(each.nodes),
                f"{each.seconds:.0f}",
                f"{first.seconds / each.seconds:.2f}",
                f"{first.seconds * first.nodes / each.seconds / each.nodes:.2f}",
            ]
            for each in quiet
        ],
        f"With all that a search does once: starting, finishing, evaluating. {psutil.cpu_count()} processors.",
    )
    overhead = disturbed.seconds / quiet[-1].seconds - 1
    show(
        f"the same on {disturbed.nodes} nodes, with something killed every {chosen.every_s:g} s",
        ("s", "overhead", "killed", "attempts", "trials begun again", "failed"),
        [
            [
                f"{disturbed.seconds:.0f}",
                f"{overhead:+.0%}",
                ", ".join(f"{count} {what}" for what, count in disturbed.killed.items()) or "nothing",
                str(disturbed.attempts),
                str(disturbed.begun_again),
                str(disturbed.failed),
            ]
        ],
    )
    figures: dict[str, Any] = {
        "undisturbed": [vars(each) for each in quiet],
        "disturbed": vars(disturbed),
        "overhead": overhead,
    }
    write_json(chosen.json, "nodes", figures)


if __name__ == "__main__":
    main()
