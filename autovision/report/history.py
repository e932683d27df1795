"""What became of a deployment, as one HTML page."""

from __future__ import annotations

from autovision.console import format_seconds
from autovision.records.history import History, Month
from autovision.report.decisions_section import decisions_section
from autovision.report.detector_words import detector_words
from autovision.report.document import document
from autovision.report.history_sections import (
    alarms_section,
    models_section,
    months_section,
    searches_section,
)
from autovision.report.parts import code, figure, legend, line_swatch, responsive, section, swatch
from autovision.report.standing_section import standing_section
from autovision.report.svg import Markup, join, tag
from autovision.report.time_axis import minute
from autovision.report.timeline import detectors, timeline
from autovision.report.timeline_marks import accuracy_mark, decision_mark, meaning
from autovision.search.estimates.prices import money


def render(history: History) -> str:
    """The whole page. Every text from outside is escaped."""
    return document(
        title=f"AutoVision deployment {history.deployment}",
        header=_header(history),
        main=join(
            [
                _timeline(history),
                standing_section(history),
                models_section(history),
                alarms_section(history),
                months_section(history),
                searches_section(history),
                decisions_section(history),
            ]
        ),
        footer=tag(
            "footer",
            tag("p", "As JSON: ", code(f"autovision report {history.deployment} --json")),
            tag("p", "All of it is in the store ", code(history.uri), ". Times are UTC."),
        ),
    )


def headline(history: History) -> str:
    """One sentence: who is champion since when, and how good."""
    if history.champion is None:
        return "No model has been promoted yet."
    since = history.reigns[-1].since if history.reigns else history.since
    said = f"{history.champion} is champion since {minute(since)}"
    known = history.models.get(history.champion)
    if known is not None:
        said += f": accuracy {known.accuracy} on {known.n:,} held-out images"
    if history.challenger is not None:
        said += f"; {history.challenger} is on its way to take over"
    return f"{said}."


def spent(sums: Month) -> str:
    """Seconds, and money where there were prices."""
    parts = [
        format_seconds(sums.spent_s),
        *(money(amount, which) for which, amount in sorted(sums.cost.items())),
    ]
    return ", ".join(parts)


def judged(sums: Month) -> str:
    """What labels said after alarms."""
    unknown = sums.alarms - sums.harmful - sums.harmless
    counts = ((sums.harmful, "worse"), (sums.harmless, "not worse"), (unknown, "unknown"))
    return ", ".join(f"{n} {what}" for n, what in counts if n)


def counted(history: History, count: int) -> str:
    """A number of requests."""
    return f"{'' if history.requests_counted else 'about '}{count:,}"


def _header(history: History) -> Markup:
    sums = history.sums
    labelled = next((w.accuracy for w in reversed(history.windows) if w.accuracy is not None), None)
    known = history.models.get(history.champion or "")
    tiles = [
        _tile(
            "Held-out accuracy",
            "unknown" if known is None else f"{known.accuracy.value:.3f}",
            ""
            if known is None
            else f"of the champion; 95\N{NO-BREAK SPACE}%: {known.accuracy.low:.3f} to {known.accuracy.high:.3f}",
        ),
        _tile(
            "Labelled requests",
            "none yet" if labelled is None else f"{labelled.value:.3f}",
            ""
            if labelled is None
            else f"right, of the latest {labelled.n:,}; 95\N{NO-BREAK SPACE}%: {labelled.low:.3f} to "
            f"{labelled.high:.3f}",
        ),
        _tile(
            "Alarms",
            f"{sums.alarms} of {sums.windows:,}" if sums.windows else "none yet",
            f"windows; by labels: {judged(sums)}"
            if sums.alarms
            else "windows"
            if sums.windows
            else "no window yet",
        ),
        _tile("Searches", f"{sums.searches}", spent(sums) if sums.searches else ""),
        _tile("Requests", counted(history, sums.requests), f"stored; {sums.labelled:,} labelled"),
    ]
    notes = tag("ul", *(tag("li", note) for note in history.notes), class_="note") if history.notes else None
    return tag(
        "header",
        tag(
            "p",
            f"AutoVision deployment · {minute(history.since)} to {minute(history.until)} UTC",
            class_="kicker",
        ),
        tag("h1", history.deployment),
        tag("p", headline(history), class_="verdict" if history.champion else "verdict not"),
        tag("dl", *tiles, class_="tiles"),
        notes,
    )


def _tile(name: str, value: str, small: str) -> Markup:
    return tag("div", tag("dt", name), tag("dd", value, tag("small", small) if small else None))


def _timeline(history: History) -> Markup:
    marks = dict.fromkeys(name for each in history.decisions if (name := meaning(each)) is not None)
    entries = [(swatch(decision_mark(name, 9, 7)), name) for name in marks]
    if any(window.alarm for window in history.windows):
        entries.append((swatch(tag("circle", cx=9, cy=7, r=4, class_="spot alarmed")), "alarm"))
    if history.models:
        entries.append((line_swatch("held"), "on held-out images"))
    if any(window.estimate for window in history.windows):
        entries.append((swatch(accuracy_mark("estimated", 9, 7)), "estimated without labels"))
    if any(window.accuracy for window in history.windows):
        entries.append((swatch(accuracy_mark("labelled", 9, 7)), "of labelled requests"))
    for class_, name, there in (
        ("bar", "search whose model became champion", any(e.became_champion for e in history.searches)),
        ("bar idle", "another search", not all(e.became_champion for e in history.searches)),
    ):
        if there:
            entries.append((swatch(tag("rect", x=6, y=1, width=6, height=12, class_=class_)), name))
    if not (history.reigns or history.windows or history.decisions or history.searches):
        return section(
            "Timeline",
            join(
                [
                    "Nothing has happened yet. It begins when ",
                    code(f"autovision promote MODEL --to {history.deployment}"),
                    " promotes the first model.",
                ]
            ),
        )
    return section(
        "Timeline",
        "All of it over the same time. Drift scores are drawn relative to their thresholds, on a logarithmic scale; "
        "bars and bands are 95\N{NO-BREAK SPACE}% intervals. Of windows that lie too close to be drawn one by one, the "
        "most alarming is, and of accuracies the median.",
        figure(
            history.deployment,
            "Models go by their numbers in the table below.",
            legend(entries) if entries else None,
            responsive(lambda width: timeline(history, width)),
            detector_words(detectors(history)),
        ),
    )
