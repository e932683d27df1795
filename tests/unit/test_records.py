"""Records that say what an image shows."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from autovision.records.datasets import labels_of, spoken
from autovision.records.deployments import CapturePolicy, Deployment, DriftReport, Label, RetrainingPolicy
from autovision.records.gates import GatePolicy

AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_one_label_is_written_as_it_always_was() -> None:
    label = Label(request_id="r", label="cat", received_at=AT)
    assert list(json.loads(label.to_json())) == [
        "request_id",
        "label",
        "annotator",
        "confidence",
        "review",
        "received_at",
    ]
    assert Label.model_validate_json(label.to_json()) == label
    assert (label.labels, spoken(label.label)) == (("cat",), "'cat'")


@pytest.mark.parametrize("given", [(), ("cat",), ("dog", "cat", "dog")])
def test_several_labels_are_written_as_a_list_each_once_and_sorted(given: tuple[str, ...]) -> None:
    label = Label(request_id="r", label=given, received_at=AT)
    written = json.loads(label.to_json())
    assert written["labels"] == sorted(set(given)) and "label" not in written
    assert Label.model_validate_json(label.to_json()) == label == label.with_(annotator="unknown")
    assert label.labels == labels_of(label.label) == tuple(sorted(set(given)))


def test_sets_are_spoken() -> None:
    assert spoken(()) == "none of the classes" and spoken(("a", "b")) == "'a' and 'b'"


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, "Field required"),
        ({"label": "cat", "labels": ["cat"]}, "either label or labels"),
        ({"labels": "cat"}, "labels is a list"),
        ({"labels": [1]}, "valid string"),
    ],
)
def test_what_says_nothing_clear_is_refused(fields: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Label.model_validate({"request_id": "r", "received_at": AT, **fields})


def test_a_deployment_of_before_there_were_limits_has_none() -> None:
    deployment = Deployment(name="d", dataset="d", model=None, space={}, created_at=AT, updated_at=AT)
    written = json.loads(deployment.to_json())
    del written["gate_policy"]
    written["capture_policy"] = {"share": 0.5, "pixels": False}
    read = Deployment.model_validate(written)
    assert read.gate_policy == GatePolicy() and not read.gate_policy.measures
    assert read.capture_policy == CapturePolicy(share=0.5, pixels=False) and not read.capture_policy.forgets


def test_a_policy_of_before_has_the_rate_of_its_alpha() -> None:
    assert RetrainingPolicy.model_validate({"alpha": 0.01, "window": 50}).windows_per_false_alarm == 100
    assert RetrainingPolicy.model_validate({"alpha": 0.5}).windows_per_false_alarm == 10
    assert RetrainingPolicy.model_validate_json(b'{"alpha": 0.001}') == RetrainingPolicy()
    with pytest.raises(ValidationError, match="alpha is a probability"):
        RetrainingPolicy.model_validate({"alpha": 2})


def test_a_drift_report_of_before_has_one_score_and_no_detectors() -> None:
    written = {
        "id": "r",
        "deployment": "d",
        "model": "m",
        "n": 100,
        "reference_n": 200,
        "first_request": "a",
        "last_request": "b",
        "window_start": "2026-01-01T00:00:00Z",
        "window_end": "2026-01-01T01:00:00Z",
        "score": 0.4,
        "threshold": 0.1,
        "p_value": 0.0002,
        "alpha": 0.001,
        "alarm": True,
        "details": {"mean_confidence": 0.9},
        "created_at": "2026-01-01T01:00:01Z",
    }
    report = DriftReport.model_validate_json(json.dumps(written))
    assert report.alarm and report.detectors == report.alarming == ()
    assert DriftReport.model_validate_json(report.to_json()) == report
