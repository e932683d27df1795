"""The rate of false alarms over time, of all detectors and scales together, in simulated deployments without drift."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from scipy import stats

from autovision.monitoring import quality
from autovision.monitoring.reference import Reference
from autovision.monitoring.report import Observed, examine
from autovision.monitoring.rows import Rows
from autovision.records.deployments import Capture, DriftReport
from autovision.registry.evaluate import Predictions

RATE = 20.0
WINDOWS = 40
DEPLOYMENTS = 30
START = datetime(2026, 1, 1, tzinfo=UTC)
CLASSES = ("a", "b", "c")
MIXING = np.random.default_rng(99).normal(size=(12, 60))


def images(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Embeddings, answers, looks and labels that all hang together, as those of images do."""
    hidden = rng.normal(size=(n, 12))
    logits = 2 * hidden[:, :3]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    figures = np.exp(0.3 * hidden[:, [0] * len(quality.FIGURES)] + rng.normal(size=(n, len(quality.FIGURES))))
    figures[:, -1] = rng.random(n) < 0.02
    labels = np.array([rng.choice(3, p=each) for each in p])
    embeddings = np.maximum(hidden @ MIXING + rng.normal(size=(n, 60)), -2.0)
    return {"embeddings": embeddings, "p": p, "figures": figures, "labels": labels}


def deployment(seed: int) -> list[DriftReport]:
    rng = np.random.default_rng(seed)
    held = images(300, rng)
    reference = Reference.of(
        "m",
        CLASSES,
        held["embeddings"],
        held_out=Predictions(tuple(map(str, range(300))), held["labels"], held["p"], {}),
        figures=held["figures"],
    )
    reports: list[DriftReport] = []
    rows: dict[str, Rows] = {}
    for number in range(WINDOWS):
        at, sent = START + timedelta(hours=number), images(50, rng)
        captures = [
            _capture(i, at, p, row)
            for i, (p, row) in enumerate(zip(sent["p"], sent["embeddings"], strict=True))
        ]
        labelled = rng.permutation(50)[: rng.integers(0, 12)]
        observed = Observed(
            captures,
            {f"r{i}": row for i, row in enumerate(sent["figures"])},
            [
                (bool(sent["p"][i].argmax() == sent["labels"][i]), float(sent["p"][i].max()), False)
                for i in labelled
            ],
        )
        report, kept = examine(
            "d",
            reference,
            observed,
            windows_per_false_alarm=RATE,
            clock=lambda at=at: at,  # type: ignore[misc]
            before=reports,
            read=lambda wanted: {which: rows[which] for which in wanted},
        )
        assert report.rows is not None
        rows[report.rows] = kept
        reports.append(report)
    return reports


def _capture(i: int, at: datetime, p: np.ndarray, embedding: np.ndarray) -> Capture:
    fields: dict[str, Any] = {
        "request_id": f"r{i}",
        "deployment": "d",
        "model": "m",
        "received_at": at + timedelta(seconds=i),
        "latency_ms": 1.0,
        "image": f"{i:064x}",
        "label": CLASSES[int(p.argmax())],
        "probabilities": dict(zip(CLASSES, p.tolist(), strict=True)),
        "embedding": tuple(embedding.tolist()),
    }
    return Capture(**fields)


@pytest.mark.timeout(3600)
def test_false_alarms_are_no_more_than_stated() -> None:
    """1,200 windows; one deployment with an unlucky reference must not make for all of them either."""
    found = [deployment(seed) for seed in range(DEPLOYMENTS)]
    alarms = [sum(report.alarm for report in reports) for reports in found]
    total = DEPLOYMENTS * WINDOWS
    assert stats.binomtest(sum(alarms), total, 1 / RATE, alternative="greater").pvalue > 0.001
    assert sum(alarms) > 0, "a rate of nought would be no calibrated rate"
    assert max(alarms) <= 12, "2 are expected of each"
