"""The actor that runs trials one after the other; the only file of this package that knows Ray."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator
from typing import Any

import torch
from ray import tune

from autovision.errors import AutoVisionError
from autovision.features import budget, tasks
from autovision.features.compute import OutOfTime
from autovision.records import Record
from autovision.space.config import TrialConfig
from autovision.store import keys
from autovision.store.open import open_store
from autovision.trial.checkpoint import Slot
from autovision.trial.step import NotFinite
from autovision.trial.train import RungReport
from autovision.trial.trial import Trial, Workbench, weights_key


class Assignment(Record):
    """What a worker is told to do: plain data, so that it can be sent to any node."""

    store: str
    search: str
    trial: str
    number: int
    dataset: str
    """`name@version`"""
    config: TrialConfig
    metric: str
    seed: int
    deadline: float
    """seconds since the epoch"""
    must_report: bool
    """compute features past the deadline, too: without this trial the search might end with nothing"""
    search_started: float
    """when the search would have begun, had it never been interrupted; seconds since the epoch"""
    initial_model: str | None
    threads: int


class TrialWorker(tune.Trainable):  # type: ignore[misc]
    """Runs an assignment rung by rung; between assignments it keeps backbones and feature tables."""

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
        self._task = Assignment.model_validate(config["assignment"])
        torch.set_num_threads(self._task.threads)
        if self._bench is None or self._bench.store.uri != self._task.store:
            self._bench = Workbench(
                open_store(self._task.store),
                self._task.threads,
                budget.configured_bytes(),
                tasks.idle_workers,
            )
        self._started = time.time()
        self._steps: Iterator[RungReport] | None = None
        self._best: float | None = None
        self._weights: str | None = None

    def step(self) -> dict[str, Any]:
        """One rung. A failure is a result, too: the worker lives on."""
        try:
            return self._advance()
        except OutOfTime:
            return self._without_value("stopped", "the budget ended before the first rung")
        except (NotFinite, AutoVisionError) as error:
            return self._without_value("failed", str(error))
        except Exception:  # noqa: BLE001 - whatever a configuration does must not take the search down
            return self._without_value("failed", traceback.format_exc(limit=8))

    def _without_value(self, outcome: str, error: str) -> dict[str, Any]:
        # Tune insists on the metric in every report.
        return {"outcome": outcome, "error": error, "objective": float("nan"), "done": True, **self._spent()}

    def _advance(self) -> dict[str, Any]:
        task = self._task
        if self._steps is None:
            assert self._bench is not None
            self._trial = Trial(
                self._bench,
                task.dataset,
                task.config,
                task.seed,
                task.deadline,
                initial=task.initial_model,
                must_report=task.must_report,
            )
            slot = Slot(self._bench.store, keys.checkpoint(task.search, task.config.digest, task.seed))
            self._steps = self._trial.run(slot=slot)
        report = next(self._steps)
        value = report.metrics.get(task.metric)
        if value is None:
            raise AutoVisionError(
                f"metric {task.metric!r} is not defined on this validation split; choose another metric"
            )
        point = {
            "rung": report.rung,
            "epoch": report.epoch,
            "seconds": time.time() - self._started,
            "search_s": time.time() - task.search_started,
            "train_loss": report.train_loss,
            "metrics": report.metrics,
        }
        objective = value_of(report.metrics, task.metric)
        if self._best is None or objective > self._best:
            self._best = objective
            self._keep()
        cut_short = report.last and report.epoch < task.config.epochs
        return {
            "outcome": ("stopped" if cut_short else "complete") if report.last else "running",
            "objective": objective,
            "point": json.dumps(point),  # as text: Tune would flatten a mapping into a hundred columns
            "weights_key": self._weights,
            "notes": list(self._trial.notes),
            "done": report.last,
            **self._spent(),
        }

    def _keep(self) -> None:
        """Store what is trained so far: the search has a model from the first rung on."""
        assert self._bench is not None
        data = self._trial.trained()
        self._weights = weights_key(self._task.search, self._task.trial, data)
        self._bench.store.put_immutable(self._weights, data)

    def _spent(self) -> dict[str, float]:
        trial = getattr(self, "_trial", None)
        return {"seconds": time.time() - self._started, "feature_s": trial.feature_s if trial else 0.0}


def value_of(metrics: dict[str, float], metric: str) -> float:
    """What trials are ranked by: the metric, less a fiftieth of the log loss.

    On a few hundred validation images many trials tie in a counting metric such as accuracy; the log loss
    tells them apart and steadies the choice.
    """
    return metrics[metric] - 0.02 * min(-metrics["neg_log_loss"], 5.0)
