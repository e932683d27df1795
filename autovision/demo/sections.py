"""The report's sections on the story: headline, comparison, timeline, drift, decisions, examples, costs."""

from __future__ import annotations

import base64
import json
import math

from autovision.console import format_seconds
from autovision.demo.result import (
    CELL_TYPES,
    MEASURES,
    DemoResult,
    Example,
    Outcome,
    Part,
    Prediction,
    media_type_of,
)
from autovision.demo.timeline import Chapter, chapters
from autovision.demo.verdict import judge
from autovision.records.deployments import Decision
from autovision.records.models import Interval
from autovision.report.charts import (
    Bar,
    Estimate,
    IntervalRow,
    Window,
    bar_chart,
    drift_chart,
    interval_chart,
)
from autovision.report.parts import (
    code,
    dot_swatch,
    figure,
    legend,
    responsive,
    row,
    rule_swatch,
    section,
    table,
)
from autovision.report.svg import Markup, join, minus, tag

MEASURE_NAMES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "f1": "defect-class F1"}


def percent(share: float, decimals: int = 1) -> str:
    """In text, with a space that does not break."""
    return f"{100 * share:.{decimals}f}\N{NO-BREAK SPACE}%" if math.isfinite(share) else "no figure"


def headline(result: DemoResult) -> Markup:
    """What came of it, in one line, one sentence and a few figures."""
    before, after = result.before.poly.accuracy.value, result.after.poly.accuracy.value
    verdict = judge(result)
    if result.replaced:
        said = join(
            [
                "Accuracy on poly cells: ",
                tag("span", percent(before), class_="was"),
                tag("span", " → ", class_="arrow"),
                tag("span", percent(after), class_="is"),
            ]
        )
    else:
        said = join(["Accuracy on poly cells stays at ", tag("span", percent(before), class_="was")])
    started = f"{result.started_at:%Y-%m-%d %H:%M %Z}"
    return tag(
        "header",
        tag("p", f"AutoVision demo · seed {result.seed} · {started}", class_="kicker"),
        tag("h1", said),
        tag("p", verdict.text, class_="verdict" if verdict.success else "verdict not"),
        _tiles(result),
    )


def _tiles(result: DemoResult) -> Markup:
    requests = result.requests
    trials = " + ".join(str(len(view.trials)) for view in result.searches) or "0"
    alarms = {name: sum(report.alarm for report in result.windows(name)) for name in CELL_TYPES}
    drift = " · ".join(f"{name} {alarms[name]} of {len(result.windows(name))}" for name in CELL_TYPES)
    mono = percent(result.after.mono.accuracy.value)
    mono_before = f"was {percent(result.before.mono.accuracy.value)}; " if result.replaced else ""
    during = (
        f", {requests.during_promotion} while models changed" if requests.during_promotion is not None else ""
    )
    latency = f"; median {requests.latency_p50_ms:.0f} ms" if requests.latency_p50_ms is not None else ""
    return tag(
        "dl",
        _tile("Mono accuracy", mono, f"{mono_before}{result.after.mono.n} held-out cells"),
        _tile("Requests failed", f"{requests.failed} of {requests.sent}", f"sent over HTTP{during}{latency}"),
        _tile("Drift alarms", str(sum(alarms.values())), f"windows: {drift}"),
        _tile("Trials", trials, f"budget {format_seconds(result.budget_s)} a search"),
        _tile("Whole story", format_seconds(result.total_s), "wall clock"),
        class_="tiles",
    )


def _tile(name: str, value: str, small: str) -> Markup:
    return tag("div", tag("dt", name), tag("dd", value, tag("small", small)))


# -------------------------------------------------------------------------------------------- comparison


