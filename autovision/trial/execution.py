"""An assignment carried out, rung by rung: what a worker does, whether it is alone or one of several."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator
from typing import Any

from autovision.errors import AutoVisionError
from autovision.features.compute import OutOfTime
from autovision.store import keys
from autovision.trial.assignment import Assignment, Reported, without_value
from autovision.trial.checkpoint import Slot
from autovision.trial.measured import with_measure
from autovision.trial.step import NotFinite
from autovision.trial.train import RungReport
from autovision.trial.trial import Trial, weights_key
from autovision.trial.workbench import Workbench
from autovision.trial.world import World


class Execution:
    """One assignment while it is carried out.

    Args:
        bench: what the process keeps between assignments.
        world: the workers that train together.
        started: when the assignment was given, in seconds since the epoch; None: now.
        before: what workers before these had reported.
    """

    def __init__(
        self,
        bench: Workbench,
        task: Assignment,
        *,
        world: World | None = None,
        started: float | None = None,
        before: Reported | None = None,
    ) -> None:
        self._bench, self._task, self._world = bench, task, world or World()
        self._before = before or task.before
        # What was done before counts.
        self._started = (time.time() if started is None else started) - self._before.seconds
        self._best, self._weights = self._before.objective, self._before.weights_key
        self._trial: Trial | None = None
        self._reports: Iterator[RungReport] = iter(())

    def step(self) -> dict[str, Any]:
        """One rung, as a flat mapping for Tune. A failure is a result, too: the worker lives on.

        Raises:
            Exception: whatever this worker alone failed with while others wait for it; they have to begin again.
        """
        try:
            return self._advance()
        except Exception as error:
            if not self._world.is_joint(error):
                raise
            match error:
                case OutOfTime():
                    return self._without_value("stopped", "the budget ended before the first rung")
                case NotFinite() | AutoVisionError():
                    return self._without_value("failed", str(error))
                case _:
                    return self._without_value("failed", traceback.format_exc(limit=8))

    def _without_value(self, outcome: str, error: str) -> dict[str, Any]:
        return without_value(outcome, error, self._started, self._feature_s)

    def _advance(self) -> dict[str, Any]:
        task = self._task
        if self._trial is None:
            self._trial = self._world.jointly(self._begin)
            slot = Slot(self._bench.store, keys.checkpoint(task.search, task.config.digest, task.seed))
            self._reports = self._trial.run(world=self._world, slot=slot)
        trial, told = self._trial, next(self._reports)
        report = self._world.jointly(lambda: with_measure(told, trial.splits, task.metric, task.costs))
        if report.last:
            next(self._reports, None)  # to its end, where the checkpoint is cleared away
        objective = self._world.jointly(lambda: objective_of(report, task.metric))
        if self._best is None or objective > self._best:
            self._best = objective
            self._keep(self._trial)
        point = {
            "rung": report.rung,
            "epoch": report.epoch,
            "judged_epoch": report.judged_epoch,
            "seconds": time.time() - self._started,
            "search_s": time.time() - task.search_started,
            "train_loss": report.train_loss,
            "metrics": report.metrics,
        }
        cut_short = report.last and report.epoch < task.config.epochs
        return {
            "outcome": ("stopped" if cut_short else "complete") if report.last else "running",
            "objective": objective,
            "point": json.dumps(point),  # as text: Tune would flatten a mapping into a hundred columns
            "weights_key": self._weights,
            "notes": [*self._notes(), *self._trial.notes],
            "done": report.last,
            "seconds": time.time() - self._started,
            "feature_s": self._feature_s,
        }

    @property
    def _feature_s(self) -> float:
        return self._before.feature_s + (self._trial.feature_s if self._trial else 0.0)

    def _begin(self) -> Trial:
        task = self._task
        return Trial(
            self._bench,
            task.dataset,
            task.config,
            task.seed,
            task.deadline,
            initial=task.initial_model,
            champion=task.champion,
            must_report=task.must_report,
            parts=task.parts,
        )

    def _keep(self, trial: Trial) -> None:
        """Store what is trained so far: the search has a model from the first rung on."""
        if self._world.rank > 0:
            return
        data = trial.trained()
        self._weights = weights_key(self._task.search, self._task.trial, data)
        self._bench.store.put_immutable(self._weights, data)

    def _notes(self) -> list[str]:
        notes = [f"trained by {self._world.size} workers"] if self._world.size > 1 else []
        if times := self._before.losses:
            again = "all were started again" if self._world.size > 1 else "the trial was begun again"
            half = f", each batch in {self._task.parts} parts for less memory" if self._task.parts > 1 else ""
            notes.append(f"a worker was lost{'' if times == 1 else f' {times} times'}, and {again}{half}")
        return notes


def objective_of(report: RungReport, metric: str) -> float:
    """What a report is worth. Raises `AutoVisionError` where the metric is not defined."""
    if metric not in report.metrics:
        raise AutoVisionError(
            f"metric {metric!r} is not defined on this validation split; choose another metric"
        )
    return value_of(report.metrics, metric)


def value_of(metrics: dict[str, float], metric: str) -> float:
    """What trials are ranked by: the metric, less a fiftieth of the log loss.

    On a few hundred validation images many trials tie in a counting metric such as accuracy; the log loss
    tells them apart and steadies the choice.
    """
    return metrics[metric] - 0.02 * min(-metrics["neg_log_loss"], 5.0)
