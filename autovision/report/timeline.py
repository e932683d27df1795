"""A deployment's history as one drawing: models, decisions, drift, accuracy and searches over the same time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from autovision.console import format_seconds
from autovision.records.deployments import (
    AccuracyEstimate,
    DecisionKind,
    DetectorVerdict,
    LabelledAccuracy,
)
from autovision.records.history import DriftWindow, History, ToldDecision, reach
from autovision.report.svg import (
    Markup,
    Scale,
    join,
    line,
    nice_range,
    nice_ticks,
    picture,
    tag,
    text,
    tick_format,
    times,
)
from autovision.report.time_axis import TimeScale, minute
from autovision.report.timeline_marks import accuracy_mark, decision_mark, meaning

DETECTORS = ("input", "quality", "prediction", "confidence", "accuracy")
"""in the order in which they are drawn; others follow"""
_LEFT, _RIGHT, _TOP = 46.0, 10.0, 22.0
_TITLE, _BELOW = 24.0, 10.0
"""pixels above a track, where its title is, and below it"""
_LEAST_REACH, _MOST_REACH = 0.1, 1e6
_GAP = 5.0
"""pixels that one window takes; of more windows within them one is drawn"""
_Figure = tuple[DriftWindow, AccuracyEstimate | LabelledAccuracy]


@dataclass(frozen=True)
class Track:
    """One row of the drawing."""

    title: str
    height: float
    draw: Callable[[TimeScale, float, float], Markup]
    """from the scale of time, its top and its bottom in pixels"""


def timeline(history: History, width: float) -> Markup:
    """The whole drawing."""
    x = TimeScale(history.since, history.until, _LEFT, width - _RIGHT)
    tracks = [
        Track("models", 26, lambda x, top, bottom: _models(history, x, top, bottom)),
        Track("decisions", 30, lambda x, top, bottom: _decisions(history.decisions, x, top, bottom)),
        *(_detector(history.windows, name) for name in detectors(history)),
        *([_accuracy(history, 150.0)] if history.models or history.windows else []),
        *([_searches(history)] if history.searches else []),
    ]
    parts, y = [], _TOP
    for track in tracks:
        parts.append(text(0, y + 14, track.title, "tick"))
        parts.append(track.draw(x, y + _TITLE, y + _TITLE + track.height))
        y += _TITLE + track.height + _BELOW
    label = (
        f"Timeline of {history.deployment} from {minute(history.since)} to {minute(history.until)}: "
        f"{len(history.reigns)} reigns of models, {history.sums.alarms} alarms in {len(history.windows)} windows, "
        f"{len(history.searches)} searches. Tables of all of it follow."
    )
    return picture(width, y + 26, label, x.axis(_TOP, y + 4), *parts)


def detectors(history: History) -> list[str]:
    """The detectors that spoke, in the order in which they are drawn."""
    spoke = {each.name for window in history.windows for each in window.detectors}
    return [*(name for name in DETECTORS if name in spoke), *sorted(spoke - set(DETECTORS))]


def numbers(history: History) -> dict[str, int]:
    """Each model's number, by which the drawing names it."""
    return {model: n for n, model in enumerate(dict.fromkeys(each.model for each in history.reigns), start=1)}


# ------------------------------------------------------------------------------------------------- models


def _models(history: History, x: TimeScale, top: float, bottom: float) -> Markup:
    parts, number = [], numbers(history)
    for reign in history.reigns:
        begin, end = x(reign.since), x(reign.until or history.until)
        length = max(2.0, end - begin)
        which = f"{number[reign.model]}"
        until = minute(reign.until) if reign.until else "now"
        parts.append(
            tag(
                "rect",
                tag("title", f"{which}: {reign.model}, {minute(reign.since)} to {until}"),
                x=begin,
                y=top,
                width=length,
                height=bottom - top,
                rx=3,
                class_=f"reign {'odd' if number[reign.model] % 2 else 'even'}",
            )
        )
        full = f"{which}  {reign.model}"
        shown = full if length > 8.2 * len(full) + 14 else which if length > 9 * len(which) + 6 else ""
        if shown:
            parts.append(
                text(
                    begin + 7 if shown == full else begin + length / 2,
                    top + 17,
                    shown,
                    "reign-name",
                    "start" if shown == full else "middle",
                )
            )
    return join(parts)


# ---------------------------------------------------------------------------------------------- decisions


def _decisions(decisions: Sequence[ToldDecision], x: TimeScale, top: float, bottom: float) -> Markup:
    """Those to search above, and below them what became of their models, which comes soon afterwards."""
    parts, lane = [], (bottom - top) / 4
    for name in dict.fromkeys(map(meaning, decisions)):
        if name is None:
            continue
        alike = [each for each in decisions if meaning(each) == name]
        y = top + lane if alike[0].kind is DecisionKind.RETRAIN else bottom - lane
        parts += [
            decision_mark(name, x(each.at), y, f"{minute(each.at)}: {each.what}")
            for each in x.thinned(alike, lambda each: each.at, lambda cell: cell[-1], 3.0)
        ]
    return join(parts)


# ------------------------------------------------------------------------------------------------- drift


def verdict_of(window: DriftWindow, name: str) -> DetectorVerdict | None:
    """What a detector says of a window, of several lengths together the most alarming."""
    said = [each for each in window.detectors if each.name == name]
    return max(said, key=lambda each: (each.alarm, reach(each)), default=None)


