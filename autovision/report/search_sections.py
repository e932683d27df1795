"""The report's sections on searches: progress, learning curves, winning configurations, lineage."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autovision.console import format_seconds, format_value, short_config
from autovision.records.models import ModelVersion
from autovision.records.trials import TrialResult, TrialState
from autovision.report.charts import Line, LineKind, Mark, MarkKind, steps, trace_chart
from autovision.report.parts import (
    HALF,
    WIDE,
    code,
    figure,
    legend,
    line_swatch,
    mark_swatch,
    responsive,
    row,
    section,
    table,
)
from autovision.report.search_view import SearchView
from autovision.report.svg import Markup, nice_range, tag
from autovision.space.config import TrialConfig

_KINDS: dict[TrialState, MarkKind] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.STOPPED: "stopped",
    TrialState.FAILED: "failed",
}
_MEANINGS: dict[MarkKind, str] = {
    "complete": "ran to its end",
    "pruned": "pruned: worse than its peers",
    "stopped": "cut short by the budget",
    "failed": "failed",
}


_MOST_DRAWN = 400
"""trials in a chart: a browser has to draw each, and more than so many are a blur"""


def searches_section(searches: Sequence[SearchView]) -> Markup:
    """How each search went: all of its trials, on one scale per measure."""
    width = HALF if len(searches) > 1 else WIDE
    progress, curves = _progress_range(searches), _curves_range(searches)
    lead = (
        "Every trial is one configuration. The scheduler stops those that fall behind, so that seconds go "
        "where they pay. All figures here are on validation images; test images are opened only afterwards."
    )
    if len({view.request.dataset_digest for view in searches}) > 1:
        lead += " The searches are judged on different versions of the data: compare shapes, not levels."
    return section(
        "The searches",
        lead,
        tag("div", *(progress_figure(v, y_range=progress, width=width) for v in searches), class_="pair"),
        tag("div", *(curves_figure(v, y_range=curves, width=width) for v in searches), class_="pair"),
        configurations(searches),
    )


def progress_figure(
    view: SearchView, *, y_range: tuple[float, float] | None = None, width: float = WIDE
) -> Markup:
    """Best so far over the search's seconds, and where each trial ended."""
    drawn = _drawn(view)
    marks = [_mark(trial) for trial in drawn if trial.value is not None]
    best = view.best_so_far()
    until = max([x for x, _ in best] + [mark.x for mark in marks], default=0.0)
    line = Line(steps(best, until), "best", "best so far")
    reached = f"best {view.metric} {best[-1][1]:.4f}" if best else "no trial reported"
    label = f"{view.title}: {reached} after {format_seconds(view.state.spent_s)}, {len(view.trials)} trials"
    return figure(
        f"{view.title}: {reached}",
        f"{_tally(view)} in {format_seconds(view.state.spent_s)} of {format_seconds(view.budget_s)}. "
        f"Reason: {view.request.reason}.{_only(view, drawn)}",
        legend([(line_swatch("trace best"), "best so far"), *_mark_entries(view)]),
        responsive(
            lambda width: trace_chart(
                [line],
                marks,
                width=width,
                height=300,
                label=label,
                x_label="seconds of the search",
                y_label=f"validation {view.metric}",
                y_range=y_range,
                limit=(view.budget_s, "budget"),
            ),
            width,
        ),
    )


def curves_figure(
    view: SearchView, *, y_range: tuple[float, float] | None = None, width: float = WIDE
) -> Markup:
    """Every trial's metric over its epochs: the winner emphasised, the pruned ones ended with a cross."""
    drawn = _drawn(view)
    lines = [_curve(trial, view) for trial in drawn]
    winner = view.winner
    ends = [
        entry for entry in _mark_entries(view) if entry[1] not in (_MEANINGS["complete"], _MEANINGS["failed"])
    ]
    best = f"Winner, bold: {short_config(winner.config)}." if winner else "No winner."
    best += _only(view, drawn)
    return figure(
        f"{view.title}: learning curves",
        best,
        legend([(line_swatch("trace winner"), "winner"), (line_swatch("trace thin"), "other trials"), *ends]),
        responsive(
            lambda width: trace_chart(
                lines,
                width=width,
                height=300,
                label=f"{view.title}: {view.metric} of {len(lines)} trials over their epochs. {best}",
                x_label="epoch",
                y_label=f"validation {view.metric}",
                y_range=y_range,
            ),
            width,
        ),
    )


