"""How long the first caller waits for a model that sleeps, and what memory it gives back while nobody calls.

    python tests/benchmarks/bench_wake.py --json bench-results/
    python tests/benchmarks/bench_wake.py --json bench-results/ --rounds 10

One model with `--idle-s 8`, served by `autovision serve`. In each round it is waited until the model is asleep; then an
image is sent, and once more when it has been answered. Beside it, in the same round, what there is without sleeping and
waking: a hand-written FastAPI server with the same compiled model, whose process is started for the request. Memory is
what the server's processes hold alone (USS): the model's replicas, and all with which Ray runs them.
"""

from __future__ import annotations

import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
from common import fresh_store, import_solar_cells, options, show, spread, write_json
from served import OURS, images, running, serving, trained

from autovision.api import AutoVision
from autovision.serving.client import Client

IDLE_S = 8.0
_WAITS_S = 120.0


def memory_mib(processes: list[psutil.Process]) -> float:
    total = 0
    for process in processes:
        with suppress(psutil.Error):  # it ended meanwhile
            total += process.memory_full_info().uss
    return total / 2**20


def of_replicas(model: str) -> float:
    return memory_mib(serving(f"ServeReplica:autovision-{model}:"))


def asleep(client: Client, model: str) -> None:
    deadline = time.monotonic() + _WAITS_S
    while client.health().status != "asleep" or serving(f"ServeReplica:autovision-{model}:"):
        if time.monotonic() > deadline:
            raise SystemExit(f"the model did not sleep within {_WAITS_S:g} s")
        time.sleep(0.5)


def asked(client: Client, image: bytes) -> float:
    begun = time.perf_counter()
    client.predict(image)
    return time.perf_counter() - begun


def begun_for_it(store: str, model: str, image: bytes) -> float:
    """FastAPI's process from its start to its first answer."""
    begun = time.perf_counter()
    with running("fastapi", store, model) as port:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", image, method="POST")
        with urllib.request.urlopen(request, timeout=60):
            return time.perf_counter() - begun


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    rounds = 1 if chosen.quick else chosen.rounds
    took: dict[str, list[float]] = {"asleep": [], "awake": [], "FastAPI, started": []}
    held: dict[str, list[float]] = {"awake": [], "asleep": [], "Ray and the edge": []}
    with fresh_store() as store:
        import_solar_cells(store, count=240 if chosen.quick else 600)
        model = trained(AutoVision(store.uri), chosen.quick)
        folder = Path(store.uri.removeprefix("file://")) / "sent"
        folder.mkdir()
        image = Path(images(folder, 1)["PNG 300 x 300"][0]).read_bytes()
        for _ in range(rounds):
            took["FastAPI, started"].append(begun_for_it(store.uri, model, image))
        with (
            running(OURS, store.uri, model, "", "--idle-s", str(IDLE_S)) as port,
            Client(f"http://127.0.0.1:{port}", timeout_s=_WAITS_S, retry_for_s=0) as client,
        ):
            client.predict(image)
            for _ in range(rounds):
                held["awake"].append(of_replicas(model))
                asleep(client, model)
                held["asleep"].append(of_replicas(model))
                held["Ray and the edge"].append(memory_mib(psutil.Process().children(recursive=True)))
                took["asleep"].append(asked(client, image))
                took["awake"].append(asked(client, image))
    show(
        f"an image is sent while the model is so: least / median / most of {rounds}",
        ["", "seconds to the answer"],
        [[name, spread(of, 3)] for name, of in took.items()],
    )
    show(
        "memory that processes hold alone",
        ["", "MiB"],
        [[name, spread(of, 0)] for name, of in held.items()],
    )
    write_json(chosen.json, "wake", {"seconds": took, "mib": held, "rounds": rounds, "idle_s": IDLE_S})


if __name__ == "__main__":
    main()
