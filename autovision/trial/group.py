"""A trial of several workers: a Tune trial that runs Ray Train's workers inside it, and speaks for them.

    Tune ── TrialGroup ── TorchTrainer.fit, in a thread ── workers, each with an `Execution`
                 └────────────── Desk ──────────────────────┘

At each rung the workers wait at the desk for the word to go on. If some are lost, Ray Train starts all of them
again, and they go on from their checkpoint in the store. If the node of the trial itself is lost, or the desk's, the
search begins it once more. The trial itself takes no CPU; its workers do.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import ray
from ray import train, tune
from ray.train.torch import TorchTrainer

from autovision.trial.assignment import Assignment, without_value
from autovision.trial.desk import Desk

_LOSSES = 3
"""so often may a trial lose workers"""
_LOOK_S = 0.5
"""between two looks of Ray Train at its workers, and of a trial at the clock"""
_ROOM_S = 60.0
"""so long a trial waits for nodes in the place of those that it lost"""
_COUNT_S = 5.0
"""between two looks at the nodes"""
_END_S = 30.0
"""workers that were told to stop have this long; then they are killed with their trial"""


def work(settings: dict[str, Any]) -> None:
    """What each worker does."""
    # What trains is slow to load, and the workers alone need it.
    from autovision.trial.distributed import carry_out

    carry_out(settings)


class TrialGroup(tune.Trainable):  # type: ignore[misc]
    """Has workers carry out one assignment; like a `TrialWorker` to Tune, but never used for a second one."""

    def setup(self, config: dict[str, Any]) -> None:
        self._task = Assignment.model_validate(config["assignment"])
        self._started = time.time()
        self._waits = False
        self._counted = self._had_room = time.monotonic()
        # Train's controller reads it here; by default a trial would end two seconds late.
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(_LOOK_S))
        self._desk = ray.remote(num_cpus=0)(Desk).remote(self._task.before)
        self._scratch = tempfile.TemporaryDirectory(prefix="autovision-train-")
        self._run = threading.Thread(target=self._train, name="workers", daemon=True)
        self._run.start()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: workers keep their checkpoints in the store."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing: see `save_checkpoint`."""

    def _train(self) -> None:
        error = None
        try:
            self._trainer().fit()
        except Exception as failure:  # noqa: BLE001 - it is told to whoever waits for news, whatever it is
            error = str(failure)
        ray.get(self._desk.ended.remote(error))

    def _trainer(self) -> TorchTrainer:
        task = self._task
        resources = {"CPU": task.threads} | ({"GPU": 1} if task.gpu else {})
        return TorchTrainer(
            work,
            train_loop_config={
                "assignment": task.model_dump(mode="json"),
                "desk": self._desk,
                "started": self._started,
            },
            scaling_config=train.ScalingConfig(
                num_workers=task.workers, use_gpu=task.gpu, resources_per_worker=resources
            ),
            run_config=train.RunConfig(
                # A run of a known name would go on with what is left of that one.
                name=f"{task.trial}-{uuid.uuid4().hex[:8]}",
                storage_path=self._scratch.name,
                failure_config=train.FailureConfig(max_failures=_LOSSES),
            ),
        )

    def step(self) -> dict[str, Any]:
        """One rung."""
        if self._waits:
            ray.get(self._desk.go_on.remote())
        while (news := ray.get(self._desk.news.remote(_LOOK_S))) is None:
            if time.time() >= self._task.deadline and not ray.get(self._desk.started.remote()):
                return without_value("stopped", self._no_room(), self._started)
            if (fault := self._lost_room()) is not None:
                return without_value("failed", fault, self._started)
        if "outcome" not in news:
            error = news["error"] or "its workers ended without a result; see Ray's logs for the cause"
            return without_value("failed", error, self._started)
        self._waits = True
        return dict(news)

    def _no_room(self) -> str:
        return (
            f"the budget ended before {self._task.workers} workers with {self._each} each could start; "
            f"free in the cluster is {_told(ray.available_resources())}"
        )

    @property
    def _each(self) -> str:
        return f"{self._task.threads} CPUs" + (" and a GPU" if self._task.gpu else "")

    def _lost_room(self) -> str | None:
        """What to say when the nodes that there are have had no room for the workers for long; None: they have."""
        now = time.monotonic()
        if now - self._counted < _COUNT_S:
            return None
        self._counted = now
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if room_for(nodes, self._task.threads, self._task.gpu) >= self._task.workers:
            self._had_room = now
        if now - self._had_room < _ROOM_S:
            return None
        return (
            f"its {self._task.workers} workers need {self._each} each, and for {now - self._had_room:.0f} s the "
            f"cluster has had {_told(ray.cluster_resources())}, as nodes were lost; join others, or ask for fewer "
            "workers per trial"
        )

    def cleanup(self) -> None:
        """End the workers, wherever they are."""
        ray.get(self._desk.stop.remote())
        self._run.join(_END_S)
        self._scratch.cleanup()


def room_for(nodes: Iterable[Mapping[str, float]], cpus: int, gpu: bool) -> int:
    """How many workers nodes have room for, whatever else runs there."""
    return sum(
        int(min(node.get("CPU", 0.0) // cpus, node.get("GPU", 0.0) if gpu else math.inf)) for node in nodes
    )


def _told(resources: dict[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
