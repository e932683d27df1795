"""A drift report as a page."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from PIL import Image

from autovision.monitoring import quality
from autovision.records.deployments import (
    AccuracyEstimate,
    DetectorVerdict,
    DriftReport,
    LabelledAccuracy,
    Moved,
    UnlikeImage,
)
from autovision.report.detector_words import figure_words
from autovision.report.drift_page import render

AT = datetime(2026, 3, 1, tzinfo=UTC)


def png() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (30, 20), (200, 10, 10)).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture
def report() -> DriftReport:
    moved = Moved(kind="subgroup", name="line=<b>new", window=0.97, reference=0.5, n=40, p_value=1e-9)
    verdict = DetectorVerdict(
        name="input",
        alarm=True,
        score=0.4,
        threshold=0.01,
        p_value=0.0002,
        alpha=0.0002,
        n=100,
        reference_n=187,
        moved=(moved,),
    )
    return DriftReport(
        id="r",
        deployment="door",
        model="m",
        n=100,
        reference_n=187,
        first_request="a",
        last_request="b",
        window_start=AT,
        window_end=AT,
        score=0.4,
        threshold=0.01,
        p_value=0.0002,
        alpha=0.0002,
        alarm=True,
        created_at=AT,
        detectors=(verdict, verdict.with_(name="quality", alarm=False, moved=())),
        windows_per_false_alarm=1000,
        unlike=(
            UnlikeImage(
                request_id="r1", image="1" * 64, unlikeness=1.0, why="exposure 0.9, usually 0.1 to 0.3"
            ),
            UnlikeImage(request_id="r2", image="2" * 64, unlikeness=0.99),
            UnlikeImage(request_id="r3", image="3" * 64, unlikeness=0.98),
        ),
        typical=("4" * 64, "5" * 64),
        estimate=AccuracyEstimate(
            value=0.7, low=0.6, high=0.8, by_difference=0.72, held_out=0.86, n=100, held_out_n=200
        ),
        accuracy=LabelledAccuracy(
            value=0.3,
            low=0.2,
            high=0.5,
            n=20,
            expected=0.8,
            held_out=0.86,
            reviewed=5,
            confidence=0.8,
            confidence_of_all=0.82,
        ),
        notes=("the images of 2 of 100 requests are not kept",),
    )


def test_the_page_shows_verdicts_changes_and_both_kinds_of_images(report: DriftReport) -> None:
    page = render(report, {"1" * 64: png(), "2" * 64: b"damaged", "4" * 64: png()})
    assert page.count("data:image/jpeg;base64,") == 2, "one unlike, one typical"
    assert "cannot be shown" in page and "the image is not kept" in page
    assert "line=&lt;b&gt;new" in page and "<b>new" not in page
    assert "in one of 1000 windows" in page and "exposure 0.9, usually 0.1 to 0.3" in page
    assert "By 20 new labels 0.300" in page and "Estimated without labels 0.700" in page
    assert "2 of 100 requests are not kept" in page
    assert "http" not in page.replace("http-equiv", ""), "it asks nobody for anything"


def test_older_reports_are_shown_as_far_as_they_go(report: DriftReport) -> None:
    older = report.with_(
        detectors=(),
        windows_per_false_alarm=None,
        unlike=(),
        typical=(),
        estimate=None,
        accuracy=None,
        notes=(),
    )
    page = render(older, {})
    assert "DRIFT in the last 100 requests (score 0.4000" in page and "probability 0.0002" in page


def test_an_alarm_says_what_a_person_may_do(report: DriftReport) -> None:
    page = render(report, {})
    assert "autovision labels review door --to FOLDER" in page and "autovision adapt door" in page
    assert "Alarm of input. What moved most surely: line=&lt;b&gt;new 0.5 → 0.97." in page
    assert "its embeddings" in page and "sharpness" in page, "what the detectors look at"
    assert "What to do" not in render(report.with_(alarm=False), {})


def test_every_figure_of_quality_has_words() -> None:
    page = figure_words([f"spread of {name}" for name in quality.FIGURES])
    assert page is not None and page.count("<li>") == len(quality.FIGURES)
    assert figure_words(["unheard of"]) is None
