"""What would have to happen for the next search of a deployment, as a section of its page."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from autovision.console import format_seconds
from autovision.records.history import History, Standing
from autovision.report.parts import code, row, section, table
from autovision.report.svg import Markup, join, tag
from autovision.report.time_axis import minute


def standing_section(history: History) -> Markup:
    """The triggers with what they lack, what holds a search back, and what is left of budgets."""
    found = history.standing
    policy = code(f"autovision policy show {history.deployment}")
    if found is None:
        lacks = "No model was promoted yet" if history.champion is None else "No controller has looked yet"
        return section(
            "What next",
            join([f"{lacks}: no search is awaited. ", code("autovision controller run"), " looks."]),
        )
    triggers = [
        row(
            each.trigger,
            ["fires" if each.fires else each.needs or "never", _local(each.at, found), each.why],
        )
        for each in found.triggers
    ]
    limits = [row(each.limit, [_local(each.until, found), each.why]) for each in found.limits]
    return section(
        "What next",
        join(
            [
                f"As of {minute(found.evaluated_at)}: {found.what}. A search begins when a trigger fires and nothing "
                f"holds it back{_budgets(found)}. The rules are the policy's: ",
                policy,
                ".",
            ]
        ),
        tag(
            "div",
            table(["trigger", "takes", _zoned("comes", found), "as it stands"], triggers, class_="log"),
            table(["held back by", _zoned("until", found), "why"], limits, class_="log") if limits else None,
            class_="card",
        ),
    )


def _budgets(found: Standing) -> str:
    known = (
        ("day", found.spent_day_s, found.budget_day_s),
        ("month", found.spent_month_s, found.budget_month_s),
    )
    told = [
        f"{format_seconds(spent)} of {format_seconds(most)} are spent this {name}"
        for name, spent, most in known
        if spent is not None and most is not None
    ]
    return f"; {', '.join(told)}" if told else ""


def _zoned(name: str, found: Standing) -> str:
    return f"{name} ({found.time_zone})"


def _local(at: datetime | None, found: Standing) -> str:
    return "" if at is None else f"{at.astimezone(ZoneInfo(found.time_zone)):%Y-%m-%d %H:%M}"
