"""What a search is ranked by, where that is more than the metrics that every rung reports."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from autovision.decisions import Measure
from autovision.metrics import METRICS
from autovision.records.searches import Costs
from autovision.trial.loss import probabilities
from autovision.trial.splits import DataSplits
from autovision.trial.train import RungReport


def with_measure(report: RungReport, splits: DataSplits, metric: str, costs: Costs | None) -> RungReport:
    """The report, with this metric among its metrics unless it is undefined on validation."""
    if metric in METRICS:
        return report
    split = splits.validation
    said = probabilities(torch.from_numpy(report.logits), multi_label=split.multi_label).double().numpy()
    rows = split.counted
    value = Measure.of(metric, costs, splits.version.classes)(said[rows], split.truth[rows], splits.positive)
    return report if math.isnan(value) else replace(report, metrics={**report.metrics, metric: value})
