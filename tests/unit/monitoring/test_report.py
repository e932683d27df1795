from datetime import UTC, datetime

import numpy as np
import pytest

from autovision.errors import InvalidInput
from autovision.monitoring.report import examine
from autovision.records.deployments import DriftReport

AT = datetime(2026, 1, 2, tzinfo=UTC)


def run(reference, captures, **kwargs):
    return examine("solar", "m1", reference, captures, alpha=0.01, seed=0, clock=lambda: AT, **kwargs)


def test_a_shifted_window_is_reported(capture, embeddings):
    rng = np.random.default_rng(0)
    rows = embeddings(40, rng, 2.0)
    captures = [
        capture(i, embedding=row, label="ok" if i < 10 else "defective") for i, row in enumerate(rows)
    ]
    report = run(embeddings(200, rng), captures[::-1], reference_confidence=0.9)
    assert report.alarm and report.score >= report.threshold and report.p_value <= 0.01
    assert (report.n, report.reference_n, report.alpha) == (40, 100, 0.01)
    assert (report.first_request, report.last_request) == ("r0000", "r0039")
    assert (report.window_start, report.window_end) == (captures[0].received_at, captures[-1].received_at)
    assert report.created_at == AT and report.id.startswith("20260102T")
    assert report.details == pytest.approx(
        {
            "mean_confidence": 0.75,
            "reference_confidence": 0.9,
            "prediction_rate[ok]": 0.25,
            "prediction_rate[defective]": 0.75,
        }
    )
    assert DriftReport.model_validate_json(report.to_json()) == report


def test_a_window_like_the_reference_is_silent(capture, embeddings):
    rng = np.random.default_rng(0)
    report = run(
        embeddings(200, rng), [capture(i, embedding=row) for i, row in enumerate(embeddings(40, rng))]
    )
    assert not report.alarm
    assert "reference_confidence" not in report.details
    assert report.details["prediction_rate[defective]"] == 0


def test_answers_of_another_model_are_refused(capture, embeddings):
    reference = embeddings(100, np.random.default_rng(0))
    with pytest.raises(InvalidInput, match="answers of m2 besides m1"):
        run(reference, [capture(0, embedding=reference[0]), capture(1, model="m2", embedding=reference[1])])
    with pytest.raises(InvalidInput, match="no captured requests"):
        run(reference, [])


def test_embeddings_of_another_width_are_refused(capture, embeddings):
    reference = embeddings(100, np.random.default_rng(0))
    with pytest.raises(InvalidInput, match="60 numbers and the window's 2"):
        run(reference, [capture(0), capture(1)])
    with pytest.raises(InvalidInput, match="same length"):
        run(reference, [capture(0), capture(1, embedding=(1.0, 2.0, 3.0))])


def test_a_window_of_any_number_of_classes_is_reported(capture, embeddings):
    rng = np.random.default_rng(0)
    said = [((), {"a": 0.1, "b": 0.3}), (("a", "b"), {"a": 0.9, "b": 0.7})]
    captures = [
        capture(i, embedding=row).with_(label=said[i % 2][0], probabilities=said[i % 2][1])
        for i, row in enumerate(embeddings(40, rng))
    ]
    report = run(embeddings(200, rng), captures)
    assert report.details == pytest.approx(
        {"mean_confidence": 0.8, "prediction_rate[a]": 0.5, "prediction_rate[b]": 0.5}
    )
