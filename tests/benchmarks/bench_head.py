"""What the head of a search does for each trial, and each second: requests to the store, bytes, processor time.

    python tests/benchmarks/bench_head.py --json bench-results/

The process that runs a search (the driver) sees the store through one that counts; what workers ask of it is counted
for one trial alone. A search of fine-tunings and one of heads, which are trained together, run on an embedded Ray. Then
what there is without work: what each further node costs Ray's head, and what searches cost each other that share one.
`cluster/README.md` works out from this where a large cluster breaks.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from common import options, show, write_json
from PIL import Image
from ray.cluster_utils import Cluster

from autovision import runtime
from autovision.api import AutoVision
from autovision.records.base import now
from autovision.records.searches import ClusterView, LiveSearch, SearchRequest
from autovision.search import requests
from autovision.search.run import run_search
from autovision.search.sharing.turn import Turn
from autovision.space import Float, Integer, Space
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore, keys, lease, records
from autovision.store.protocol import Blob, Entry, Store
from autovision.trial.assignment import Assignment
from autovision.trial.execution import Execution
from autovision.trial.workbench import Workbench

KINDS = (
    ("trials", r"searches/[^/]+/trials/"),
    ("begun", r"searches/[^/]+/begun/"),
    ("weights", r"searches/[^/]+/weights/"),
    ("checkpoints", r"searches/[^/]+/checkpoints/"),
    ("search", r"searches/"),
    ("live", r"live/"),
    ("leases", r"leases/"),
    ("clusters", r"clusters/"),
    ("features", r"features/"),
    ("images", r"images/"),
    ("other", r""),
)
EACH_SECOND = ("live", "leases", "clusters")
"""kinds of keys that are asked for because time passes"""
PAGE = 1000
"""keys that one request for a listing gives"""
IMAGES = 140


def kind_of(key: str) -> str:
    return next(name for name, pattern in KINDS if re.match(pattern, key))


class CountingStore:
    """A store that counts the requests which one on S3 would get: by verb and kind of key, with their bytes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self.requests: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[tuple[str, str]] = Counter()

    def _count(self, verb: str, key: str, size: int = 0, times: int = 1) -> None:
        with self._lock:
            self.requests[verb, kind_of(key)] += times
            self.bytes[verb, kind_of(key)] += size

    @property
    def uri(self) -> str:
        return self._store.uri

    def get(self, key: str) -> Blob:
        self._count("GET", key)
        found = self._store.get(key)
        self._count("GET", key, len(found.data), 0)
        return found

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, Blob]]:
        asked = list(keys)
        for key in asked:
            self._count("GET", key)
        for key, blob in self._store.get_many(asked):
            self._count("GET", key, len(blob.data), 0)
            yield key, blob

    def exists(self, key: str) -> bool:
        self._count("GET", key)
        return self._store.exists(key)

    def put_new(self, key: str, data: bytes) -> str:
        self._count("PUT", key, len(data))
        return self._store.put_new(key, data)

    def put_if(self, key: str, data: bytes, etag: str) -> str:
        self._count("PUT", key, len(data))
        return self._store.put_if(key, data, etag)

    def put_immutable(self, key: str, data: bytes) -> None:
        self._count("PUT", key, len(data))
        self._store.put_immutable(key, data)

    def list(self, prefix: str = "") -> Iterator[str]:
        return self._listed(prefix, self._store.list(prefix))

    def folders(self, prefix: str) -> Iterator[str]:
        return self._listed(prefix, self._store.folders(prefix))

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        return self._listed(prefix, self._store.entries(prefix))

    def _listed(self, prefix: str, found: Iterator[Any]) -> Iterator[Any]:
        self._count("LIST", prefix)
        for number, each in enumerate(found, 1):
            if number % PAGE == 0:
                self._count("LIST", prefix)
            yield each

    def touch(self, key: str) -> None:
        self._count("PUT", key)
        self._store.touch(key)

    def delete(self, key: str) -> None:
        self._count("DELETE", key)
        self._store.delete(key)

    def delete_unchanged(self, entry: Entry) -> bool:
        self._count("DELETE", entry.key)
        return self._store.delete_unchanged(entry)

    def local_path(self, key: str) -> Path:
        self._count("GET", key)
        path = self._store.local_path(key)
        self._count("GET", key, path.stat().st_size, 0)
        return path

    def total(self, verb: str, kinds: Iterable[str]) -> int:
        return sum(self.requests[verb, kind] for kind in kinds)

    def size(self, kinds: Iterable[str]) -> int:
        wanted = set(kinds)
        return sum(size for (_, kind), size in self.bytes.items() if kind in wanted)


