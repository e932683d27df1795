"""When captured data re-triggers a search: a pure function of what is known now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from autovision.records.deployments import DriftReport, RetrainingPolicy, Verdict


@dataclass(frozen=True)
class Snapshot:
    """All that the policy looks at."""

    now: datetime
    report: DriftReport | None = None
    """the latest one of the current model"""
    answered: bool = False
    """a search was started because of `report` already"""
    labels: int = 0
    """usable labels of images that no search has seen"""
    labels_per_class: Mapping[str, int] = field(default_factory=dict)
    """of `labels`; with several labels an image one counts for each of its classes"""
    last_search_at: datetime | None = None
    """when the deployment's last re-search began"""
    running_search: str | None = None
    """the deployment's search that is queued or running; None: none"""


def decide(snapshot: Snapshot, policy: RetrainingPolicy) -> Verdict:
    """Whether to search again, and why; `numbers["trigger"]` is `drift`, `volume` or None.

    Never two searches of a deployment at once, nor within the cooldown. Then an unanswered drift alarm
    triggers with at least `min_labels` new labels, and `volume_labels` new labels trigger without one.
    """
    alarm = snapshot.report is not None and snapshot.report.alarm and not snapshot.answered
    if snapshot.running_search is not None:
        return _wait(
            snapshot, policy, f"search {snapshot.running_search} is not over yet; one runs at a time"
        )
    remaining = _cooldown_left(snapshot, policy)
    if remaining > timedelta(0):
        return _wait(
            snapshot,
            policy,
            f"the last search began at {snapshot.last_search_at}, and the cooldown of "
            f"{policy.cooldown_s:g} s lasts until {snapshot.now + remaining}",
        )
    if alarm and snapshot.labels >= policy.min_labels:
        return _search(snapshot, policy, "drift", f"{_drift(snapshot)}, and {_labels(snapshot)} are enough")
    if policy.volume_labels is not None and snapshot.labels >= policy.volume_labels:
        needed = f"{policy.volume_labels} trigger a search without an alarm"
        return _search(snapshot, policy, "volume", f"{_labels(snapshot)} are there, and {needed}")
    if alarm:
        missing = policy.min_labels - snapshot.labels
        return _wait(
            snapshot,
            policy,
            f"{_drift(snapshot)}, but {_labels(snapshot)} are too few for a search: {missing} more of "
            f"{policy.min_labels} are missing",
        )
    return _wait(snapshot, policy, f"{_calm(snapshot)}; {_labels(snapshot)} are there{_volume_rule(policy)}")


def _cooldown_left(snapshot: Snapshot, policy: RetrainingPolicy) -> timedelta:
    if snapshot.last_search_at is None:
        return timedelta(0)
    return snapshot.last_search_at + timedelta(seconds=policy.cooldown_s) - snapshot.now


def _search(snapshot: Snapshot, policy: RetrainingPolicy, trigger: str, why: str) -> Verdict:
    return Verdict(
        accepted=True,
        what=f"search again, because of {trigger}",
        why=why,
        numbers=_numbers(snapshot, policy, trigger),
    )


def _wait(snapshot: Snapshot, policy: RetrainingPolicy, why: str) -> Verdict:
    return Verdict(
        accepted=False, what="do not search again yet", why=why, numbers=_numbers(snapshot, policy, None)
    )


def _numbers(snapshot: Snapshot, policy: RetrainingPolicy, trigger: str | None) -> dict[str, Any]:
    report = snapshot.report
    return {
        "trigger": trigger,
        "labels": snapshot.labels,
        "labels_per_class": dict(snapshot.labels_per_class),
        "min_labels": policy.min_labels,
        "volume_labels": policy.volume_labels,
        "cooldown_left_s": max(_cooldown_left(snapshot, policy).total_seconds(), 0.0),
        "running_search": snapshot.running_search,
        "report": report.id if report else None,
        "alarm": report.alarm if report else None,
        "answered": snapshot.answered,
        "score": report.score if report else None,
        "threshold": report.threshold if report else None,
        "p_value": report.p_value if report else None,
    }


def _labels(snapshot: Snapshot) -> str:
    each = ", ".join(f"{name} {count}" for name, count in sorted(snapshot.labels_per_class.items()))
    return f"{snapshot.labels} new labels" + (f" ({each})" if each else "")


def _drift(snapshot: Snapshot) -> str:
    report = snapshot.report
    assert report is not None
    return (
        f"the last {report.n} requests have drifted (score {report.score:.4f}, alarm from "
        f"{report.threshold:.4f}, p = {report.p_value:.2g})"
    )


def _calm(snapshot: Snapshot) -> str:
    report = snapshot.report
    if report is None:
        return "no window of requests has been examined"
    if report.alarm:
        return f"the drift alarm of report {report.id} was answered by a search already"
    return (
        f"the last {report.n} requests show no drift (score {report.score:.4f}, alarm from "
        f"{report.threshold:.4f})"
    )


def _volume_rule(policy: RetrainingPolicy) -> str:
    if policy.volume_labels is None:
        return ", and volume alone never triggers a search"
    return f", {policy.volume_labels} trigger a search"
