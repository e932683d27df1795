"""How deployments stand now: what the next search of one takes, and all of them in a few facts."""

from __future__ import annotations

from typing import Any

from autovision.records.deployments import Deployment, DriftReport
from autovision.records.history import Awaited, HeldBack, Overview, Standing
from autovision.records.retraining import RetrainingState
from autovision.registry import deployments
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound, Store


def standing(store: Store, deployment: Deployment) -> Standing | None:
    """What would have to happen for the next search; None: no controller has looked yet, or there is no model."""
    state = _state(store, deployment.name)
    if deployment.model is None or state is None or state.latest is None or state.evaluated_at is None:
        return None
    numbers, policy = state.latest.numbers, deployment.policy
    return Standing(
        evaluated_at=state.evaluated_at,
        what=state.latest.what,
        time_zone=policy.time_zone,
        triggers=tuple(Awaited.model_validate(each) for each in _told(numbers, "triggers")),
        limits=tuple(HeldBack.model_validate(each) for each in _told(numbers, "limits")),
        spent_day_s=numbers.get("spent_day_s"),
        budget_day_s=policy.budget_day_s,
        spent_month_s=numbers.get("spent_month_s"),
        budget_month_s=policy.budget_month_s,
    )


def overview(store: Store) -> list[Overview]:
    """All deployments by name, each in a few facts; of each no more is read than its latest records."""
    return [_overview(store, deployments.get(store, name)) for name in deployments.names(store)]


def _overview(store: Store, deployment: Deployment) -> Overview:
    state, report = _state(store, deployment.name), _latest_report(store, deployment.name)
    return Overview(
        deployment=deployment.name,
        dataset=deployment.dataset,
        champion=deployment.model,
        challenger=deployment.rollout.model if deployment.rollout else None,
        updated_at=deployment.updated_at,
        window_end=report and report.window_end,
        alarm=report and report.alarm,
        alarming=tuple(dict.fromkeys(each.name for each in report.alarming)) if report else (),
        accuracy=report and report.accuracy,
        decided=state.latest.what if state is not None and state.latest is not None else None,
    )


def _state(store: Store, name: str) -> RetrainingState | None:
    try:
        return records.read(store, keys.retraining(name), RetrainingState)
    except KeyNotFound:
        return None


def _latest_report(store: Store, name: str) -> DriftReport | None:
    latest = max((key for key in store.list(keys.reports(name)) if key.endswith(".json")), default=None)
    return None if latest is None else records.read(store, latest, DriftReport)


def _told(numbers: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of an evaluation; one from before there was such a list has none."""
    found: list[dict[str, Any]] = numbers.get(name, [])
    return found
