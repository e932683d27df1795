"""Charts as SVG: data in, text out. Colours come from the page's style sheet, shapes say the same as colours.

Every function takes its width in pixels, so that a page can hold a wide and a narrow drawing of the same
data, both with text at its natural size. Figures that are not finite are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from autovision.report.svg import (
    Markup,
    Scale,
    join,
    line,
    minus,
    nice_range,
    nice_ticks,
    nothing,
    path,
    picture,
    tag,
    text,
    times,
    x_axis,
    y_axis,
)

MarkKind = Literal["complete", "pruned", "stopped", "failed"]
"""how a trial ended: disc, cross, square, triangle"""
LineKind = Literal["best", "winner", "thin"]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class IntervalRow:
    """One measure, before and after."""

    group: str
    label: str
    before: Estimate
    after: Estimate
    reference: float | None = None
    """a figure to compare with, drawn as a tick"""


@dataclass(frozen=True)
class Line:
    points: Sequence[tuple[float, float]]
    kind: LineKind
    title: str = ""
    """what a pointer over it shows"""
    end: MarkKind | None = None
    """the mark at its last point"""


@dataclass(frozen=True)
class Mark:
    x: float
    y: float
    kind: MarkKind
    title: str = ""


@dataclass(frozen=True)
class Window:
    """One window of requests and its drift score."""

    label: str
    score: float
    threshold: float
    alarm: bool


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    text: str


# ------------------------------------------------------------------------------------------ before and after


def interval_chart(
    rows: Sequence[IntervalRow], *, width: float, label: str, x_label: str = "share"
) -> Markup:
    """Per row two figures with their intervals: before, hollow, above after, filled."""
    figures = [x for row in rows for e in (row.before, row.after) for x in (e.value, e.low, e.high)]
    figures += [row.reference for row in rows if row.reference is not None]
    if not any(math.isfinite(figure) for figure in figures):
        return nothing(width, 120, label)
    narrow = width < 480
    left, row_height, heading = (12.0, 54.0, 26.0) if narrow else (170.0, 44.0, 30.0)
    groups = len({row.group for row in rows})
    bottom = 6 + heading * groups + row_height * len(rows)
    low, high = nice_range(figures, floor=0.0, ceiling=1.0)
    scale = Scale(low, high, left + 8, width - 52)
    parts = [x_axis(scale, nice_ticks(low, high, 4 if narrow else 8), 6, bottom, x_label)]
    y, group = 6.0, None
    for row in rows:
        if row.group != group:
            group = row.group
            parts.append(text(0 if not narrow else 2, y + 20, group, "group"))
            y += heading
        parts.append(_interval_row(row, scale, y, row_height, narrow=narrow))
        y += row_height
    return picture(width, bottom + 42, label, *parts)


def _interval_row(row: IntervalRow, scale: Scale, y: float, height: float, *, narrow: bool) -> Markup:
    middle = y + height / 2 + (7 if narrow else 0)
    name_at = (12.0, y + 14) if narrow else (8.0, middle + 4)
    parts = [text(*name_at, row.label, "row-label")]
    if row.reference is not None and math.isfinite(row.reference):
        x = scale(row.reference)
        parts.append(
            tag(
                "line",
                tag("title", f"most frequent class: {row.reference:.3f}"),
                x1=x,
                x2=x,
                y1=middle - 15,
                y2=middle + 15,
                class_="reference",
            )
        )
    for estimate, offset, name in ((row.before, -8.0, "before"), (row.after, 8.0, "after")):
        parts.append(_whisker(estimate, scale, middle + offset, name))
    return join(parts)


def _whisker(estimate: Estimate, scale: Scale, y: float, name: str) -> Markup:
    if not math.isfinite(estimate.value):
        return text(scale.start, y + 4, f"{name}: no figure", "tick")
    parts = [tag("title", f"{name}: {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]")]
    x = end = scale(estimate.value)
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        start, end = scale(estimate.low), scale(estimate.high)
        parts.append(line(start, y, end, y, f"whisker {name}"))
    parts.append(tag("circle", cx=x, cy=y, r=5, class_=f"dot {name}"))
    parts.append(text(max(end, x + 5) + 6, y + 4, f"{estimate.value:.3f}", f"value {name}"))
    return tag("g", *parts)


# ----------------------------------------------------------------------------------------------- traces


def trace_chart(
    lines: Sequence[Line],
    marks: Sequence[Mark] = (),
    *,
    width: float,
    height: float,
    label: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    limit: tuple[float, str] | None = None,
) -> Markup:
    """Lines and marks over a common x: a search's progress, learning curves.

    `limit` is an x with its name, e.g. the end of the budget. Ranges are found from the data unless given.
    """
    lines = [Line(_finite(each.points), each.kind, each.title, each.end) for each in lines]
    marks = [mark for mark in marks if math.isfinite(mark.x) and math.isfinite(mark.y)]
    points = [point for each in lines for point in each.points] + [(mark.x, mark.y) for mark in marks]
    if not points:
        return nothing(width, height, label)
    low, high = y_range or nice_range(y for _, y in points)
    begin, end = x_range or _x_range([x for x, _ in points] + ([limit[0]] if limit else []))
    left, top, right, bottom = 44.0, 30.0, width - 14, height - 42
    x, y = Scale(begin, end, left, right), Scale(low, high, bottom, top)
    parts = [
        x_axis(x, nice_ticks(begin, end, 4 if width < 480 else 8), top, bottom, x_label),
        y_axis(y, nice_ticks(low, high), left, right, y_label),
    ]
    if limit is not None and begin <= limit[0] <= end:
        parts.append(line(x(limit[0]), top, x(limit[0]), bottom, "limit"))
        parts.append(text(x(limit[0]) - 5, bottom - 8, limit[1], "tick", "end"))
    order = ("thin", "winner", "best")
    for each in sorted(lines, key=lambda each: order.index(each.kind)):
        parts.append(_trace(each, x, y))
    parts += [mark_shape(x(mark.x), y(mark.y), mark.kind, mark.title) for mark in marks]
    return picture(width, height, label, *parts)


def steps(points: Sequence[tuple[float, float]], until: float) -> list[tuple[float, float]]:
    """The corners of a step function that holds each value until the next, and the last until `until`."""
    corners: list[tuple[float, float]] = []
    for x, y in points:
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    if corners and until > corners[-1][0]:
        corners.append((until, corners[-1][1]))
    return corners


def mark_shape(x: float, y: float, kind: MarkKind, title: str = "") -> Markup:
    """The mark of a trial, about nine pixels across."""
    hover = tag("title", title) if title else None
    match kind:
        case "complete":
            return tag("circle", hover, cx=x, cy=y, r=4, class_="mark complete")
        case "pruned":
            cross = f"M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m0 -7l-7 7"
            return tag("path", hover, d=cross, class_="mark pruned")
        case "stopped":
            return tag("rect", hover, x=x - 3.5, y=y - 3.5, width=7, height=7, class_="mark stopped")
        case "failed":
            triangle = f"M{x:.1f} {y - 4.5:.1f}l4.5 8h-9z"
            return tag("path", hover, d=triangle, class_="mark failed")


def _trace(each: Line, x: Scale, y: Scale) -> Markup:
    if not each.points:
        return Markup()
    points = [(x(a), y(b)) for a, b in each.points]
    parts = [path(points, f"trace {each.kind}", each.title)] if len(points) > 1 else []
    if each.end is not None:
        parts.append(mark_shape(*points[-1], each.end, each.title))
    elif len(points) == 1:
        parts.append(mark_shape(*points[0], "complete", each.title))
    return join(parts)


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _x_range(values: Sequence[float]) -> tuple[float, float]:
    """From 0 (or below) to the largest value, with a little room so that no mark is cut."""
    high = max(value for value in values if math.isfinite(value))
    low = min(0.0, *(value for value in values if math.isfinite(value)))
    return (low, high + 0.02 * (high - low)) if high > low else (low, low + 1.0)


# ------------------------------------------------------------------------------------------- drift, bars


def drift_chart(windows: Sequence[Window], *, width: float, label: str) -> Markup:
    """Each window's score relative to its own threshold; 1 is where the alarm begins.

    The axis is an inverse hyperbolic sine: even around zero, logarithmic beyond, because unbiased scores
    may be negative and drift can exceed its threshold a hundredfold.
    """
    known = [w for w in windows if math.isfinite(w.score) and math.isfinite(w.threshold) and w.threshold > 0]
    if not known:
        return nothing(width, 100, label)
    ratios = [w.score / w.threshold for w in known]
    high, low = max(2.0, *(1.25 * r for r in ratios)), min(0.0, *(1.25 * r for r in ratios))
    row, top, left = 34.0, 26.0, 72.0
    bottom = top + row * len(known)
    scale = Scale(low, high, left, width - (64 if width < 480 else 150), lambda v: math.asinh(2 * v))
    ticks = [t for t in (-100, -10, -3, -1, 0, 1, 3, 10, 30, 100, 300, 1000) if low <= t <= high]
    labels = [times(f"{tick}") if tick else "0" for tick in ticks]
    parts = [
        x_axis(scale, [float(t) for t in ticks], top, bottom, "score ÷ threshold", labels),
        tag("rect", x=scale(1), y=top, width=scale.end - scale(1), height=bottom - top, class_="alarm-zone"),
        line(scale(1), top, scale(1), bottom, "limit"),
        text(scale(1) + 5, top - 8, "alarm", "tick alarm-text"),
    ]
    for index, (window, ratio) in enumerate(zip(known, ratios, strict=True)):
        parts.append(_drift_row(window, scale, ratio, top + row * (index + 0.5), wide=width >= 480))
    return picture(width, bottom + 42, label, *parts)


def _drift_row(window: Window, scale: Scale, ratio: float, y: float, *, wide: bool) -> Markup:
    kind = "alarmed" if window.alarm else "silent"
    figure = times(f"{ratio:.1f}")
    exact = f"score {window.score:.4g}, threshold {window.threshold:.4g}"
    return tag(
        "g",
        tag("title", f"{window.label}: {exact}"),
        text(0, y + 4, window.label, "row-label"),
        line(scale(0), y, scale(ratio), y, f"stem {kind}"),
        tag("circle", cx=scale(ratio), cy=y, r=6, class_=f"dot {kind}"),
        text(
            max(scale(ratio), scale(0)) + 12,
            y + 4,
            f"{figure}  ({minus(f'{window.score:.4f}')})" if wide else figure,
            "value",
        ),
    )


def bar_chart(bars: Sequence[Bar], *, width: float, label: str, x_label: str) -> Markup:
    """Horizontal bars, each with its figure."""
    known = [bar for bar in bars if math.isfinite(bar.value)]
    if not known:
        return nothing(width, 100, label)
    narrow = width < 480
    row, left = (44.0, 4.0) if narrow else (30.0, 190.0)
    bottom = 6 + row * len(known)
    high = max(max(bar.value for bar in known), 1e-9)
    scale = Scale(0, high, left, width - 84)
    parts = [x_axis(scale, nice_ticks(0, high, 4 if narrow else 6), 6, bottom, x_label)]
    for index, bar in enumerate(known):
        y = 6 + row * index
        bar_y, name_y = (y + 20, y + 14) if narrow else (y + 6, y + row / 2 + 4)
        parts.append(text(left if narrow else 0, name_y, bar.label, "row-label"))
        length = max(1.5, scale(max(0.0, bar.value)) - left)
        parts.append(tag("rect", x=left, y=bar_y, width=length, height=18, rx=3, class_="bar"))
        parts.append(text(left + length + 6, bar_y + 13, bar.text, "value"))
    return picture(width, bottom + 42, label, *parts)
