"""When captured data re-triggers a search: a pure function of what is known now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autovision.records.deployments import RetrainingPolicy, Verdict
from autovision.retraining.hours import day, month
from autovision.retraining.limits import Limit, limits, spent_since
from autovision.retraining.snapshot import Snapshot
from autovision.retraining.triggers import Finding, findings, labels_wanted, volume_wanted

__all__ = ["Snapshot", "decide"]

NOTHING = "nothing asks for a search"


def decide(snapshot: Snapshot, policy: RetrainingPolicy) -> Verdict:
    """Whether to search again, and why; `numbers["trigger"]` names what leads to it, or is None.

    Any trigger does, unless a limit holds it back: see `triggers` and `limits`. `numbers["reasons"]` are the names of
    what spoke for and against it, which change only when the reasons do, whatever their figures; `numbers["slot"]` is
    the slot of the schedule that is dealt with by this verdict; `numbers["triggers"]` and `numbers["limits"]` tell what
    would have to happen, and `numbers["not_before"]` when the limits end.
    """
    found = findings(snapshot, policy)
    fired = [finding for finding in found if finding.fires]
    by_hand = any(finding.trigger == "manual" for finding in fired)
    held = limits(snapshot, policy, by_hand=by_hand)
    accepted = bool(fired) and not held
    numbers = _numbers(snapshot, policy, found, held)
    due = next((finding for finding in found if finding.slot is not None), None)
    if due is not None and (accepted or not due.fires):
        assert due.slot is not None
        numbers["slot"] = due.slot.isoformat()
    if accepted:
        numbers["trigger"] = fired[0].trigger
        numbers["reasons"] = ["search", *(finding.trigger for finding in fired)]
        return Verdict(
            accepted=True,
            what=f"search again, because of {_told(fired[0].trigger)}",
            why="; ".join(finding.why for finding in fired),
            numbers=numbers,
        )
    if fired:
        numbers["reasons"] = [
            *(finding.trigger for finding in fired),
            "but",
            *(limit.limit for limit in held),
        ]
        why = "; ".join([*(finding.why for finding in fired), *(f"but {limit.why}" for limit in held)])
    else:
        asking = [f"{finding.trigger} lacks labels" for finding in found if finding.asks]
        numbers["reasons"] = asking or [NOTHING]
        why = "; ".join(finding.why for finding in found) or NOTHING
    return Verdict(accepted=False, what="do not search again yet", why=why, numbers=numbers)


def _told(trigger: str) -> str:
    return "a person's word" if trigger == "manual" else trigger


def _numbers(
    snapshot: Snapshot, policy: RetrainingPolicy, found: Sequence[Finding], held: Sequence[Limit]
) -> dict[str, Any]:
    report, measured = snapshot.report, snapshot.measured
    ends = [limit.until for limit in held]
    known = [end for end in ends if end is not None]
    return {
        "trigger": None,
        "labels": snapshot.labels,
        "labels_per_class": dict(snapshot.labels_per_class),
        "min_labels": labels_wanted(snapshot, policy),
        "volume_labels": volume_wanted(snapshot, policy),
        "running_search": snapshot.running_search,
        "report": report.id if report else None,
        "alarm": report.alarm if report else None,
        "answered": snapshot.answered,
        "score": report.score if report else None,
        "threshold": report.threshold if report else None,
        "p_value": report.p_value if report else None,
        "measured": None if measured is None else {"n": measured.n, "right": measured.right},
        "failures": snapshot.failures,
        "spent_day_s": spent_since(snapshot, day(snapshot.now, policy.time_zone)[0]),
        "spent_month_s": spent_since(snapshot, month(snapshot.now, policy.time_zone)[0]),
        "slot": None,
        "triggers": [
            {
                "trigger": finding.trigger,
                "fires": finding.fires,
                "why": finding.why,
                "needs": finding.needs,
                "at": finding.at.isoformat() if finding.at else None,
            }
            for finding in found
        ],
        "limits": [
            {
                "limit": limit.limit,
                "why": limit.why,
                "until": limit.until.isoformat() if limit.until else None,
            }
            for limit in held
        ],
        # Where a limit has no end of its own, time alone does not lead to a search.
        "not_before": max(known).isoformat() if known and len(known) == len(ends) else None,
    }