class Tunings(Space):
    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    unfreeze = 1
    lr = Float(1e-4, 1e-1, log=True)
    dropout = Float(0.0, 0.5)
    epochs = Integer(9, 18)
    batch_size = 16


class Heads(Space):
    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    lr = Float(1e-4, 1e-1, log=True)
    dropout = Float(0.0, 0.5)
    epochs = Integer(9, 30)
    batch_size = 16


def library(root: Path) -> AutoVision:
    for number in range(IMAGES):
        pixels = np.random.default_rng(number).integers(60, 160, (72, 72, 3)).astype(np.uint8)
        pixels[..., 2] += 2 * (number % 2)
        path = root / "images" / ("red", "blue")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    av = AutoVision(root / "store")
    av.import_dataset(root / "images", "colours", seed=0)
    return av


# ------------------------------------------------------------------------------------------- processor time


def cpu_s(*names: str) -> float:
    """Of Ray's processes of these names, below this one."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name() in names:
                used = process.cpu_times()
                total += used.user + used.system
    return total


@dataclass
class Ran:
    """What one search took."""

    name: str
    trials: int
    seconds: float
    driver_s: float
    gcs_s: float
    raylet_s: float
    store: CountingStore
    by_trials: list[tuple[int, float]] = field(default_factory=list)
    """trials that had ended, and the driver's processor time by then"""

    def marginal_ms(self, begin: float, end: float) -> float:
        """The driver's processor time for a trial, between two shares of the ledger."""
        inside = [each for each in self.by_trials if begin * self.trials <= each[0] <= end * self.trials]
        (n0, t0), (n1, t1) = inside[0], inside[-1]
        return 1000 * (t1 - t0) / max(1, n1 - n0)


def ran(name: str, space: Space, trials: int, root: Path) -> tuple[Ran, AutoVision]:
    av = library(root)
    search = av.search(
        "colours", space=space, budget_s=3600.0, max_trials=trials, confirm=False, soup=False, wait=False
    ).search
    store = CountingStore(av.store)
    seen: list[tuple[int, float]] = []
    before = time.process_time(), cpu_s("gcs_server"), cpu_s("raylet")
    began = time.time()
    run_search(
        store,
        search,
        on_progress=lambda event: seen.append((event.done, time.process_time())),
    )
    seconds = time.time() - began
    used = (
        time.process_time() - before[0],
        cpu_s("gcs_server") - before[1],
        cpu_s("raylet") - before[2],
    )
    ended = len(av.trials(search))
    return Ran(name, ended, seconds, *used, store, seen), av


def worker_of_one(av: AutoVision) -> CountingStore:
    """What a worker asks the store for one trial, from a fresh start."""
    request, _ = av.searches()[0]
    result = max(av.trials(request.id), key=lambda each: len(each.curve))
    store = CountingStore(av.store)
    task = Assignment(
        store=av.store.uri,
        search="alone",
        trial="alone",
        number=0,
        dataset="colours@1",
        config=TrialConfig.model_validate(result.config),
        metric="accuracy",
        seed=result.seed,
        deadline=time.time() + 600,
        must_report=True,
        search_started=time.time(),
        initial_model=None,
        threads=1,
    )
    execution = Execution(Workbench(store, 1), task)
    while not execution.step()["done"]:
        pass
    return store


# ----------------------------------------------------------------------------------------------- without Ray


@dataclass
class Driven:
    """What the decisions of one search took, on made-up trials and a clock that only the simulation moves."""

    workers: int
    trials: int
    store: CountingStore
    cpu_s: float
    last_ms: float
    """of a processor for each of the last hundred trials"""


def driven(trials: int, workers: int) -> Driven:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.unit.search.driving import Simulation, World, driver_of

    world, store = World(training_s=100.0), CountingStore(MemoryStore())
    driver = driver_of(world, budget_s=1e6, max_trials=trials, store=store)
    times: list[float] = []
    end = driver.ended

    def ended(trial: str) -> None:
        end(trial)
        times.append(time.process_time())

    driver.ended = ended  # type: ignore[method-assign]
    began = time.process_time()
    Simulation(driver, world, workers).run()
    last = times[-min(100, len(times) - 1) - 1 :]
    return Driven(
        workers,
        len(requests.trials(store._store, driver.request.id)),
        store,
        times[-1] - began,
        1000 * (last[-1] - last[0]) / (len(last) - 1),
    )


