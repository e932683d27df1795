"""A search's explanation as one HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autovision.console import format_seconds, format_value
from autovision.records.searches import Excess, SearchRequest, SearchState
from autovision.records.trials import TrialResult
from autovision.report.charts import Bar, bar_chart
from autovision.report.document import document
from autovision.report.front_section import front_section
from autovision.report.parts import HALF, code, figure, responsive, row, section, table
from autovision.report.search_sections import searches_section
from autovision.report.search_view import SearchView
from autovision.report.svg import Markup, join, tag
from autovision.search.explain import Contender, Cut, Explanation, Finish, Importance, Judged, Winner

_MOST = 40
"""rows of a table; the text and JSON forms have all"""


def render(
    explanation: Explanation,
    request: SearchRequest,
    state: SearchState,
    ledger: Sequence[TrialResult],
) -> str:
    """The whole page. Every text from outside is escaped."""
    view = SearchView(title="The search", request=request, state=state, trials=tuple(ledger))
    dataset = f"{request.dataset}@{request.dataset_version}"
    header = tag(
        "header",
        tag("h1", f"Search {explanation.search}"),
        tag("p", f"{headline(explanation)} Data set {dataset}, {_stands(explanation)}", class_="lead"),
        None
        if explanation.expected is None
        else tag("p", f"Expected: {explanation.expected}.", class_="soft"),
    )
    return document(
        title=f"AutoVision search {explanation.search}",
        header=header,
        main=join(
            [
                _winner(explanation),
                _candidates(explanation.candidates),
                _confirmed(explanation.confirmed, explanation.winner),
                front_section(explanation.front, explanation.metric, explanation.search),
                _ladder(explanation),
                searches_section([view]),
                _importance(explanation.importance),
                _seconds(explanation),
                _pruned(explanation.pruned),
                _troubles(explanation),
            ]
        ),
        footer=tag(
            "footer", tag("p", "As JSON: ", code(f"autovision search explain {explanation.search} --json"))
        ),
    )


def headline(explanation: Explanation) -> str:
    """One sentence: what came of it."""
    trials = sum(explanation.ended.values())
    spent = format_seconds(explanation.seconds.wall)
    if explanation.winner is None:
        return f"No model after {trials} trials and {spent}."
    return f"Best {explanation.metric} {explanation.winner.value:.4f} on validation after {trials} trials and {spent}."


def _stands(explanation: Explanation) -> str:
    """How the search stands, and why, as the end of a sentence."""
    why = explanation.error or explanation.ended_early
    return f"{explanation.status}{'' if why is None else f': {why}'}."


def _winner(explanation: Explanation) -> Markup:
    winner = explanation.winner
    if winner is None:
        return section("Why it won", "No trial left a model.")
    if winner.runner_up is None or winner.lead is None:
        lead = f"{winner.trial} is the only trial with a model."
    elif winner.lead < 0:
        lead = (
            f"{winner.runner_up} leads {winner.trial} by {-winner.lead:.4f} on {winner.judged_on}, but less is "
            "expected of offering it to the gates."
        )
    else:
        lead = (
            f"{winner.trial} leads {winner.runner_up} by {winner.lead:.4f} on {winner.judged_on}, in the value that "
            f"trials are ranked by: {explanation.metric} less a fiftieth of the log loss."
        )
    names = [*winner.differs, *(name for name in winner.changed if name not in winner.differs)]
    alone = winner.runner_up is None
    rows = [
        row(
            name,
            [
                format_value(winner.differs[name][0] if name in winner.differs else winner.changed[name]),
                *(
                    []
                    if alone
                    else [format_value(winner.differs[name][1]) if name in winner.differs else "the same"]
                ),
            ],
            class_="changed" if name in winner.differs else "",
        )
        for name in names
    ]
    heads = ["parameter", "winner", *([] if alone else ["runner-up"])]
    caption = f"What the winner has that {'' if alone else 'the runner-up or '}the space's default has not."
    content = table(heads, rows, caption=caption, class_="facts")
    return section("Why it won", lead, tag("div", content, class_="card") if rows else None)


_OFFERED = ("chance at the gates", "expected", "most at risk")
_EXPECTED = (
    " The chance is that of the promotion gates not to refuse it for a loss; what is expected is the "
    "value less what is lost if they do."
)


def _candidates(candidates: Sequence[Contender]) -> Markup:
    rows = [row(each.told, [f"{each.value:.4f}", *_offered(each)]) for each in candidates]
    if not rows:
        return Markup()
    lead = (
        "The best of the trials was compared with the champion that it is to succeed, each as it would serve; the "
        "first of them became the model."
    )
    caption = (
        "What trials are ranked by, on validation. What is fitted there was fitted to other parts of it."
        + _EXPECTED
    )
    content = table(["candidate", "value", *_OFFERED], rows, caption=caption, class_="facts")
    return section("Beside the champion", lead, tag("div", content, class_="card"))


def _offered(each: Contender | Judged) -> list[str]:
    """What is expected of offering it to the gates."""
    chance = "" if each.chance is None else f"{each.chance:.0%}"
    return [chance, "" if each.expected is None else f"{each.expected:.4f}", each.at_risk]


def _confirmed(confirmed: Sequence[Judged], winner: Winner | None) -> Markup:
    compared = any(each.expected is not None for each in confirmed)
    rows = [
        row(
            each.trial,
            [f"{each.value:.4f}", f"{each.confirmed:.4f}", *(_offered(each) if compared else ())],
        )
        for each in confirmed
    ]
    if not rows:
        return Markup()
    lead = (
        "The best of many trials on few validation images is often only the luckiest: these were cross-validated on "
        "the training images, too"
    )
    if winner is None or winner.trial == confirmed[0].trial:
        lead += ", and the first of them became the model."
    else:
        lead += (
            f". The model is {winner.trial} all the same: it cannot be judged so, and what it was ahead of them on "
            "validation is more than the first of them gained."
        )
    caption = "What they are ranked by, on validation and on both together." + (_EXPECTED if compared else "")
    heads = ["trial", "validation", "train and validation", *(_OFFERED if compared else ())]
    content = table(heads, rows, caption=caption, class_="facts")
    return section("Judged once more", lead, tag("div", content, class_="card"))


def _ladder(explanation: Explanation) -> Markup:
    rows = [
        row(
            each.name,
            [
                "" if each.trials is None else str(each.trials),
                "" if each.batches is None else str(each.batches),
                format_seconds(each.seconds),
                ("none" if each.batches is not None else "") if each.best is None else _four(each.best),
            ],
            numbers=range(1, 5),
        )
        for each in explanation.ladder
    ]
    columns = ["rung", "trials", "computations", "seconds", f"best {explanation.metric}"]
    made_of = _made_of(explanation.finish)
    return section(
        "The ladder",
        "What can be served is measured; then from heads on frozen features, many trained as one computation, to "
        "networks of which ever more is trained; and the best is finished.",
        tag("div", table(columns, rows, numbers=range(1, 5)), class_="card") if rows else None,
        tag("ul", *(tag("li", note) for note in made_of), class_="note") if made_of else None,
    )


def _made_of(finish: Finish | None) -> list[str]:
    """What became of the best trials on the way to the model, and how that was decided."""
    if finish is None:
        return []
    several = (
        [f"The model is the average of the weights of {', '.join(finish.trials)}."]
        if len(finish.trials) > 1
        else []
    )
    again = [] if finish.refit is None else [f"It was trained again on {finish.refit:,} images."]
    return [*several, *again, *finish.notes]


def _importance(found: Sequence[Importance]) -> Markup:
    if not found:
        return section("What mattered", "Too few trials to tell: eight with a value are needed.")
    bars = [Bar(each.parameter, each.share, f"{each.share:.2f}") for each in found]
    best = [f"{each.parameter} {format_value(each.best)}" for each in found if each.best is not None]
    choices = f" The choices that did best on average: {', '.join(best)}." if best else ""
    return section(
        "What mattered",
        "The share of the differences after the first rung that each parameter explains by itself (functional "
        "ANOVA, Hutter et al. 2014). Where a trial does not have a parameter, its default stands in.",
        figure(
            "Importance of parameters",
            f"{min(each.trials for each in found)} to {max(each.trials for each in found)} trials.{choices}",
            responsive(
                lambda width: bar_chart(
                    bars, width=width, label="Importance of parameters", x_label="share of the variance"
                )
            ),
        ),
    )


def _seconds(explanation: Explanation) -> Markup:
    seconds = explanation.seconds
    kinds = {"features": seconds.features, "training": seconds.training}
    ends = {"pruned trials": seconds.pruned, "failed trials": seconds.failed}
    clock = {
        "before the trials": seconds.feasibility,
        "with trials": seconds.trials,
        "the finish": seconds.finish,
    }
    first = (
        "no value"
        if seconds.first_value is None
        else f"the first value after {format_seconds(seconds.first_value)}"
    )

    def bars(of: dict[str, float], name: str, told: str = "Seconds of all trials together.") -> Markup:
        drawn = [Bar(label.removeprefix("tf_"), value, format_seconds(value)) for label, value in of.items()]
        return figure(
            name,
            told,
            responsive(lambda width: bar_chart(drawn, width=width, label=name, x_label="seconds"), HALF),
        )

    return section(
        "Where the seconds went",
        f"{format_seconds(seconds.wall)} by the clock, {first}. Trials run side by side: theirs add up to more.",
        tag(
            "div",
            bars(clock, "By the clock", "Seconds that passed.")
            if seconds.feasibility or seconds.finish
            else None,
            bars(kinds | ends, "By what was done"),
            bars(dict(seconds.by_backbone), "By backbone"),
            class_="pair",
        ),
    )


def _pruned(cuts: Sequence[Cut]) -> Markup:
    if not cuts:
        return section("What was pruned", "Nothing.")
    rows = [
        row(
            each.trial,
            [
                format_seconds(each.search_s),
                str(each.epoch),
                _four(each.value),
                _four(each.needed),
                str(each.seen),
            ],
            numbers=range(1, 6),
        )
        for each in cuts[:_MOST]
    ]
    more = f" The first {_MOST} of {len(cuts)}." if len(cuts) > _MOST else ""
    if (shared := sum(each.why == "shared" for each in cuts)) > 0:
        more += f" {shared} of all were not behind: they gave a place to another search."
    return section(
        "What was pruned",
        "A trial goes on if it has what trials of its kind need that have cost about as much; one that was paused goes "
        "on later if it comes to have it.",
        tag(
            "div",
            table(
                ["trial", "after", "epoch", "value", "needed", "of"],
                rows,
                caption=f"Pruned trials, in the order in which they were.{more}",
                numbers=range(1, 6),
            ),
            class_="card",
        ),
    )


def _troubles(explanation: Explanation) -> Markup:
    rows = [row(str(each.trials), [each.reason, code(each.example)]) for each in explanation.failures]
    content = [table(["trials", "why they failed", "one of them"], rows)] if rows else []
    content += (
        [tag("ul", *(tag("li", note) for note in explanation.left_out))] if explanation.left_out else []
    )
    lead = "Trials that failed, and what was left out before the first one." if content else "Nothing."
    return section(
        "What could not be",
        lead,
        _excesses(explanation.infeasible) if explanation.infeasible else None,
        tag("div", *content, class_="card") if content else None,
    )


def _excesses(found: Sequence[Excess]) -> Markup:
    """One drawing for each limit that something misses."""
    kinds = dict.fromkeys(each.of for each in found)
    return tag(
        "div", *(_missing([each for each in found if each.of == kind]) for kind in kinds), class_="pair"
    )


def _missing(found: Sequence[Excess]) -> Markup:
    first = found[0]
    bars = [
        Bar(
            each.networks.removeprefix("tf_"),
            each.value,
            f"{each.value:.4g}, {each.value / each.limit:.2f} x",
        )
        for each in found
    ]
    on = sorted({each.runtime for each in found if each.runtime})
    measured = f", measured on {' and '.join(on)}" if on else ""
    label = f"Networks that miss the limit on {first.of}"
    return figure(
        label,
        f"Of each kind the smallest that misses it: {first.limit:g} {first.unit}{measured}.",
        responsive(lambda width: bar_chart(bars, width=width, label=label, x_label=first.unit), HALF),
    )


def _four(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "none"
