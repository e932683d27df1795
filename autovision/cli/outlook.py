"""How it is shown what would have to happen for the next search, as of the latest evaluation that was written down."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from autovision.cli.output import facts, heading, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from autovision.promotion.refused import Refused
    from autovision.records.deployments import Deployment
    from autovision.records.retraining import RetrainingState


def outlook(state: RetrainingState, deployment: Deployment) -> list[RenderableType]:
    """What is known of the next search; times are those of the deployment's zone."""
    time_zone = deployment.policy.time_zone
    if deployment.model is None:
        return [heading("next search"), "there is no model yet that a re-search could start from"]
    if state.latest is None:
        waits = f"; {state.ask.person} asked for it: {state.ask.reason}" if state.ask else ""
        return [heading("next search"), f"no controller has looked yet whether to search again{waits}"]
    numbers = state.latest.numbers
    zone = ZoneInfo(time_zone)
    rows = [
        [
            each["trigger"],
            "fires" if each["fires"] else each["needs"] or "never",
            _local(each["at"], zone),
            each["why"],
        ]
        for each in numbers["triggers"]
    ]
    held = [[each["limit"], each["why"], _local(each["until"], zone)] for each in numbers["limits"]]
    return [
        heading(f"next search, with times of {time_zone}"),
        facts(
            {
                "evaluated": _local(state.evaluated_at, zone),
                "with these reasons": f"{_often(state.evaluations)} since {_local(state.since, zone)}",
                "not before": _local(numbers["not_before"], zone),
                "a person's word": None
                if state.ask is None
                else f"{state.ask.person} on {_local(state.ask.at, zone)}: {state.ask.reason}",
            }
        ),
        table(["trigger", "takes", "comes", "as it stands"], rows),
        *([table(["held back by", "why", "until"], held)] if held else []),
    ]


def challengers(found: Sequence[Refused]) -> list[RenderableType]:
    """Those that later labels may still show to be better."""
    from autovision.promotion.refused import wanted

    if not found:
        return []
    rows = [[each.model, each.at, each.looks, each.labelled, wanted(each)] for each in found]
    return [
        heading("challengers that lack nothing but evidence"),
        table(["!model", "judged (UTC)", ">times again", ">on later images", ">once more at"], rows),
    ]


def _often(times: int) -> str:
    return "once" if times == 1 else f"{times:,} times"


def _local(at: Any, zone: ZoneInfo) -> str | None:
    if at is None:
        return None
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M:%S}"
