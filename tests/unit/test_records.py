"""Records that say what an image shows."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from autovision.records.datasets import labels_of, spoken
from autovision.records.deployments import CapturePolicy, Deployment, Label
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