def configurations(searches: Sequence[SearchView]) -> Markup:
    """The winning configurations side by side: what differs from the defaults or between them."""
    winners = [(view.title, view.winner.config) for view in searches if view.winner]
    if not winners:
        return Markup()
    configs = [config for _, config in winners]
    defaults = {name: field.default for name, field in TrialConfig.model_fields.items()}
    names = list(dict.fromkeys([*defaults, *(name for config in configs for name in config)]))
    rows = []
    for name in names:
        values = [config.get(name, defaults.get(name)) for config in configs]
        changed = any(value != values[0] for value in values)
        if changed or values[0] != defaults.get(name):
            rows.append(row(name, [format_value(v) for v in values], class_="changed" if changed else ""))
    caption = "Winning configurations. ≠ marks what differs between the searches; all else is at its default."
    return tag(
        "div",
        table(["parameter", *(title for title, _ in winners)], rows, caption=caption, class_="facts"),
        class_="card",
    )


def lineage_section(models: Sequence[tuple[str, ModelVersion]]) -> Markup:
    """What each model came from, side by side."""
    columns = [_lineage(model) for _, model in models]
    rows = []
    for name in columns[0] if columns else ():
        values = [column[name] for column in columns]
        changed = any(value != values[0] for value in values)
        rows.append(row(name, [code(v) for v in values], class_="changed" if changed else ""))
    return section(
        "Where the models came from",
        "Each model version is immutable and names everything that made it.",
        tag("div", table(["", *(title for title, _ in models)], rows, class_="facts"), class_="card"),
    )


def _lineage(model: ModelVersion) -> dict[str, str]:
    lineage = model.lineage
    size = f"{model.size_bytes / 1e6:.1f} MB, {model.parameters:,} parameters"
    pixels = f"{model.preprocessing.height} by {model.preprocessing.width} pixels"
    return {
        "model": model.id,
        "registered": f"{model.created_at:%Y-%m-%d %H:%M:%S %Z}",
        "data": lineage.dataset,
        "data digest": lineage.dataset_digest,
        "backbone": lineage.backbone,
        "weights digest": lineage.backbone_weights_digest,
        "weights from": f"{lineage.backbone_weights_source} ({lineage.backbone_weights_license})",
        "search": lineage.search,
        "trial": lineage.trial,
        "space": lineage.space_fingerprint,
        "seed": str(lineage.seed),
        "code": lineage.code_version,
        "parents": ", ".join(lineage.parents) or "none",
        "size": size,
        "input": f"{pixels}, served in {model.precision}",
        "temperature": format_value(model.temperature),
        "packages": ", ".join(f"{name} {version}" for name, version in sorted(lineage.packages.items())),
    }


def _drawn(view: SearchView) -> list[TrialResult]:
    """The trials that are drawn: those with a curve; of many, the best ones."""
    curved = [trial for trial in view.trials if trial.curve]
    if len(curved) <= _MOST_DRAWN:
        return curved
    best = sorted(curved, key=lambda trial: -math.inf if trial.value is None else trial.value)[-_MOST_DRAWN:]
    return sorted(best, key=lambda trial: trial.number)


def _only(view: SearchView, drawn: Sequence[TrialResult]) -> str:
    """A sentence that says so where not all trials are drawn."""
    return f" Drawn are the best {len(drawn)}." if len(drawn) == _MOST_DRAWN < len(view.trials) else ""


def _mark(trial: TrialResult) -> Mark:
    value = trial.value if trial.value is not None else math.nan
    return Mark(trial.curve[-1].search_s, value, _KINDS[trial.state], _describe(trial))


def _curve(trial: TrialResult, view: SearchView) -> Line:
    points = [(float(p.epoch), p.metrics.get(view.metric, math.nan)) for p in trial.curve]
    won = trial.trial == view.state.best_trial
    kind: LineKind = "winner" if won else "thin"
    return Line(
        points, kind, _describe(trial), None if trial.state is TrialState.COMPLETE else _KINDS[trial.state]
    )


def _describe(trial: TrialResult) -> str:
    value = f"{trial.value:.4f}" if trial.value is not None else "no value"
    return (
        f"trial {trial.number}, {trial.state.value}, {value}: {short_config(trial.config)} ({trial.origin})"
    )


def _tally(view: SearchView) -> str:
    counts = [f"{view.count(state)} {state.value}" for state in TrialState if view.count(state)]
    return f"{len(view.trials)} trials ({', '.join(counts)})" if counts else "No trial ended"


def _mark_entries(view: SearchView) -> list[tuple[Markup, str]]:
    present = {_KINDS[trial.state] for trial in view.trials}
    return [(mark_swatch(kind), meaning) for kind, meaning in _MEANINGS.items() if kind in present]


def _progress_range(searches: Sequence[SearchView]) -> tuple[float, float]:
    best = [value for view in searches for _, value in view.best_so_far()]
    return nice_range(best + [t.value for view in searches for t in view.trials if t.value is not None])


def _curves_range(searches: Sequence[SearchView]) -> tuple[float, float]:
    return nice_range(
        point.metrics.get(view.metric, math.nan)
        for view in searches
        for trial in view.trials
        for point in trial.curve
    )
