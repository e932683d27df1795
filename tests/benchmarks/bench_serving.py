"""Requests per second and latency of the server, against a bare loop of the same compiled model and other servers.

    python tests/benchmarks/bench_serving.py --json bench-results/
    python tests/benchmarks/bench_serving.py --peers bare fastapi eager litserve bentoml --python PEERS/bin/python

A model with the default of the `quick` space is trained on the solar cells and served by each in turn, in processes of
its own on the same cores: `bare` is decoding in threads and the compiled model on batches of 16, without any HTTP.
What is sent are real images: PNG of 300 x 300 pixels, and JPEG of 640 x 480 (the same cells, enlarged). At saturation
32 connections ask without pause; at 50 % and 80 % of the saturation of the best other server requests come at random
times, whether or not those before are answered, and latencies count from when a request was due. Every round measures
all servers one after the other; figures are medians over rounds, with the least and the most. The others need `pip
install litserve bentoml` in an environment of their own, whose Python `--python` names, since they do not go with
Ray's packages.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import load
from common import fresh_store, import_solar_cells, options, show, spread, write_json
from served import HERE, OURS, images, running, trained

from autovision.api import AutoVision

PATHS = {OURS: "/v1/predict"}
FORMS = {"litserve": "image", "bentoml": "images"}
"""servers that take a form, and the name of its field"""
CONNECTIONS = 32


def plan(kind: str, port: int, files: list[str], seconds: float, **more: Any) -> load.Plan:
    chosen: dict[str, Any] = {"connections": CONNECTIONS, "multipart": FORMS.get(kind), **more}
    return load.Plan("127.0.0.1", port, PATHS.get(kind, "/predict"), files, seconds, **chosen)


def bare_rate(store: str, model: str, files: list[str], seconds: float) -> float:
    command = [sys.executable, str(HERE / "serving_peers.py"), "bare", store, model, str(seconds), *files]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(json.loads(done.stdout.splitlines()[-1]))


def measure(
    kinds: list[str], store: str, model: str, files: list[str], seconds: float, rounds: int, python: str
) -> dict[str, dict[str, list[Any]]]:
    """By server: images per second of each round, and p50 and p99 at half and four fifths of the best other's."""
    found: dict[str, dict[str, list[Any]]] = {kind: {"rate": [], "failed": []} for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            if kind == "bare":
                found[kind]["rate"].append(bare_rate(store, model, files, seconds))
                continue
            with running(kind, store, model, python) as port:
                seen = load.run(plan(kind, port, files, seconds))
            found[kind]["rate"].append(seen.rate)
            found[kind]["failed"].append(seen.failed)
    others = [kind for kind in kinds if kind not in (OURS, "bare")]
    best = max((statistics.median(found[kind]["rate"]) for kind in others), default=0.0)
    best = best or statistics.median(found[OURS]["rate"])
    for share in (0.5, 0.8):
        for _ in range(rounds):
            for kind in kinds:
                if kind in ("bare", "eager"):
                    continue
                with running(kind, store, model, python) as port:
                    paced = plan(kind, port, files, seconds, connections=256, rate=share * best)
                    seen = load.run(paced)
                of = found[kind]
                of.setdefault(f"p50 at {share:.0%}", []).append(seen.quantile_ms(0.5))
                of.setdefault(f"p99 at {share:.0%}", []).append(seen.quantile_ms(0.99))
                of["failed"].append(seen.failed)
    return found


def report(kind_of_image: str, found: dict[str, dict[str, list[Any]]]) -> None:
    base = statistics.median(found["bare"]["rate"]) if "bare" in found else None
    columns = ["server", "images/s", "of bare", "p50 ms at 50 %", "p99", "p50 ms at 80 %", "p99", "failed"]
    rows = []
    for kind, of in found.items():
        latencies = [
            spread(of[name], 0) if name in of else ""
            for name in ("p50 at 50%", "p99 at 50%", "p50 at 80%", "p99 at 80%")
        ]
        share = f"{statistics.median(of['rate']) / base:.2f}" if base else ""
        rows.append([kind, spread(of["rate"], 0), share, *latencies, str(sum(of["failed"]))])
    show(f"{kind_of_image}: least / median / most of the rounds", columns, rows)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--peers", nargs="*", default=["bare", "fastapi", "eager"])
    parser.add_argument("--images", nargs="*", choices=["PNG", "JPEG"], default=["PNG", "JPEG"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument(
        "--python", default=sys.executable, help="of the environment that has the other servers"
    )
    chosen = parser.parse_args()
    rounds, seconds = (1, 1.0) if chosen.quick else (chosen.rounds, chosen.seconds)
    kinds = [*(kind for kind in chosen.peers if kind == "bare"), OURS]
    kinds += [kind for kind in chosen.peers if kind != "bare"]
    figures = {}
    with fresh_store() as store:
        import_solar_cells(store, count=240 if chosen.quick else 600)
        model = trained(AutoVision(store.uri), chosen.quick)
        folder = Path(store.uri.removeprefix("file://")) / "sent"
        folder.mkdir()
        for name, files in images(folder, 32).items():
            if name.split()[0] not in chosen.images:
                continue
            figures[name] = measure(kinds, store.uri, model, files, seconds, rounds, chosen.python)
            report(name, figures[name])
    write_json(chosen.json, "serving", {"figures": figures, "rounds": rounds, "seconds": seconds})


if __name__ == "__main__":
    main()
