"""Charts draw what they are given, and survive what they cannot draw."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

import pytest

from autovision.report.charts import (
    Bar,
    Estimate,
    IntervalRow,
    Line,
    Mark,
    Window,
    bar_chart,
    drift_chart,
    interval_chart,
    steps,
    trace_chart,
)

NAN, INF = math.nan, math.inf
WIDTHS = (340.0, 1080.0)


def parse(svg: str) -> ElementTree.Element:
    """The drawing, checked: well-formed, labelled, and without a coordinate that is no number."""
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"]
    assert not re.search(r'="[^"]*\b(nan|inf)\b', svg)
    return root


def classes(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if name in element.attrib.get("class", "").split()]


def traces(
    lines: Sequence[Line] = (), marks: Sequence[Mark] = (), width: float = 500.0
) -> ElementTree.Element:
    return parse(
        trace_chart(
            lines, marks, width=width, height=300, label="x", x_label="s", y_label="a", limit=(9.0, "end")
        )
    )


def row(before: float, after: float, half: float = 0.05) -> IntervalRow:
    first, second = (Estimate(v, v - half, v + half) for v in (before, after))
    return IntervalRow("poly", "accuracy", first, second, 0.7)


@pytest.mark.parametrize("width", WIDTHS)
def test_interval_chart_shows_both_figures_and_orders_them(width: float) -> None:
    root = parse(interval_chart([row(0.3, 0.8)], width=width, label="x"))
    before, after = classes(root, "dot")
    assert float(before.attrib["cx"]) < float(after.attrib["cx"]) < width
    said = "".join(root.itertext())
    assert "0.300" in said
    assert "0.800 [0.750, 0.850]" in said


@pytest.mark.parametrize(
    "rows", [[], [row(NAN, NAN)], [row(NAN, 0.5)], [row(0.5, 0.5, NAN)], [row(1.0, 1.0, 0.0)]]
)
def test_interval_chart_survives(rows: list[IntervalRow]) -> None:
    for width in WIDTHS:
        parse(interval_chart(rows, width=width, label="x"))


def test_nothing_to_draw_says_so() -> None:
    for svg in (
        interval_chart([], width=340, label="x"),
        trace_chart([], width=340, height=200, label="x", x_label="", y_label=""),
        drift_chart([], width=340, label="x"),
        bar_chart([], width=340, label="x", x_label=""),
    ):
        assert "no data" in "".join(parse(svg).itertext())


def test_traces_end_pruned_trials_with_a_cross_and_put_the_winner_on_top() -> None:
    root = traces(
        [
            Line([(1, 0.5), (2, 0.6)], "winner", "the winner"),
            Line([(1, 0.4), (2, 0.45)], "thin", "a pruned one", "pruned"),
        ]
    )
    assert [element.attrib["class"] for element in classes(root, "trace")] == ["trace thin", "trace winner"]
    assert len(classes(root, "pruned")) == 1
    assert "a pruned one" in "".join(root.itertext())


def test_every_state_has_a_shape_of_its_own() -> None:
    root = traces(
        marks=[Mark(i, 0.5, kind) for i, kind in enumerate(("complete", "pruned", "stopped", "failed"))]
    )
    marks = classes(root, "mark")
    assert len(marks) == 4
    shapes = {(mark.tag, re.sub(r"[\d.\s-]+", "", mark.attrib.get("d", ""))) for mark in marks}
    assert len(shapes) == 4


@pytest.mark.parametrize(
    "points", [[], [(1, 0.5)], [(1, NAN)], [(NAN, 0.5), (2, 0.6)], [(0, 0.5), (0, 0.5)], [(1, INF), (2, 0.1)]]
)
def test_traces_survive(points: list[tuple[float, float]]) -> None:
    for width in WIDTHS:
        traces([Line(points, "best")], [Mark(x, y, "failed") for x, y in points], width)


def test_a_trace_of_one_point_is_visible() -> None:
    assert len(classes(traces([Line([(1, 0.5)], "thin")]), "mark")) == 1


def test_marks_stay_inside_the_frame() -> None:
    root = traces(
        [Line([(0, 0.2), (30, 0.9)], "best")], [Mark(30, 0.9, "complete"), Mark(0, 0.2, "complete")]
    )
    for mark in classes(root, "mark"):
        assert 0 <= float(mark.attrib["cx"]) <= 500
        assert 0 <= float(mark.attrib["cy"]) <= 300


def test_steps_hold_each_value_until_the_next() -> None:
    assert steps([(1, 0.5), (3, 0.7)], until=5) == [(1, 0.5), (3, 0.5), (3, 0.7), (5, 0.7)]
    assert steps([], until=5) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_drift_chart_puts_alarms_beyond_the_threshold(width: float) -> None:
    windows = [Window("mono 1", -0.0004, 0.003, False), Window("poly 1", 0.09, 0.003, True)]
    root = parse(drift_chart(windows, width=width, label="x"))
    silent, alarmed = classes(root, "silent")[-1], classes(root, "alarmed")[-1]
    limit = float(classes(root, "limit")[0].attrib["x1"])
    assert float(silent.attrib["cx"]) < limit < float(alarmed.attrib["cx"]) < width
    assert "30.0\N{MULTIPLICATION SIGN}" in "".join(root.itertext())


@pytest.mark.parametrize(
    "window",
    [
        Window("a", NAN, 0.003, False),
        Window("a", 0.1, 0.0, True),
        Window("a", 0.0, 0.003, False),
        Window("a", 1e6, 1e-6, True),
        Window("a", -1.0, 1e-6, False),
    ],
)
def test_drift_chart_survives(window: Window) -> None:
    for width in WIDTHS:
        parse(drift_chart([window], width=width, label="x"))


def test_bars_are_proportional() -> None:
    root = parse(bar_chart([Bar("a", 50, "50 s"), Bar("b", 100, "100 s")], width=600, label="x", x_label="s"))
    first, second = (float(bar.attrib["width"]) for bar in classes(root, "bar"))
    assert second == pytest.approx(2 * first, rel=0.01)


@pytest.mark.parametrize("value", [0.0, NAN, -1.0, 1e-12, 1e9])
def test_bars_survive(value: float) -> None:
    parse(bar_chart([Bar("a", value, "?")], width=340, label="x", x_label="s"))