def _detector(windows: Sequence[DriftWindow], name: str) -> Track:
    said = [(window, found) for window in windows if (found := verdict_of(window, name)) is not None]
    most = max(reach(found) for _, found in said)
    high = next((each for each in (3.0, 10.0, 100.0, 1000.0) if most <= each), _MOST_REACH)

    def draw(x: TimeScale, top: float, bottom: float) -> Markup:
        y = Scale(_LEAST_REACH, high, bottom, top, math.log10)
        parts = [
            tag("rect", x=x.left, y=top, width=x.right - x.left, height=y(1) - top, class_="alarm-zone"),
            *(
                join(
                    [
                        line(x.left, y(at), x.right, y(at), "grid"),
                        text(x.left - 6, y(at) + 4, times(f"{at:g}"), "tick", "end"),
                    ]
                )
                for at in (0.1, 1.0, *([high] if high > 3 else []))
            ),
            line(x.left, y(1), x.right, y(1), "limit"),
        ]
        shown = x.thinned(said, lambda each: each[0].end, lambda cell: max(cell, key=_alarming), _GAP)
        for window, found in sorted(shown, key=lambda each: each[1].alarm):
            at = min(high, max(_LEAST_REACH, reach(found)))
            kind, title = ("alarmed", "alarm") if found.alarm else ("silent", "silent")
            said_by = (
                f"{title} of {name}, {times(f'{reach(found):.2f}')} its threshold, p = {found.p_value:.2g}"
            )
            hover = tag("title", f"{minute(window.end)}: {said_by}")
            parts.append(
                tag(
                    "circle",
                    hover,
                    cx=x(window.end),
                    cy=y(at),
                    r=4 if found.alarm else 2.2,
                    class_=f"spot {kind}",
                )
            )
        return join(parts)

    return Track(f"drift: {name}, score ÷ threshold", 56, draw)


def _alarming(each: tuple[DriftWindow, DetectorVerdict]) -> tuple[bool, float]:
    return each[1].alarm, reach(each[1])


# ------------------------------------------------------------------------------------------------ accuracy


def _accuracy(history: History, height: float) -> Track:
    estimated: list[_Figure] = [(w, w.estimate) for w in history.windows if w.estimate is not None]
    labelled: list[_Figure] = [(w, w.accuracy) for w in history.windows if w.accuracy is not None]
    figures = [model.accuracy for model in history.models.values()]
    known = [*(each for _, each in estimated), *(each for _, each in labelled), *figures]
    low, high = nice_range(
        [x for each in known for x in (each.value, each.low, each.high)], floor=0.0, ceiling=1.0
    )

    def draw(x: TimeScale, top: float, bottom: float) -> Markup:
        y = Scale(low, high, bottom, top)
        ticks = nice_ticks(low, high, 4)
        name = tick_format(ticks)
        parts = [line(x.left, y(at), x.right, y(at), "grid") for at in ticks]
        parts += [text(x.left - 6, y(at) + 4, name(at), "tick", "end") for at in ticks]
        for reign in history.reigns:
            if reign.model in history.models:
                accuracy = history.models[reign.model].accuracy
                begin, end = x(reign.since), max(x(reign.since) + 2, x(reign.until or history.until))
                title = tag("title", f"{reign.model} on held-out images: {accuracy}")
                parts.append(
                    tag(
                        "rect",
                        title,
                        x=begin,
                        width=end - begin,
                        y=y(accuracy.high),
                        height=max(1.0, y(accuracy.low) - y(accuracy.high)),
                        class_="band",
                    )
                )
                parts.append(line(begin, y(accuracy.value), end, y(accuracy.value), "held"))
        for kind, found in (("estimated", estimated), ("labelled", labelled)):
            shown = x.thinned(found, lambda each: each[0].end, _median, 2 * _GAP)
            parts += [
                _with_whisker(
                    kind,
                    x(w.end),
                    y,
                    each.value,
                    each.low,
                    each.high,
                    f"{minute(w.end)}, {kind}: {each.value:.3f} [{each.low:.3f}, {each.high:.3f}], "
                    f"n = {each.n}",
                )
                for w, each in shown
            ]
        return join(parts)

    return Track("accuracy", height, draw)


def _median(cell: list[_Figure]) -> _Figure:
    return sorted(cell, key=lambda each: each[1].value)[len(cell) // 2]


def _with_whisker(kind: str, x: float, y: Scale, value: float, low: float, high: float, title: str) -> Markup:
    return join([line(x, y(low), x, y(high), f"error {kind}"), accuracy_mark(kind, x, y(value), title)])


# ------------------------------------------------------------------------------------------------ searches


def _searches(history: History) -> Track:
    most = max(1e-9, *(each.spent_s for each in history.searches), 0.0)

    def draw(x: TimeScale, top: float, bottom: float) -> Markup:
        y = Scale(0, most, bottom, top)
        parts = [line(x.left, bottom, x.right, bottom, "grid"), line(x.left, top, x.right, top, "grid")]
        for each in history.searches:
            begin = x(each.at)
            width = max(5.0, x(each.at + timedelta(seconds=each.spent_s)) - begin)
            spent = f"{format_seconds(each.spent_s)} of {format_seconds(each.budget_s)}, {each.trials} trials"
            parts.append(
                tag(
                    "rect",
                    tag("title", f"{minute(each.at)}: {each.search}, {each.status}, {spent}"),
                    x=min(begin, x.right - width),
                    y=min(y(each.spent_s), bottom - 2),
                    width=width,
                    height=max(2.0, bottom - y(each.spent_s)),
                    class_=f"bar {'' if each.became_champion else 'idle'}".strip(),
                )
            )
        return join(parts)

    return Track(f"searches, by the time that they took: up to {format_seconds(most)}", 56, draw)
