"""The actor that carries out assignments of one worker, one after the other."""

from __future__ import annotations

from typing import Any

import torch
from ray import tune

from autovision.features import budget, tasks
from autovision.store.open import open_store
from autovision.trial.assignment import Assignment
from autovision.trial.batch import HeadBatch
from autovision.trial.execution import Execution
from autovision.trial.memory import share_gpu
from autovision.trial.workbench import Workbench


class TrialWorker(tune.Trainable):  # type: ignore[misc]
    """Runs an assignment rung by rung, or heads all at once; between two it keeps backbones and feature tables."""

    def setup(self, config: dict[str, Any]) -> None:
        self._bench: Workbench | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: what a trial trained is in the store after every rung."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing: see `save_checkpoint`."""

    def _begin(self, config: dict[str, Any]) -> None:
        task = Assignment.model_validate(config["assignment"])
        torch.set_num_threads(task.threads)
        share_gpu(task.gpu_share)
        if self._bench is None or self._bench.store.uri != task.store:
            self._bench = Workbench(
                open_store(task.store), task.threads, budget.configured_bytes(), tasks.idle_workers
            )
        self._work = HeadBatch(self._bench, task) if task.heads else Execution(self._bench, task)

    def step(self) -> dict[str, Any]:
        return self._work.step()
