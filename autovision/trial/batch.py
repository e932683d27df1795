"""Heads that are trained together, as one assignment: one report tells of all of them."""

from __future__ import annotations

import json
import math
import time
import traceback
from typing import Any

import torch

from autovision.errors import AutoVisionError
from autovision.features.compute import OutOfTime
from autovision.model import bundle
from autovision.trial.assignment import Assignment, without_value
from autovision.trial.execution import objective_of
from autovision.trial.fused import FittedHead, HeadProblem, fit_heads
from autovision.trial.measured import with_measure
from autovision.trial.pooled import load_pooled
from autovision.trial.teaching import taught
from autovision.trial.trial import weights_key
from autovision.trial.workbench import Workbench

_KEPT = 4
"""of so many heads of a batch, the best ones, the weights are stored: the winner may be among them, and who else
might be averaged with it; every other one can be trained again from its record"""


class HeadBatch:
    """An assignment with several heads, while it is carried out."""

    def __init__(self, bench: Workbench, task: Assignment) -> None:
        self._bench, self._task = bench, task
        self._started = time.time()
        self._feature_s = 0.0

    def step(self) -> dict[str, Any]:
        """All of it, as a flat mapping for Tune. A failure is a result, too: the worker lives on."""
        try:
            return self._advance()
        except OutOfTime:
            error = "the budget ended before the first rung"
            return without_value("stopped", error, self._started, self._feature_s)
        except AutoVisionError as error:
            return without_value("failed", str(error), self._started, self._feature_s)
        except Exception:  # noqa: BLE001 - whatever it is, it is these heads' failure alone
            text = traceback.format_exc(limit=8)
            return without_value("failed", text, self._started, self._feature_s)

    def _advance(self) -> dict[str, Any]:
        task, configs = self._task, [head.config for head in self._task.heads]
        problem = self._problem()
        self._feature_s = time.time() - self._started
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        fitted = fit_heads(configs, problem, task.seed, task.deadline, device)
        seconds = time.time() - self._started
        told = [self._told(head, seconds) for head in fitted]
        values = [each["objective"] for each in told if each["objective"] is not None]
        for index in sorted(range(len(told)), key=lambda i: -_rank(told[i]))[:_KEPT]:
            if fitted[index].tensors and fitted[index].reports:
                told[index]["weights_key"] = self._keep(index, fitted[index])
        return {
            "outcome": "complete",
            "objective": max(values, default=float("nan")),
            "heads": json.dumps(told),
            "notes": list(self._bench.source(task.config).take_notes()),
            "done": True,
            "seconds": seconds,
            "feature_s": self._feature_s,
        }

    def _problem(self) -> HeadProblem:
        task, configs = self._task, [head.config for head in self._task.heads]
        splits = self._bench.splits(task.dataset, task.champion)
        source, channels = self._bench.source(task.config), self._bench.channels(task.config)
        until = math.inf if task.must_report else task.deadline
        learnt = taught(self._bench, splits, splits.train, configs, deadline=until)
        train, validation = (
            load_pooled(source, split, configs, channels, training=training, deadline=until)
            for split, training in ((learnt, True), (splits.validation, False))
        )
        return HeadProblem(train, validation, channels, splits.positive)

    def _told(self, head: FittedHead, seconds: float) -> dict[str, Any]:
        """Of one head: every rung and the value there."""
        task = self._task
        try:
            splits = self._bench.splits(task.dataset, task.champion)
            reports = [with_measure(report, splits, task.metric, task.costs) for report in head.reports]
            objectives = [objective_of(report, task.metric) for report in reports]
        except AutoVisionError as error:
            return {"outcome": "failed", "error": str(error), "objective": None, "points": []}
        points = []
        for report, objective in zip(reports, objectives, strict=True):
            # All heads of a batch get on together: each has taken its share of what is done by then.
            share = (
                (seconds - self._feature_s) / len(task.heads) * min(1.0, report.epoch / head.config.epochs)
            )
            point = {
                "rung": report.rung,
                "epoch": report.epoch,
                "judged_epoch": report.judged_epoch,
                "seconds": self._feature_s / len(task.heads) + share,
                "search_s": time.time() - task.search_started,
                "train_loss": report.train_loss,
                "metrics": report.metrics,
            }
            points.append([point, objective])
        cut_short = (
            bool(head.reports) and head.reports[-1].epoch < head.config.epochs and not head.config.patience
        )
        outcome = "failed" if head.error else "stopped" if cut_short else "complete"
        last = objectives[-1] if objectives and not head.error else None
        return {
            "outcome": outcome,
            "error": head.error,
            "objective": last,
            "points": points,
            "weights_key": None,
        }

    def _keep(self, index: int, head: FittedHead) -> str:
        data = bundle.tensors_file(head.tensors)
        key = weights_key(self._task.search, self._task.heads[index].trial, data)
        self._bench.store.put_immutable(key, data)
        return key


def _rank(told: dict[str, Any]) -> float:
    value = told["objective"]
    return -math.inf if value is None or math.isnan(value) else float(value)
