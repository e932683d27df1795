"""An hour's load in short form: whether memory and latency are flat while a server answers for a long time.

    python tests/benchmarks/bench_soak.py --json bench-results/
    python tests/benchmarks/bench_soak.py --json bench-results/ --minutes 10

Real images at random times, at 60 % of the rate at saturation, with captures on. Every five seconds the memory of the
server's processes is read: of the replica, of the edge, of HAProxy. Compared are the first fifth of the time and the
last, the first minute (in which caches fill) left out; the trend is the slope of a straight line through all readings.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import load
import numpy as np
from common import fresh_store, import_solar_cells, options, show, write_json
from served import OURS, images, running, serving, trained

from autovision.api import AutoVision

NAME = "cells"
PARTS = {
    "replica": f"ServeReplica:autovision-{NAME}:",
    "edge": "ServeReplica:autovision-edge",
    "HAProxy": "haproxy -db",
}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    chosen = parser.parse_args()
    seconds, leave = (20.0, 4.0) if chosen.quick else (60.0 * chosen.minutes, 60.0)
    with fresh_store() as store:
        import_solar_cells(store, count=240 if chosen.quick else 600)
        av = AutoVision(store.uri)
        av.promote(trained(av, chosen.quick), NAME, force=True)
        folder = Path(store.uri.removeprefix("file://")) / "sent"
        folder.mkdir()
        files = images(folder, 32)["PNG 300 x 300"]
        with running(OURS, store.uri, NAME) as port:
            full = load.run(load.Plan("127.0.0.1", port, "/v1/predict", files, 5.0, 32)).rate
            watched = {name: serving(part)[0] for name, part in PARTS.items()}
            plan = load.Plan(
                "127.0.0.1", port, "/v1/predict", files, seconds, 512, rate=0.6 * full, warm_s=0.0
            )
            begun, load_process = time.perf_counter(), load.begin(plan)
            at: list[float] = []
            memory: dict[str, list[float]] = {name: [] for name in watched}
            while load_process.poll() is None and time.perf_counter() - begun < seconds:
                at.append(time.perf_counter() - begun)
                for name, process in watched.items():
                    memory[name].append(process.memory_info().rss / 2**20)
                time.sleep(5.0 if seconds > 60 else 1.0)
            seen = load.seen(load_process)
    fifth = (seconds - leave) / 5
    early, late = (leave, leave + fifth), (seconds - fifth, seconds)
    rows, figures = [], {}
    for name, values in memory.items():
        of = [
            statistics.median(v for v, t in zip(values, at, strict=True) if a <= t < b)
            for a, b in (early, late)
        ]
        kept = [(t, v) for t, v in zip(at, values, strict=True) if t >= leave]
        slope = float(np.polyfit(*zip(*kept, strict=True), 1)[0]) * 3600
        figures[name] = {"first_mib": of[0], "last_mib": of[1], "mib_per_hour": slope}
        rows.append(
            [
                f"memory of {name}, MiB",
                f"{of[0]:.0f}",
                f"{of[1]:.0f}",
                f"{of[1] / of[0]:.3f}",
                f"{slope:+.0f} an hour",
            ]
        )
    for part in (0.5, 0.99):
        of = [seen.quantile_ms(part, *window) for window in (early, late)]
        figures[f"p{part * 100:g}"] = {"first_ms": of[0], "last_ms": of[1]}
        rows.append([f"p{part * 100:g}, ms", f"{of[0]:.0f}", f"{of[1]:.0f}", f"{of[1] / of[0]:.3f}", ""])
    show(
        f"{len(seen.latencies)} answers in {seconds:.0f} s, 60 % of {full:.0f} images/s; failed: {seen.failures or 0}",
        ["", "first fifth", "last fifth", "ratio", "trend"],
        rows,
    )
    write_json(chosen.json, "soak", {"figures": figures, "failures": seen.failures, "seconds": seconds})


if __name__ == "__main__":
    main()