# ---------------------------------------------------------------------------------------------- without work


def idle_gcs_ms(nodes: int, seconds: float) -> float:
    """Milliseconds of a processor that Ray's head takes each second with so many nodes that do nothing."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        time.sleep(10.0)
        before, began = cpu_s("gcs_server"), time.monotonic()
        time.sleep(seconds)
        return 1000 * (cpu_s("gcs_server") - before) / (time.monotonic() - began)
    finally:
        cluster.shutdown()


@dataclass
class Sharing:
    """What one of several searches asks the store each second to know its share."""

    searches: int
    nodes: int
    requests: float
    bytes: float
    cpu_ms: float


def sharing(searches: int, nodes: int, looks: int) -> Sharing:
    memory = MemoryStore()
    each_has = {"CPU": 8.0, "GPU": 1.0, "memory": 29.5e9, "object_store_memory": 9e9, "node:10.0.0.1": 1.0}
    view = ClusterView(name="here", nodes=(each_has,) * nodes, seen_at=now())
    held, at = [], datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(searches):
        request = SearchRequest(
            dataset="d", dataset_version=1, dataset_digest="0", space={}, budget_s=60, nonce=str(number)
        )
        requests.submit(memory, request)
        held.append(lease.acquire(memory, f"search-{request.id}", "a process", 1e6))
        live = LiveSearch(search=request.id, cluster="here", submitted_at=at, begun_at=at, share=1)
        records.create(memory, keys.live_search(request.id), live)
    store = CountingStore(memory)
    turn = Turn(store, request, at, look=lambda: view.with_(seen_at=now()))
    turn._mine = turn._mine.with_(begun_at=at)
    turn.refresh()
    store.requests.clear()
    store.bytes.clear()
    began = time.process_time()
    for number in range(looks):
        if number % 5 == 0:  # the nodes are looked at every five seconds
            turn._looked -= 10.0
        turn.refresh()
    cpu_ms = 1000 * (time.process_time() - began) / looks
    return Sharing(searches, nodes, store.requests.total() / looks, store.bytes.total() / looks, cpu_ms)


# ------------------------------------------------------------------------------------------------------- main


VERBS = ("GET", "PUT", "LIST", "DELETE")


def by_kind(title: str, store: CountingStore, trials: int = 1) -> None:
    show(
        title,
        ("kind of key", *VERBS, "KB"),
        [
            [
                name,
                *(f"{store.requests[verb, name] / trials:.2f}" for verb in VERBS),
                f"{store.size([name]) / 1000 / trials:.2f}",
            ]
            for name, _ in KINDS
            if any(store.requests[verb, name] for verb in VERBS)
        ],
    )


def plain(counts: Counter[tuple[str, str]]) -> dict[str, int]:
    return {" ".join(key): value for key, value in counts.items()}


def without_ray(trials: list[int], workers: int) -> dict[str, Any]:
    made = [driven(number, workers) for number in trials]
    show(
        f"decisions alone, with {workers:,} places",
        ("trials", *(f"{verb} a trial" for verb in VERBS), "KB a trial", "driver ms a trial", "of the last"),
        [
            [
                f"{each.trials:,}",
                *(
                    f"{each.store.total(verb, [name for name, _ in KINDS]) / each.trials:.2f}"
                    for verb in VERBS
                ),
                f"{each.store.bytes.total() / each.trials / 1000:.2f}",
                f"{1000 * each.cpu_s / each.trials:.1f}",
                f"{each.last_ms:.1f}",
            ]
            for each in made
        ],
    )
    by_kind(f"of each of {made[-1].trials:,} trials", made[-1].store, made[-1].trials)
    shared = [
        sharing(searches, nodes, 5) for searches, nodes in ((1, 3), (10, 3), (50, 3), (1, 1000), (50, 1000))
    ]
    show(
        "what one of several searches asks each second",
        ("searches", "nodes", "requests", "KB", "driver ms"),
        [
            [
                str(each.searches),
                f"{each.nodes:,}",
                f"{each.requests:.1f}",
                f"{each.bytes / 1000:.1f}",
                f"{each.cpu_ms:.1f}",
            ]
            for each in shared
        ],
    )
    return {
        "driven": [
            {
                "workers": each.workers,
                "trials": each.trials,
                "cpu_s": each.cpu_s,
                "last_ms": each.last_ms,
                "requests": plain(each.store.requests),
                "bytes": plain(each.store.bytes),
            }
            for each in made
        ],
        "sharing": [vars(each) for each in shared],
    }


def with_ray(chosen: argparse.Namespace) -> dict[str, Any]:
    done: list[Ran] = []
    with tempfile.TemporaryDirectory() as folder:

        def work() -> CountingStore:
            first, av = ran("fine-tunings", Tunings(), chosen.tunings, Path(folder) / "tunings")
            second, _ = ran("heads", Heads(), chosen.heads, Path(folder) / "heads")
            done.extend((first, second))
            return worker_of_one(av)

        worker = in_a_ray(chosen.cpus, work)
    per_trial = [name for name, _ in KINDS if name not in EACH_SECOND]
    show(
        "what the head of a search does",
        (
            *("search of", "trials", "s", *(f"{verb} a trial" for verb in VERBS), "KB a trial", "GET a s"),
            *("PUT a s", "driver ms a trial", "first → last third", "GCS ms a trial", "raylet ms a trial"),
        ),
        [
            [
                each.name,
                str(each.trials),
                f"{each.seconds:.0f}",
                *(f"{each.store.total(verb, per_trial) / each.trials:.1f}" for verb in VERBS),
                f"{each.store.size(per_trial) / each.trials / 1000:.1f}",
                f"{each.store.total('GET', EACH_SECOND) / each.seconds:.1f}",
                f"{each.store.total('PUT', EACH_SECOND) / each.seconds:.2f}",
                f"{1000 * each.driver_s / each.trials:.0f}",
                f"{each.marginal_ms(0.0, 0.3):.0f} → {each.marginal_ms(0.7, 1.0):.0f}",
                f"{1000 * each.gcs_s / each.trials:.1f}",
                f"{1000 * each.raylet_s / each.trials:.1f}",
            ]
            for each in done
        ],
        "Requests of the driver alone; those of a second are for leases, shares and the view of the cluster.",
    )
    for each in done:
        by_kind(f"requests of the driver, {each.name}", each.store)
    by_kind("requests of the worker of one fine-tuning, with nothing in its memory", worker)
    idle = {nodes: idle_gcs_ms(nodes, chosen.idle_s) for nodes in (1, 3, 5)}
    show(
        "Ray's head without work",
        ("nodes", "GCS, ms of a processor each second"),
        [[str(nodes), f"{ms:.1f}"] for nodes, ms in idle.items()],
    )
    return {
        "searches": [
            {
                "name": each.name,
                "trials": each.trials,
                "seconds": each.seconds,
                "driver_s": each.driver_s,
                "gcs_s": each.gcs_s,
                "raylet_s": each.raylet_s,
                "requests": plain(each.store.requests),
                "bytes": plain(each.store.bytes),
                "by_trials": each.by_trials[:: max(1, len(each.by_trials) // 200)],
            }
            for each in done
        ],
        "worker": plain(worker.requests),
        "idle_gcs_ms": idle,
    }


def in_a_ray(cpus: int, work: Callable[[], Any]) -> Any:
    real = ray.init
    ray.init = lambda *args, **options: real(*args, num_cpus=cpus, **options)
    try:
        runtime.connect()
    finally:
        ray.init = real
    try:
        return work()
    finally:
        runtime.disconnect()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--driven", type=int, nargs="*", default=[100, 400, 1600], help="trials, made up")
    parser.add_argument("--workers", type=int, default=1000, help="places for these")
    parser.add_argument("--without-ray", action="store_true", help="only what needs no Ray")
    parser.add_argument("--tunings", type=int, default=24, help="trials of the first search")
    parser.add_argument("--heads", type=int, default=400, help="trials of the second search")
    parser.add_argument("--cpus", type=int, default=2, help="of Ray")
    parser.add_argument(
        "--idle-s", type=float, default=30.0, help="seconds without work, for each number of nodes"
    )
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.tunings, chosen.heads, chosen.idle_s = 3, 20, 2.0
        chosen.driven, chosen.workers = [20], 10
    figures = without_ray(chosen.driven, chosen.workers)
    if not chosen.without_ray:
        figures |= with_ray(chosen)
    write_json(chosen.json, "head", figures)


if __name__ == "__main__":
    main()
