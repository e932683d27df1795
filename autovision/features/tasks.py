"""Ray tasks that help to fill a table: the only module of features that knows Ray.

A process that computes missing rows asks for a task on every CPU, or GPU, that is idle. Each works on other chunks,
by the same leases as everybody; the one who asked computes, too, and waits for no task to begin. Whoever ends
first leaves the others nothing to do. Without a connection to Ray, or with a store that other processes cannot
open, nothing happens.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import ray
import torch

from autovision.features.budget import NoRoom
from autovision.features.compute import FeatureSource, OutOfTime, Work
from autovision.model.backbone import LoadedBackbone
from autovision.model.inference import native_precision
from autovision.records.models import Preprocessing
from autovision.store.open import open_store

_FEWEST_CHUNKS = 4
"""a process takes seconds to load and compile a network: for less work nobody is asked"""


@dataclass(frozen=True)
class Assignment:
    """What a task is told, besides the backbone, which travels once for all tasks."""

    store: str
    name: str
    preprocessing: Preprocessing
    threads: int
    budget_bytes: int | None
    work: Work


@contextlib.contextmanager
def idle_workers(source: FeatureSource, work: Work) -> Iterator[None]:
    """The `helpers` of a `FeatureSource`: a task on each idle CPU, or GPU, until the context ends."""
    tasks = _submit(source, work)
    try:
        yield
    finally:
        for task in tasks:
            ray.cancel(task)


def _submit(source: FeatureSource, work: Work) -> list[ray.ObjectRef]:
    shared = not source.store.uri.startswith("memory:")
    if not shared or work.chunks < _FEWEST_CHUNKS or not ray.is_initialized():
        return []
    # Of what the caller takes itself one chunk is left.
    number, resources = placement(ray.available_resources(), work.chunks - 1, source.threads)
    if number == 0:
        return []
    assignment = Assignment(
        source.store.uri,
        source.name,
        source.preprocessing,
        int(resources["num_cpus"]),
        source.budget_bytes,
        work,
    )
    loaded = ray.put(source.loaded)
    # By default a task of a trial would be put into the trial's own placement group, where no room is left.
    task = ray.remote(compute).options(scheduling_strategy="DEFAULT", max_retries=0, **resources)
    return [task.remote(loaded, assignment) for _ in range(number)]


def placement(idle: dict[str, float], most: int, threads: int) -> tuple[int, dict[str, float]]:
    """How many tasks idle resources have room for, at most `most`, and what each takes: a GPU where there is one."""
    cpus, gpus = math.floor(idle.get("CPU", 0.0)), math.floor(idle.get("GPU", 0.0))
    if gpus:
        number = min(gpus, cpus, most)
        return number, {"num_cpus": float(max(1, min(threads, cpus // max(1, number)))), "num_gpus": 1.0}
    return min(cpus, most), {"num_cpus": 1.0}


def compute(loaded: LoadedBackbone, assignment: Assignment) -> int:
    """Compute chunks until none is missing; how many rows were computed here."""
    if any(spec.precision not in ("", native_precision()) for spec in assignment.work.specs):
        return 0  # what this node computes would be another feature
    source = FeatureSource(
        open_store(assignment.store),
        loaded,
        assignment.name,
        assignment.preprocessing,
        assignment.threads,
        assignment.budget_bytes,
    )
    torch.set_num_threads(assignment.threads)
    with contextlib.suppress(OutOfTime, NoRoom):  # who asked finds out by itself
        source.help(assignment.work)
    return source.computed
