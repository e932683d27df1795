"""Reports: every detector's verdict on one window, and on several together."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from autovision.errors import InvalidInput
from autovision.monitoring import quality
from autovision.monitoring.detectors import rates
from autovision.monitoring.reference import Reference
from autovision.monitoring.report import Observed, examine
from autovision.monitoring.rows import Rows, digest
from autovision.monitoring.told import told
from autovision.records.deployments import DriftReport
from autovision.registry.evaluate import Predictions

AT = datetime(2026, 1, 2, tzinfo=UTC)
CLASSES = ("ok", "defective")
FIGURES = len(quality.FIGURES)


def figures(n, rng, shift=0.0):
    found = rng.normal(size=(n, FIGURES)) + shift
    found[:, 1], found[:, -1] = np.log(4 / 3), 0  # images of one shape, none of them broken
    return found


def held_out(n, rng):
    """A calibrated model of two classes, mostly sure of `ok`."""
    p = rng.beta(4, 1, n)
    labels = (rng.random(n) > p).astype(int)
    return Predictions(tuple(map(str, range(n))), labels, np.column_stack([p, 1 - p]), {})


@pytest.fixture
def reference(embeddings):
    rng = np.random.default_rng(5)
    return Reference.of(
        "m1",
        CLASSES,
        embeddings(240, rng),
        held_out=held_out(150, rng),
        figures=figures(120, rng),
        images=[f"{i:064x}" for i in range(240)],
        metadata=[{"line": "old"}] * 240,
    )


class Stream:
    """Windows of a deployment, one after the other."""

    def __init__(self, reference, capture, embeddings, rate=1000):
        self.reference, self.capture, self.embeddings, self.rate = reference, capture, embeddings, rate
        self.rng = np.random.default_rng(0)
        self.rows, self.reports, self.sent = {}, [], 0

    def window(self, n=60, *, shift=0.0, bright=0.0, sure=(4, 1), labels=(), share=1.0):
        """`share` of the images are shifted; their line is `new`."""
        moved = self.rng.random(n) < share * bool(shift)
        rows = self.embeddings(n, self.rng)
        rows[moved] = self.embeddings(int(moved.sum()), self.rng, shift)
        p = self.rng.beta(*sure, n)
        captures = []
        for row, ok, new in zip(rows, p, moved, strict=True):
            made = self.capture(self.sent, embedding=row)
            probabilities = {"ok": float(ok), "defective": float(1 - ok)}
            label = "ok" if ok > 0.5 else "defective"
            line = {"line": "new" if new else "old"}
            captures.append(made.with_(label=label, probabilities=probabilities, metadata=line))
            self.sent += 1
        looks = figures(n, self.rng, bright)
        return Observed(
            captures, {c.request_id: f for c, f in zip(captures, looks, strict=True)}, labels=labels
        )

    def see(self, n=60, **options):
        report, rows = examine(
            "solar",
            self.reference,
            self.window(n, **options),
            windows_per_false_alarm=self.rate,
            clock=lambda: AT + timedelta(hours=len(self.reports)),
            before=self.reports,
            read=lambda wanted: {which: self.rows[which] for which in wanted if which in self.rows},
        )
        self.rows[report.rows] = Rows.from_bytes("rows", rows.to_bytes())
        assert report.rows == digest(rows.to_bytes())
        self.reports.append(report)
        return report


@pytest.fixture
def stream(reference, capture, embeddings):
    return Stream(reference, capture, embeddings)


def said(report, name, windows=1):
    return next(each for each in report.detectors if (each.name, each.windows) == (name, windows))


def test_a_window_like_the_reference_is_silent(stream):
    report = stream.see()
    assert not report.alarm and report.alarming == ()
    assert {each.name for each in report.detectors} == {"input", "quality", "prediction", "confidence"}
    assert (report.score, report.p_value, report.alpha) == (
        said(report, "input").score,
        said(report, "input").p_value,
        rates.level("input", 1, 1000),
    )
    assert told(report).startswith("no drift in the last 60 requests (score")
    assert report.accuracy is None, "there are no labels"
    assert len(report.unlike) == len(report.typical) == 12
    assert report.estimate is not None and abs(report.estimate.value - 0.8) < 0.2
    assert any("too few windows yet to look at 4 or 16 together" in note for note in report.notes)
    assert DriftReport.model_validate_json(report.to_json()) == report


def test_drift_says_which_images_and_groups_moved(stream):
    observed = stream.window(shift=2.5, share=0.4)
    report, _ = examine("solar", stream.reference, observed, windows_per_false_alarm=1000, clock=lambda: AT)
    assert report.alarm and [each.name for each in report.alarming] == ["input"]
    (moved, *_) = said(report, "input").moved
    assert (moved.kind, moved.name) == ("subgroup", "line=new")
    assert moved.window > 0.9 and moved.reference == pytest.approx(0.5, abs=0.05) and moved.p_value < 1e-4
    new = {each.request_id for each in observed.captures if each.metadata["line"] == "new"}
    assert {each.request_id for each in report.unlike[:10]} <= new
    assert "line=new" in told(report) and "DRIFT" in told(report)


@pytest.mark.parametrize(
    ("name", "options", "moved"),
    [
        ("quality", {"bright": 1.5}, "size"),
        ("prediction", {"sure": (1, 4)}, "defective"),
        ("confidence", {"sure": (30, 1)}, "confidence"),
    ],
)
def test_each_detector_says_what_moved(stream, name, options, moved):
    report = stream.see(100, **options)
    verdict = said(report, name)
    assert report.alarm and verdict.alarm and verdict.score >= verdict.threshold
    assert moved in {each.name.removeprefix("spread of ") for each in verdict.moved}
    assert not said(report, "input").alarm
    assert report.alarming[0].p_value / report.alarming[0].alpha == min(
        each.p_value / each.alpha for each in report.alarming
    )


def test_wrong_answers_raise_an_alarm_and_the_accuracy_has_its_interval(stream):
    report = stream.see(labels=[(False, 0.9, False)] * 20 + [(True, 0.9, True)] * 10)
    verdict, found = said(report, "accuracy"), report.accuracy
    assert report.alarm and verdict.alarm and (verdict.n, verdict.windows) == (30, 1)
    assert (found.value, found.n, found.reviewed) == (pytest.approx(1 / 3), 30, 10)
    assert found.low < found.value < found.high < found.expected
    assert found.confidence == pytest.approx(0.9) and found.confidence_of_all == pytest.approx(0.8, abs=0.1)


def test_a_small_shift_is_seen_over_several_windows_together(stream):
    for _ in range(3):
        assert not stream.see().alarm
    reports = [stream.see(shift=0.75) for _ in range(6)]
    first = next(report for report in reports if report.alarm)
    assert {each.windows for each in first.alarming} == {4}, "single windows are too small for it"
    assert said(first, "input", 4).n == 240
    assert told(first).startswith("DRIFT in the last 60 requests: input of 4 windows together (score")


def test_all_levels_together_are_the_stated_rate():
    levels = [rates.level(name, scale, 500) for name in rates.SHARES for scale in rates.SCALES]
    assert sum(levels) == pytest.approx(1 / 500)


def test_what_alarms_alone_never_becomes_normal(stream):
    stream.rate = 100
    for _ in range(3):
        assert stream.see(shift=3.0).alarm
    assert said(stream.reports[-1], "input").reference_n == 120, "the reference alone"
    calm = stream.see()
    assert not calm.alarm, "and does not keep longer windows alarming"
    stream.see()
    assert said(stream.reports[-1], "input").reference_n == 180


def test_rows_that_are_gone_are_left_out(stream):
    stream.see()
    stream.rows.clear()
    assert said(stream.see(), "input").reference_n == 120


def test_a_reference_of_embeddings_alone_lets_the_input_detector_speak(capture, embeddings):
    rng = np.random.default_rng(0)
    bare = Reference.of("m1", CLASSES, embeddings(200, rng), notes=["only inputs are compared: why"])
    report = Stream(bare, capture, embeddings).see(labels=[(False, 0.9, False)] * 9)
    assert [each.name for each in report.detectors] == ["input"]
    assert "only inputs are compared: why" in report.notes
    assert report.estimate is None and report.accuracy is None and report.typical == ()
    assert report.details["prediction_rate[ok]"] > 0.5 and "reference_confidence" not in report.details


def test_images_that_are_not_kept_are_told(stream):
    observed = stream.window()
    report, _ = examine(
        "solar",
        stream.reference,
        Observed(observed.captures, without_pixels=60),
        windows_per_false_alarm=1000,
        clock=lambda: AT,
    )
    assert "quality" not in {each.name for each in report.detectors}
    assert any("the images of 60 of 60 requests are not kept" in note for note in report.notes)


def test_broken_images_in_a_window_are_drift_of_quality(stream):
    observed = stream.window()
    nothing = np.full(FIGURES, np.nan)
    nothing[-1] = 1
    looks = dict(observed.figures) | {each.request_id: nothing for each in observed.captures[:25]}
    report, _ = examine(
        "solar",
        stream.reference,
        Observed(observed.captures, looks),
        windows_per_false_alarm=1000,
        clock=lambda: AT,
    )
    assert said(report, "quality").moved[0].name.endswith("broken")
    assert any(each.why == "the file is broken" for each in report.unlike)


def test_the_same_window_gives_the_same_report(stream):
    observed = stream.window(shift=0.5)
    reports = [
        examine("solar", stream.reference, observed, windows_per_false_alarm=1000, clock=lambda: AT)[0]
        for _ in range(2)
    ]
    assert reports[0].with_(id="x") == reports[1].with_(id="x")


def test_answers_of_another_model_are_refused(stream, capture):
    def run(captures):
        return examine(
            "solar", stream.reference, Observed(captures), windows_per_false_alarm=1000, clock=lambda: AT
        )

    rows = np.ones((2, 60))
    with pytest.raises(InvalidInput, match="answers of m2 besides m1"):
        run([capture(0, embedding=rows[0]), capture(1, model="m2", embedding=rows[1])])
    with pytest.raises(InvalidInput, match="no captured requests"):
        run([])
    with pytest.raises(InvalidInput, match="60 numbers and the window's 2"):
        run([capture(0), capture(1)])
    with pytest.raises(InvalidInput, match="same length"):
        run([capture(0), capture(1, embedding=(1.0, 2.0, 3.0))])


def test_a_window_of_any_number_of_classes_is_reported(capture, embeddings):
    rng = np.random.default_rng(0)
    held = Predictions(tuple(map(str, range(40))), rng.integers(0, 2, (40, 2)), rng.random((40, 2)), {})
    reference = Reference.of("m1", ("a", "b"), embeddings(200, rng), held_out=held, multi_label=True)
    answers = [((), {"a": 0.1, "b": 0.3}), (("a", "b"), {"a": 0.9, "b": 0.7})]
    captures = [
        capture(i, embedding=row).with_(label=answers[i % 2][0], probabilities=answers[i % 2][1])
        for i, row in enumerate(embeddings(40, rng))
    ]
    report, _ = examine(
        "solar", reference, Observed(captures), windows_per_false_alarm=1000, clock=lambda: AT
    )
    assert {each.name for each in report.detectors} == {"input", "prediction", "confidence"}
    assert report.details["mean_confidence"] == pytest.approx(0.8)
    assert (report.details["prediction_rate[a]"], report.details["prediction_rate[b]"]) == (0.5, 0.5)
