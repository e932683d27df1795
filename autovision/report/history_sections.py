"""The sections of a deployment's page that are tables: models, alarms, months, searches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from autovision.console import format_seconds
from autovision.records.deployments import Moved
from autovision.records.history import (
    DriftWindow,
    GroupFigure,
    History,
    Month,
    SearchFacts,
    reach,
)
from autovision.report.parts import code, row, section, table
from autovision.report.svg import Markup, join, minus, tag, times
from autovision.report.time_axis import stamp
from autovision.report.timeline import numbers
from autovision.search.estimates.prices import money

MOST = 40
"""rows of a table; the JSON form has all"""
WORD = {True: "worse", False: "not worse", None: "none yet"}
"""what labels say after an alarm"""
_MOST_MODELS = 6
"""columns"""
_MOST_MOVED = 3


def models_section(history: History) -> Markup:
    """Who was champion when, and how good each is on held-out images."""
    number = numbers(history)
    with_metric = history.metric != "accuracy"
    rows = []
    for reign in history.reigns[-MOST:]:
        known = history.models.get(reign.model)
        figures = (
            ["", "", "not stored any more", ""]
            if known is None
            else [
                known.dataset,
                f"{known.n:,}",
                str(known.accuracy),
                "" if known.metric == "accuracy" else f"{known.metric} {known.value or 'unknown'}",
            ]
        )
        rows.append(
            row(
                f"{number[reign.model]}",
                [
                    code(reign.model),
                    stamp(reign.since),
                    "now" if reign.until is None else stamp(reign.until),
                    *figures[: 4 if with_metric else 3],
                ],
                numbers=range(5, 6),
            )
        )
    columns = [
        "",
        "model",
        "champion from",
        "until",
        "data",
        "held-out",
        "accuracy",
        *(["metric"] if with_metric else []),
    ]
    if not rows:
        return section("Models", "No model has been champion yet.")
    return section(
        "Models",
        "Each figure is of the held-out images of the model's own version of the data: compare them with care.",
        tag(
            "div",
            table(columns, rows, class_="log", numbers=range(5, 6)),
            _groups(history, number),
            class_="card",
        ),
    )


def _groups(history: History, number: dict[str, int]) -> Markup | None:
    shown = [model for model in number if model in history.models][-_MOST_MODELS:]
    rows = []
    for kind, name_of in (("recall", "recall of {}"), ("subgroups", "accuracy, {}")):
        of = {model: getattr(history.models[model], kind) for model in shown}
        for name in dict.fromkeys(name for groups in of.values() for name in groups):
            rows.append(row(name_of.format(name), [_group(of[model].get(name)) for model in shown]))
    if not rows:
        return None
    heads = ["", *(f"model {number[model]}" for model in shown)]
    content = table(heads, rows[:MOST], caption="Figure [95 % interval], n")
    return tag("details", tag("summary", "By class and subgroup"), content)


def _group(figure: GroupFigure | None) -> str:
    if figure is None:
        return ""
    interval = "" if figure.low is None or figure.high is None else f" [{figure.low:.3f}, {figure.high:.3f}]"
    return f"{figure.value:.3f}{interval}{'' if figure.n is None else f', {figure.n:,}'}"


# ------------------------------------------------------------------------------------------------ alarms


def alarms_section(history: History) -> Markup:
    """What moved in each alarm, and what came of it; windows that alarm one after the other are one row."""
    alarms = episodes(history.windows)
    rows = [
        row(
            join([span(each), tag("br"), code(each[-1].report)]),
            [
                f"{len(each)}",
                alarming(each),
                moved(each),
                said_by_labels(each),
                code(led_to(each)) if led_to(each) else "no search",
            ],
            numbers=range(1, 2),
        )
        for each in reversed(alarms[-MOST:])
    ]
    if not rows:
        none = f"None in {len(history.windows):,} windows."
        return section("Alarms", none if history.windows else "No window of requests has been examined yet.")
    return section(
        "Alarms",
        join(
            [
                f"In {history.sums.alarms:,} of {len(history.windows):,} windows. An alarm says that requests are "
                "unlike the held-out images, not that the model is worse on them: that, labels tell, as far as there "
                "are any. The images of one are shown by ",
                code(f"autovision monitor {history.deployment} --report ID --html FILE"),
                ".",
            ]
        ),
        tag(
            "div",
            table(
                [
                    "windows until, report",
                    "windows",
                    "detector, score ÷ threshold",
                    "what moved, from → to",
                    "labels that came next",
                    "led to",
                ],
                rows,
                caption=newest(len(rows), len(alarms), "times of alarm"),
                class_="log",
                numbers=range(1, 2),
            ),
            class_="card",
        ),
    )


def episodes(windows: Sequence[DriftWindow]) -> list[list[DriftWindow]]:
    """Windows that raised an alarm one after the other, of one model."""
    runs = groupby(windows, key=lambda each: (each.alarm, each.model))
    return [list(run) for (alarm, _), run in runs if alarm]


def span(windows: Sequence[DriftWindow]) -> Markup:
    """When the first and the last of some windows ended."""
    first, last = windows[0].end, windows[-1].end
    return stamp(first) if first == last else join([stamp(first), " to ", stamp(last)])


def alarming(windows: Sequence[DriftWindow]) -> str:
    """The detectors that raised an alarm, the furthest beyond its threshold first."""
    found: dict[str, float] = {}
    for each in (verdict for window in windows for verdict in window.detectors):
        if each.alarm:
            found[each.name] = max(reach(each), found.get(each.name, 0.0))
    ordered = sorted(found.items(), key=lambda each: -each[1])
    return ", ".join(f"{name} {times(f'{far:.3g}')}" for name, far in ordered)


def moved(windows: Sequence[DriftWindow]) -> str:
    """What moved most surely."""
    found: dict[tuple[str, str], Moved] = {}
    for verdict in (verdict for window in windows for verdict in window.detectors if verdict.alarm):
        for each in verdict.moved:
            other = found.get((each.kind, each.name))
            if other is None or each.p_value <= other.p_value:
                found[each.kind, each.name] = each
    surest = sorted(found.values(), key=lambda each: each.p_value)
    more = f", and {len(surest) - _MOST_MOVED} more" if len(surest) > _MOST_MOVED else ""
    return ", ".join(map(_moved, surest[:_MOST_MOVED])) + more


def led_to(windows: Sequence[DriftWindow]) -> str:
    """The search that an alarm led to, or nothing."""
    return next((each.search for each in reversed(windows) if each.search), "")


def harm(windows: Sequence[DriftWindow]) -> bool | None:
    """What labels said of most of some windows: whether the model had become worse; None: nothing."""
    said = _judged(windows)
    return 2 * sum(said) >= len(said) if said else None


def said_by_labels(windows: Sequence[DriftWindow]) -> str:
    """What labels said after an alarm, of how many windows, and the last figure that says so."""
    said, verdict = _judged(windows), harm(windows)
    word = WORD[verdict]
    if len(said) > 1:
        word += f" after {said.count(bool(verdict))} of {len(said)}"
    known = (each.accuracy for each in reversed(windows) if each.accuracy is not None)
    found = next((each for each in known if (each.high < each.expected) is verdict), None)
    if found is None:
        return word
    figure = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    return f"{word}: {figure}, {found.expected:.3f} expected, n = {found.n:,}"


def _judged(windows: Sequence[DriftWindow]) -> list[bool]:
    return [each.harm for each in windows if each.harm is not None]


def _moved(each: Moved) -> str:
    kind = {"class": "answers ", "subgroup": "images of "}.get(each.kind, "")
    return f"{kind}{each.name} {minus(f'{each.reference:.3g}')} → {minus(f'{each.window:.3g}')}"


# -------------------------------------------------------------------------------------- months, searches


def months_section(history: History) -> Markup:
    """Searches, spend, alarms, requests and labels by month."""
    sums = history.sums
    rows = [_month(each, history) for each in history.months[-MOST:]]
    total = _month(sums.with_(month="all"), history, class_="total")
    columns = [
        "month",
        "searches",
        "took",
        "cost",
        "new champions",
        "windows",
        "alarms",
        "worse",
        "not worse",
        "requests",
        "labelled",
    ]
    return section(
        "By month",
        "Requests are those that are still stored. Worse, and not worse, are alarms after which labels said so.",
        tag("div", table(columns, [*rows, total], numbers=range(1, 11)), class_="card"),
    )


def _month(each: Month, history: History, class_: str = "") -> Markup:
    about = "" if history.requests_counted or not each.requests else "about "
    return row(
        each.month,
        [
            str(each.searches),
            format_seconds(each.spent_s) if each.searches else "",
            ", ".join(money(amount, which) for which, amount in sorted(each.cost.items())),
            str(each.champions),
            f"{each.windows:,}",
            str(each.alarms),
            str(each.harmful),
            str(each.harmless),
            f"{about}{each.requests:,}",
            f"{each.labelled:,}",
        ],
        numbers=range(1, 11),
        class_=class_,
    )


def searches_section(history: History) -> Markup:
    """Every search with what led to it, what it took and what came of it."""
    shown = history.searches[-MOST:]
    if not shown:
        return section("Searches", "None.")
    caption = newest(len(shown), len(history.searches), "searches")
    columns = ["asked for", "search", "why", "trials", "took", "cost", "what came of it"]
    rows = [_search(each) for each in reversed(shown)]
    return section(
        "Searches",
        join(["Why one ended as it did is told by ", code("autovision search explain SEARCH"), "."]),
        tag("div", table(columns, rows, caption=caption, class_="log", numbers=range(3, 6)), class_="card"),
    )


def _search(each: SearchFacts) -> Markup:
    if each.model is None:
        became = str(each.status)
    else:
        became = join([code(each.model), ", champion" if each.became_champion else ", not champion"])
    return row(
        stamp(each.at),
        [
            code(each.search),
            each.reason,
            f"{each.trials:,}",
            format_seconds(each.spent_s),
            "" if each.cost is None else money(each.cost, each.currency),
            became,
        ],
        numbers=range(3, 6),
    )


def newest(shown: int, of: int, what: str) -> str:
    return f"The latest {shown} of {of:,} {what}, newest first." if shown < of else "Newest first."