def comparison(result: DemoResult) -> Markup:
    """Both models on the same held-out cells, with 95 % intervals."""
    rows = [
        IntervalRow(
            group=f"{name.capitalize()} cells (n = {result.after.on(name).n})",
            label=MEASURE_NAMES[measure],
            before=_estimate(getattr(result.before.on(name), measure)),
            after=_estimate(getattr(result.after.on(name), measure)),
            reference=result.after.on(name).majority_accuracy if measure == "accuracy" else None,
        )
        for name in reversed(CELL_TYPES)
        for measure in MEASURES
    ]
    poly = f"{percent(result.before.poly.accuracy.value)} to {percent(result.after.poly.accuracy.value)}"
    label = f"Before and after on held-out cells: poly accuracy from {poly}. A table of all figures follows."
    keys = legend(
        [
            (dot_swatch("before"), f"before: {result.before.model.id}"),
            (dot_swatch("after"), f"after: {result.after.model.id}"),
            (rule_swatch("reference"), "always answering the most frequent class"),
        ]
    )
    return section(
        "Before and after",
        "Both models answer the same held-out cells, which neither was trained on. Bars are "
        "95\N{NO-BREAK SPACE}% intervals.",
        figure(
            "Figures on held-out cells",
            "Higher is better.",
            keys,
            responsive(lambda width: interval_chart(rows, width=width, label=label, x_label="1 is perfect")),
            tag("details", tag("summary", "The same as a table"), _comparison_table(result)),
            _outcomes(result),
        ),
    )


def _estimate(interval: Interval) -> Estimate:
    return Estimate(interval.value, interval.low, interval.high)


def _comparison_table(result: DemoResult) -> Markup:
    rows = []
    for name in reversed(CELL_TYPES):
        before, after = result.before.on(name), result.after.on(name)
        for measure in MEASURES:
            cells = [
                MEASURE_NAMES[measure],
                str(getattr(before, measure)),
                str(getattr(after, measure)),
                str(after.n),
            ]
            rows.append(row(name, cells, numbers=range(2, 5)))
    head = ("cells", "measure", "before", "after", "n")
    return table(head, rows, caption="Figure [95 % interval]", numbers=range(2, 5))


def _outcomes(result: DemoResult) -> Markup | None:
    said = [
        f"{name}: {each.fixed} answers fixed, {each.broken} broken, {each.both_right} right and "
        f"{each.both_wrong} wrong both times"
        for name, each in sorted(result.outcomes.items(), reverse=True)
    ]
    return tag("p", f"Cell by cell, {'; '.join(said)}.", class_="note") if said and result.replaced else None


# ---------------------------------------------------------------------------------------------- timeline


def timeline(result: DemoResult) -> Markup:
    items = [_chapter(chapter) for chapter in chapters(result)]
    return section(
        "What happened",
        "The whole loop, in order. Times count from the start.",
        tag("div", tag("ol", *items, class_="timeline"), class_="card"),
    )


def _chapter(chapter: Chapter) -> Markup:
    stage = chapter.stage
    at = round(stage.began_s)
    moments = [
        tag("li", moment.text, class_="alarming" if moment.alarming else None) for moment in chapter.moments
    ]
    return tag(
        "li",
        tag("time", f"{at // 60}:{at % 60:02d}", datetime=f"PT{at}S"),
        tag("strong", stage.name[:1].upper() + stage.name[1:]),
        tag("span", f" · {format_seconds(stage.seconds)}", class_="soft"),
        tag("div", stage.detail) if stage.detail else None,
        tag("ul", *moments) if moments else None,
    )


# ------------------------------------------------------------------------------------- drift and decisions


def drift(result: DemoResult) -> Markup:
    """Each window's score against its own threshold."""
    counts = {name: 0 for name in CELL_TYPES}
    windows, rows = [], []
    for window in result.drift:
        counts[window.cell_type] += 1
        label, report = f"{window.cell_type} {counts[window.cell_type]}", window.report
        windows.append(Window(label, report.score, report.threshold, report.alarm))
        cells = [
            "alarm" if report.alarm else "silent",
            str(report.n),
            minus(f"{report.score:.5f}"),
            f"{report.threshold:.5f}",
            f"{report.p_value:.4g}",
        ]
        rows.append(row(label, cells, numbers=range(2, 6)))
    alarms = [window.label for window in windows if window.alarm]
    label = f"Drift scores of {len(windows)} windows; alarm in: {', '.join(alarms) or 'none'}."
    rates = {each.report.windows_per_false_alarm or 1 / each.report.alpha for each in result.drift}
    head = ("window", "verdict", "requests", "score", "threshold", "p")
    return section(
        "Drift",
        "The monitor compares what the network sees in a window of requests with what it saw in training "
        "(squared maximum mean discrepancy of the embeddings). Labels play no part. Mono windows are the "
        "negative control: there it has to stay silent.",
        figure(
            "Drift score of each window, relative to its threshold",
            f"Without drift, of {min(rates):g} windows one raises an alarm, or fewer: all detectors together."
            if windows
            else "No window.",
            responsive(lambda width: drift_chart(windows, width=width, label=label)),
            tag("details", tag("summary", "The same as a table"), table(head, rows, numbers=range(2, 6))),
        ),
    )


