"""The decisions about a deployment, with their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from autovision.records.deployments import DecisionKind
from autovision.records.history import History, ToldDecision
from autovision.report.history_sections import MOST, newest
from autovision.report.parts import code, section
from autovision.report.svg import Markup, join, tag
from autovision.report.time_axis import minute


def decisions_section(history: History) -> Markup:
    """The decisions with their reasons; those to wait, one after the other, are one."""
    told = runs(history.decisions)
    items = [_run(each) for each in reversed(told[-MOST:])]
    return section(
        "Decisions, and why",
        join(
            [
                f"{newest(len(items), len(told), 'decisions')} Each is stored with the numbers behind it: ",
                code(f"autovision controller why {history.deployment} --json"),
                ".",
            ]
        )
        if items
        else "None.",
        tag("div", *items, class_="decisions") if items else None,
    )


def runs(decisions: Sequence[ToldDecision]) -> list[list[ToldDecision]]:
    """Decisions, each by itself, but for those to search not again yet that follow each other."""
    found = []
    for waits, group in groupby(decisions, key=_to_search_not):
        alike = list(group)
        found += [alike] if waits else [[each] for each in alike]
    return found


def _to_search_not(decision: ToldDecision) -> bool:
    return decision.kind is DecisionKind.RETRAIN and not decision.accepted


def _run(run: Sequence[ToldDecision]) -> Markup:
    last = run[-1]
    often = f" · {len(run)} times since {minute(run[0].at)}" if len(run) > 1 else ""
    verdict, kind = (
        ("carried out", "yes") if last.accepted else ("waits", "plain") if last.waits else ("refused", "no")
    )
    return tag(
        "article",
        tag(
            "p",
            tag("span", verdict, class_=f"tag {kind}"),
            " ",
            tag("strong", last.what),
            tag("span", f" · {last.kind.value} · {minute(last.at)}{often}", class_="soft"),
        ),
        tag("p", last.why, class_="why"),
        class_="card",
    )
