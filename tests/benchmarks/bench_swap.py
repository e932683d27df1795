"""What callers notice of a new model, a roll-back, a canary and a killed replica, while the server is under load.

    python tests/benchmarks/bench_swap.py --json bench-results/
    python tests/benchmarks/bench_swap.py --json bench-results/ --replicas 2

Two models of one structure are served by turns as one deployment, by `autovision serve` in a process of its own. First
the rate at saturation is measured (32 connections that ask without pause); then requests come at random times at 60 %
of it, and every `--gap` seconds something happens: the other model is promoted at once, rolled back, brought in by way
of a shadow and a canary of 20 and 60 %, and the process of a replica is killed with SIGKILL. Latencies count from when
a request was due; what the gates look at was computed before. Compared are the p99 of the seconds after each event
with that of as long a time before any, in the same run. Nothing may fail.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import load
import psutil
from common import fresh_store, import_solar_cells, options, show, write_json
from served import OURS, images, running, serving, trained

from autovision.api import AutoVision
from autovision.records.rollouts import RolloutPolicy
from autovision.serving.client import Client

NAME = "cells"
SHARE = 0.6
STEPS = RolloutPolicy(shadow_requests=40, canary=(0.2, 0.6), step_requests=40, step_s=2.0)


def replicas() -> list[int]:
    """The processes of replicas that this benchmark's server started."""
    return [process.pid for process in serving(f"ServeReplica:autovision-{NAME}:ModelServer")]


def until(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("what was waited for did not happen")
        time.sleep(0.2)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--gap", type=float, default=20.0, help="seconds from event to event")
    parser.add_argument("--replicas", type=int, default=1)
    chosen = parser.parse_args()
    gap = 6.0 if chosen.quick else chosen.gap
    with fresh_store() as store:
        import_solar_cells(store, count=240 if chosen.quick else 600)
        av = AutoVision(store.uri)
        first, second = (trained(av, chosen.quick, seed) for seed in (0, 1))
        for model in (first, second, first):
            # What the gates look at is computed now, and not on the cores of the server while it answers.
            av.promote(model, NAME, force=True)
        folder = Path(store.uri.removeprefix("file://")) / "sent"
        folder.mkdir()
        files = images(folder, 32)["PNG 300 x 300"]
        with running(OURS, store.uri, NAME, "", "--replicas", str(chosen.replicas)) as port:
            url = f"http://127.0.0.1:{port}"
            full = load.run(load.Plan("127.0.0.1", port, "/v1/predict", files, 8.0, 32)).rate
            client = Client(url, retry_for_s=60.0)

            def serves(model: str) -> Callable[[], bool]:
                return lambda: client.info().model == model and av.deployment(NAME).rollout is None

            def swap() -> None:
                av.promote(second, NAME, force=True, at_once=True)
                until(serves(second))

            def roll_back() -> None:
                av.roll_back(NAME)
                until(serves(first))

            def ramp() -> None:
                av.set_rollout_policy(NAME, STEPS)
                av.promote(second, NAME, force=True)
                until(serves(second))

            def kill() -> None:
                psutil.Process(replicas()[0]).kill()
                until(lambda: len(replicas()) == chosen.replicas and client.health().status == "ready")

            events = {"hot swap": swap, "roll-back": roll_back, "shadow and canary": ramp, "kill -9": kill}
            most_s = 60.0 + 60.0 * len(events)
            plan = load.Plan(
                "127.0.0.1", port, "/v1/predict", files, most_s, 512, rate=SHARE * full, warm_s=0.0
            )
            begun = time.perf_counter()
            process = load.begin(plan)
            time.sleep(gap + 4.0)
            windows = {"steady": (4.0, time.perf_counter() - begun)}
            for name, event in events.items():
                at = time.perf_counter() - begun
                event()
                took = time.perf_counter() - begun - at
                time.sleep(max(2.0, gap - took))
                windows[name] = (at, time.perf_counter() - begun)
            process.send_signal(signal.SIGINT)
            seen = load.seen(process)
    steady = seen.quantile_ms(0.99, *windows["steady"])
    rows, figures = [], {}
    for name, (since, to) in windows.items():
        requests = sum(since <= due < to for due in seen.due)
        p50, p99 = seen.quantile_ms(0.5, since, to), seen.quantile_ms(0.99, since, to)
        figures[name] = {"seconds": to - since, "requests": requests, "p50_ms": p50, "p99_ms": p99}
        rows.append(
            [name, f"{to - since:.0f}", str(requests), f"{p50:.0f}", f"{p99:.0f}", f"{p99 / steady:.2f}"]
        )
    show(
        f"at {SHARE:.0%} of {full:.0f} images/s, {chosen.replicas} replica(s); failed: {seen.failures or 0}",
        ["what happens", "seconds", "requests", "p50 ms", "p99 ms", "of steady"],
        rows,
    )
    write_json(
        chosen.json,
        "swap",
        {"windows": figures, "failures": seen.failures, "saturation": full, "replicas": chosen.replicas},
    )


if __name__ == "__main__":
    main()