def decisions(result: DemoResult) -> Markup:
    items = [_decision(each, result) for each in result.decisions]
    return section(
        "Decisions, and why",
        "Each is stored with the numbers behind it.",
        tag("div", *items, class_="decisions") if items else tag("p", "None was taken."),
    )


def _decision(decision: Decision, result: DemoResult) -> Markup:
    verdict = "carried out" if decision.accepted else "refused"
    numbers = json.dumps(decision.numbers, ensure_ascii=False, default=str) if decision.numbers else ""
    after_s = (decision.created_at - result.started_at).total_seconds()
    when = f" after {format_seconds(after_s)}" if after_s >= 0 else " before this story"
    return tag(
        "article",
        tag(
            "p",
            tag("span", verdict, class_="tag yes" if decision.accepted else "tag no"),
            " ",
            tag("strong", decision.what),
            tag("span", f" · {decision.kind.value}{when}", class_="soft"),
        ),
        tag("p", decision.why, class_="why"),
        tag("details", tag("summary", "Numbers"), code(numbers)) if numbers else None,
        class_="card",
    )


# ---------------------------------------------------------------------------------------------- examples


def examples(result: DemoResult) -> Markup | None:
    """Cells with both models' answers; nothing if there are none."""
    if not result.examples:
        return None
    items = [_example(example) for example in result.examples]
    order = list(Outcome)
    counts = [sum(example.outcome is outcome for example in result.examples) for outcome in order]
    tally = ", ".join(f"{n} {outcome.value}" for n, outcome in zip(counts, order, strict=True) if n)
    return section(
        "Examples",
        f"Held-out cells with what each model answered ({tally}).",
        tag("ul", *items, class_="examples"),
        tag("p", result.image_credit, class_="note") if result.image_credit else None,
    )


def _example(example: Example) -> Markup:
    data = base64.b64encode(example.image).decode()
    alt = (
        f"{example.cell_type} cell, truly {example.truth}; answered {example.before.label} before "
        f"and {example.after.label} after"
    )
    return tag(
        "li",
        tag("img", src=f"data:{media_type_of(example.image)};base64,{data}", alt=alt, loading="lazy"),
        tag(
            "div",
            tag("strong", example.truth),
            tag("span", f" · {example.cell_type}", class_="soft"),
            _answer("was", example.before, example.truth),
            _answer("now", example.after, example.truth),
        ),
    )


def _answer(when: str, prediction: Prediction, truth: str) -> Markup:
    right = prediction.label == truth
    sign = tag("span", "✓ " if right else "✗ ", class_="right" if right else "wrong", aria_hidden="true")
    return tag(
        "span", sign, f"{when} {prediction.label} {percent(prediction.probability, 0)}", class_="answer"
    )


# ----------------------------------------------------------------------------------------- time and cells


def costs(result: DemoResult) -> Markup:
    """Seconds per stage and cells per part."""
    bars = [Bar(stage.name, stage.seconds, format_seconds(stage.seconds)) for stage in result.stages]
    label = f"Seconds per stage, {format_seconds(result.total_s)} in all"
    chart = figure(
        "Seconds per stage",
        f"{format_seconds(result.total_s)} in all.",
        responsive(lambda width: bar_chart(bars, width=width, label=label, x_label="seconds")),
    )
    head = ("part", "cells", "defective", "used for")
    cells = table(
        head,
        [_part(part) for part in result.parts],
        caption="Cells per part of the data",
        numbers=range(1, 3),
    )
    return section(
        "Time and data",
        "Where the seconds went, and how many cells each part holds.",
        chart,
        tag("div", cells, class_="card"),
    )


def _part(part: Part) -> Markup:
    defective = "" if part.defective is None else str(part.defective)
    return row(part.name, [f"{part.n:,}", defective, part.use], numbers=range(1, 3))
