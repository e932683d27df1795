"""What a controller does all day: pass after pass over many deployments in which nothing happens.

    python tests/benchmarks/bench_controller.py --json bench-results/

Each deployment has captured requests, labels of some of them, and a drift report of the last window: nothing is to be
done. The first pass reads what it has to know; those after it, two seconds apart as `autovision controller run` makes
them, should cost next to nothing. Then one deployment gets another label, and it is timed until that is counted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common import fresh_store, options, show, spread, write_json
from PIL import Image

from autovision.controller import Controller
from autovision.dataset.importer import SourceImage, import_images
from autovision.records.deployments import Capture, Deployment, DriftReport, Label, RetrainingPolicy
from autovision.store import captures, keys, labels, records
from autovision.store.keypaths import path_of
from autovision.store.local import LocalStore

START = datetime(2026, 1, 1, tzinfo=UTC)
IN_A_FILE = 500
INTERVAL_S = 2.0


def data_set(store: LocalStore, folder: Path) -> None:
    """Six images, which is as many as a data set needs."""
    images = []
    for n in range(6):
        path = folder / f"{n}.png"
        Image.new("RGB", (32, 32), (40 * n, 10, 10)).save(path)
        images.append(SourceImage(label="ok" if n % 2 else "defective", path=path))
    import_images(store, "lines", images, seed=0)


def request_id(n: int) -> str:
    return keys.stamp(START + timedelta(seconds=n)) + f"-{n:06x}"


def requests(name: str, n: int, dimensions: int) -> Iterator[list[Capture]]:
    """Batches of captures, a second apart."""
    embedding = tuple(0.5 for _ in range(dimensions))
    for begin in range(0, n, IN_A_FILE):
        yield [
            Capture(
                request_id=request_id(k),
                deployment=name,
                model="m",
                received_at=START + timedelta(seconds=k),
                latency_ms=5.0,
                image=f"{k:064x}",
                image_bytes=1000,
                pixels=False,
                label="ok",
                probabilities={"ok": 0.9, "defective": 0.1},
                embedding=embedding,
            )
            for k in range(begin, min(begin + IN_A_FILE, n))
        ]


def put_plainly(store: LocalStore, key: str, data: bytes) -> None:
    """As the store would, without waiting for the disk: there are a million of them."""
    path = store.root / path_of(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def deploy(store: LocalStore, name: str, n_captures: int, n_labels: int, dimensions: int) -> None:
    policy = RetrainingPolicy(volume_labels=10**9)
    deployment = Deployment(
        name=name, dataset="lines", model="m", space={}, policy=policy, created_at=START, updated_at=START
    )
    records.create(store, keys.deployment(name), deployment)
    for batch in requests(name, n_captures, dimensions):
        captures.append(store, name, batch, at=batch[-1].received_at)
    for k in range(n_labels):
        said = Label(request_id=request_id(k), label="ok", received_at=START)
        put_plainly(store, keys.label(keys.labels(name, said.request_id), "0" * 64), said.to_json())
    end = START + timedelta(seconds=n_captures)
    report = DriftReport(
        id=keys.timestamped_id(end),
        deployment=name,
        model="m",
        n=100,
        reference_n=100,
        first_request="a",
        last_request="b",
        window_start=START,
        window_end=end,
        score=0.0,
        threshold=1.0,
        p_value=0.5,
        alpha=0.001,
        alarm=False,
        created_at=end,
    )
    records.create(store, keys.report(name, report.id), report)


def passes(controller: Controller, seconds: float) -> list[float]:
    """What each pass took, in so many seconds of passes and pauses."""
    took = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(took) < 3:
        began = time.perf_counter()
        events = [event for event in controller.step() if event.stage != "retraining"]
        assert not events, events
        took.append(time.perf_counter() - began)
        time.sleep(INTERVAL_S)
    return took


def seen_after(controller: Controller, store: LocalStore, name: str, n_labels: int) -> float:
    """Seconds until a label that arrives now is counted."""
    labels.add(store, name, Label(request_id=request_id(n_labels), label="ok", received_at=START))
    began = time.perf_counter()
    while controller._evaluator.memory._seen[name].answer.measured.n == n_labels:
        time.sleep(INTERVAL_S)
        list(controller.step())
    return time.perf_counter() - began


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--deployments", type=int, default=50)
    parser.add_argument("--captures", type=int, default=10_000, help="of each deployment")
    parser.add_argument("--labels", type=int, default=1_000, help="of each deployment")
    parser.add_argument("--dimensions", type=int, default=64, help="of an embedding")
    parser.add_argument("--seconds", type=float, default=60.0, help="of passes")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.deployments, chosen.captures, chosen.labels, chosen.seconds = 2, 200, 20, 4.0
    with fresh_store() as store, tempfile.TemporaryDirectory() as folder:
        data_set(store, Path(folder))
        names = [f"line-{n:03d}" for n in range(chosen.deployments)]
        for name in names:
            deploy(store, name, chosen.captures, chosen.labels, chosen.dimensions)
        controller = Controller(store)
        began = time.perf_counter()
        list(controller.step())
        first = time.perf_counter() - began
        took = passes(controller, chosen.seconds)
        busy = sum(took) / (sum(took) + INTERVAL_S * len(took))
        seen = seen_after(controller, store, names[len(names) // 2], chosen.labels)
    show(
        f"{chosen.deployments} quiet deployments, each with {chosen.captures:,} captures and {chosen.labels:,} labels",
        ("first pass, s", "passes after it, s", "share of the time", "new label seen after, s"),
        [[f"{first:.2f}", spread(took, 3), f"{busy:.1%}", f"{seen:.1f}"]],
        "min / median / max; passes are two seconds apart.",
    )
    write_json(
        chosen.json,
        "controller",
        {
            "deployments": chosen.deployments,
            "captures": chosen.captures,
            "labels": chosen.labels,
            "first_s": first,
            "passes_s": took,
            "share": busy,
            "seen_after_s": seen,
        },
    )


if __name__ == "__main__":
    main()
