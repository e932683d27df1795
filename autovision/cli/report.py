"""`autovision report`: what became of a deployment, in the terminal, as a page, or as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli.options import Json, Store
from autovision.cli.output import answering, check_output_file, facts, library, table, write_file

if TYPE_CHECKING:
    from rich.table import Table

    from autovision.records.history import DriftWindow, History, Month, Overview

_LATEST = 10
"""rows of what there may be many of; the other forms have more"""
_DAYS = re.compile(r"(\d{1,6})d")


def report(
    deployment: Annotated[
        str | None,
        typer.Argument(metavar="[DEPLOYMENT]", help="Its name; without it all deployments are listed."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Also write a page with a timeline there; it stands alone."
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="Leave out what is older: a date or a time (UTC unless it says another zone), or 90d for 90 days ago.",
            show_default="since it was made",
        ),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Tell what became of a deployment: its models, drift, accuracy, searches and what they took, decisions.

    Without a name: a line for each deployment there is, with its champion, its latest window and what was decided last.
    """
    from autovision.errors import InvalidInput
    from autovision.records.base import now

    with answering(as_json) as out:
        begin = None if since is None else moment(since, now())
        if deployment is None:
            if html is not None or since is not None:
                raise InvalidInput(
                    "--html and --since are of one deployment; name it: autovision report DEPLOYMENT"
                )
            known = library(store).overview()
            nothing = "There is no deployment yet; `autovision promote` makes one."
            out.answer(known, _overview(known) if known else nothing)
            return
        if html is not None:
            check_output_file(html, option="--html")
        history = library(store).history(deployment, since=begin)
        if html is not None:
            from autovision.report.history import render

            write_file(html, render(history), option="--html")
            out.note(f"page  {html}")
        out.answer(history, *([] if as_json else _told(history)))


def moment(given: str, at: datetime) -> datetime:
    """What `--since` names, seen from a moment. Raises `InvalidInput`."""
    from autovision.errors import InvalidInput

    try:
        if days := _DAYS.fullmatch(given):
            return at - timedelta(days=int(days[1]))
        found = datetime.fromisoformat(given)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"--since {given!r} is no moment; give a date such as 2026-03-01, a time such as 2026-03-01T12:00, or 90d"
        ) from None
    if found > at:
        raise InvalidInput(
            f"--since {given!r} is not over yet: it is {at:%Y-%m-%d %H:%M} UTC now; give an earlier moment"
        )
    return found


def _overview(known: Sequence[Overview]) -> Table:
    rows = [
        [
            each.deployment,
            each.champion or "none yet",
            each.window_end,
            "" if each.alarm is None else f"DRIFT: {', '.join(each.alarming)}" if each.alarm else "no drift",
            "" if each.accuracy is None else f"{each.accuracy.value:.3f} of {each.accuracy.n:,}",
            f"{each.challenger} takes over" if each.challenger else each.decided,
        ]
        for each in known
    ]
    columns = ["deployment", "champion", "latest window (UTC)", "said", "by labels", "decided"]
    return table(columns, rows)


def _told(history: History) -> list[Any]:
    from autovision.report.history import counted, headline, judged, spent

    sums = history.sums
    latest = next((each.accuracy for each in reversed(history.windows) if each.accuracy is not None), None)
    parts: list[Any] = [
        facts(
            {
                "deployment": history.deployment,
                "since (UTC)": history.since,
                "champion": headline(history),
                "labels say": None
                if latest is None
                else f"accuracy {latest.value:.3f} [{latest.low:.3f}, {latest.high:.3f}] of {latest.n:,} requests, "
                f"{latest.expected:.3f} expected",
                "alarms": f"{sums.alarms:,} in {sums.windows:,} windows"
                + (f"; by labels: {judged(sums)}" if sums.alarms else ""),
                "searches": f"{sums.searches:,}, {spent(sums)}",
                "requests": f"{counted(history, sums.requests)} stored, {sums.labelled:,} labelled",
                "note": "\n".join(history.notes),
            }
        )
    ]
    if history.reigns:
        parts.append(_models(history))
    parts += _alarms(history.deployment, history.windows)
    if sums.searches or sums.windows:
        parts.append(_months(history.months))
    acts = [each for each in history.decisions if each.accepted]
    if acts:
        rows = [[each.at, each.what] for each in acts[-_LATEST:]]
        title = _latest(len(rows), len(acts), "decisions that led to an act")
        parts.append(table(["decided (UTC)", "what"], rows, title=title))
    return parts


def _models(history: History) -> Table:
    rows = []
    for each in history.reigns:
        known = history.models.get(each.model)
        until = each.until or "now"
        rows.append([each.model, each.since, until, known and known.dataset, known and str(known.accuracy)])
    return table(["!champion", "since (UTC)", "until", "data", "held-out accuracy"], rows)


def _alarms(name: str, windows: Sequence[DriftWindow]) -> list[Table | str]:
    from autovision.report.history_sections import WORD, alarming, episodes, harm, led_to, moved

    found = episodes(windows)
    rows = [
        [each[-1].end, len(each), alarming(each), moved(each), WORD[harm(each)], led_to(each)]
        for each in found[-_LATEST:]
    ]
    title = _latest(len(rows), len(found), "times of alarm")
    columns = ["until (UTC)", ">windows", "detector", "what moved", "labels", "led to"]
    if not rows:
        return []
    shown = f"Images of the latest: autovision monitor {name} --report {found[-1][-1].report} --html FILE"
    return [table(columns, rows, title=title), shown]


def _latest(shown: int, of: int, what: str) -> str:
    return f"The latest {shown} of {of:,} {what}" if shown < of else what.capitalize()


def _months(months: tuple[Month, ...]) -> Table:
    from autovision.search.estimates.prices import money

    rows = [
        [
            each.month,
            each.searches,
            f"{each.spent_s:.0f}",
            ", ".join(money(amount, currency) for currency, amount in sorted(each.cost.items())),
            each.windows,
            each.alarms,
            each.requests,
            each.labelled,
        ]
        for each in months
    ]
    columns = ["month", ">searches", ">seconds", ">cost", ">windows", ">alarms", ">requests", ">labelled"]
    return table(columns, rows)
