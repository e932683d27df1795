"""What may lead to a re-search: each trigger a pure function of what is known, with its reason and what it lacks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from autovision.records.deployments import DriftReport, RetrainingPolicy
from autovision.retraining import schedule
from autovision.retraining.accuracy import Share, least_difference
from autovision.retraining.hours import told
from autovision.retraining.snapshot import Snapshot, labels_told

_MOST_TIMES = 10


@dataclass(frozen=True)
class Finding:
    """What one trigger says."""

    trigger: str
    fires: bool
    why: str
    """with numbers"""
    needs: str = ""
    """what would make it fire; empty: it does"""
    asks: bool = False
    """there is cause for a search, and only labels are missing"""
    at: datetime | None = None
    """when it fires by time alone"""
    slot: datetime | None = None
    """the slot of the schedule that is due"""


def findings(snapshot: Snapshot, policy: RetrainingPolicy) -> list[Finding]:
    """What each trigger says that the policy has, the most urgent first."""
    found = [
        manual(snapshot),
        drift(snapshot, policy),
        accuracy(snapshot, policy),
        volume(snapshot, policy),
        scheduled(snapshot, policy),
    ]
    return [finding for finding in found if finding is not None]


def manual(snapshot: Snapshot) -> Finding | None:
    """A person asked for it."""
    if snapshot.ask is None:
        return None
    return Finding("manual", True, f"{snapshot.ask.person} asked for it: {snapshot.ask.reason}")


def drift(snapshot: Snapshot, policy: RetrainingPolicy) -> Finding | None:
    """An alarm that no search has answered, with enough labels to learn from."""
    if policy.drift_detectors == ():
        return None
    report = snapshot.report
    wanted = labels_wanted(snapshot, policy)
    needs = f"a window of {policy.window} requests that have drifted, and {wanted} new labels"
    if report is None:
        return Finding("drift", False, "no window of requests has been examined", needs)
    alarms = alarming(report, policy.drift_detectors)
    if not alarms:
        why = f"the last {report.n} requests show no drift ({_score(report)})"
        return Finding("drift", False, why, needs)
    if snapshot.answered:
        why = f"the drift alarm of report {report.id} was answered by a search already"
        return Finding("drift", False, why, needs)
    by = "" if alarms == ("",) else f", says {' and '.join(alarms)}"
    why = f"the last {report.n} requests have drifted{by} ({_score(report)}, p = {report.p_value:.2g})"
    missing = wanted - snapshot.labels
    if missing > 0:
        short = (
            f"{why}, but {labels_told(snapshot)} are too few for a search: {missing} more of "
            f"{wanted} are missing{_in_vain(snapshot)}"
        )
        return Finding("drift", False, short, f"{missing} more new labels", asks=True)
    return Finding("drift", True, f"{why}, and {labels_told(snapshot)} are enough")


def alarming(report: DriftReport, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """Names of the detectors whose alarm counts; one without a name where the report tells none."""
    by_name = [(each.name, each.alarm) for each in getattr(report, "detectors", ())]
    if wanted is None or not by_name:
        # A report from before detectors had names is of the one that there was.
        return tuple(name for name, alarm in by_name if alarm) or (("",) if report.alarm else ())
    return tuple(name for name, alarm in by_name if alarm and name in wanted)


def labels_wanted(snapshot: Snapshot, policy: RetrainingPolicy) -> int:
    """New labels that drift or a low accuracy lead to a re-search with.

    More after each re-search in vain but the first, which had to learn from what was labelled before: a few more labels
    of the same kind would lead to the same end.
    """
    return math.ceil(
        policy.min_labels * policy.labels_growth ** min(max(snapshot.in_vain - 1, 0), _MOST_TIMES)
    )


def _in_vain(snapshot: Snapshot) -> str:
    if snapshot.in_vain < 2:
        return ""
    return f", since {snapshot.in_vain} re-searches of this champion found none that was shown to be better"


def accuracy(snapshot: Snapshot, policy: RetrainingPolicy) -> Finding | None:
    """Late labels show that too few answers of the champion are right."""
    if policy.accuracy_floor is None and policy.accuracy_margin is None:
        return None
    measured = snapshot.measured or Share(0, 0)
    missing = policy.accuracy_labels - measured.n
    if missing > 0:
        why = (
            f"{measured.n} labels of the champion's answers are too few to judge its accuracy, which takes "
            f"{policy.accuracy_labels}"
        )
        return Finding("accuracy", False, why, f"{missing} more labels of the champion's answers")
    low, high = measured.interval(policy.accuracy_alpha)
    said = f"{measured.right} of {measured.n} labelled answers are right, {measured.value:.1%} [{low:.1%}, {high:.1%}]"
    faults: list[str] = []
    calm: list[str] = []
    if policy.accuracy_floor is not None:
        (faults if high < policy.accuracy_floor else calm).append(f"the floor is {policy.accuracy_floor:.1%}")
    if policy.accuracy_margin is not None and snapshot.held_out is not None:
        least = least_difference(snapshot.held_out, measured, policy.accuracy_alpha)
        compared = (
            f"on {snapshot.held_out.n} test images it was {snapshot.held_out.value:.1%}, which is {least:.1%} more at "
            f"least, and {policy.accuracy_margin:.1%} may be lost"
        )
        (faults if least > policy.accuracy_margin else calm).append(compared)
    if not faults:
        why = f"accuracy is not shown to be too low: {'; '.join([said, *calm])}"
        return Finding("accuracy", False, why, "labels that show a lower accuracy of the champion")
    why = f"accuracy is too low: {'; '.join([said, *faults])}"
    wanted = labels_wanted(snapshot, policy)
    short = wanted - snapshot.labels
    if short > 0:
        few = f"{labels_told(snapshot)} are too few for a search"
        why += f"; but {few}: {short} more of {wanted} are missing{_in_vain(snapshot)}"
        return Finding("accuracy", False, why, f"{short} more new labels", asks=True)
    return Finding("accuracy", True, why)


def volume(snapshot: Snapshot, policy: RetrainingPolicy) -> Finding | None:
    """So many new labels that they are worth a search by themselves."""
    there, wanted = f"{labels_told(snapshot)} are there", volume_wanted(snapshot, policy)
    if wanted is None:
        return Finding("volume", False, f"{there}, and volume alone never triggers a search")
    enough = f"{wanted} trigger a search"
    if policy.volume_share is not None and wanted != policy.volume_labels:
        share = f"{policy.volume_share:.3g} of the {snapshot.images} images that the last search learnt from"
        enough += f", {share}" if wanted > policy.min_labels else f", the least: {share} are no more"
    missing = wanted - snapshot.labels
    if missing > 0:
        return Finding("volume", False, f"{there}; {enough}", f"{missing} more new labels")
    return Finding("volume", True, f"{there}; {enough}, without an alarm")


def volume_wanted(snapshot: Snapshot, policy: RetrainingPolicy) -> int | None:
    """New labels that lead to a re-search by themselves; None: any number leads to none.

    Errors fall as a power of the number of images (Hestness et al. 2017), so that what new ones are worth is their
    share of the old ones: of a hundred images fifty are news, of a million they are none.
    """
    asked = [] if policy.volume_labels is None else [policy.volume_labels]
    if policy.volume_share is not None:
        # Rounded, lest a product like 1.1 * 10 asks for one more.
        share = math.ceil(round(policy.volume_share * snapshot.images, 6))
        asked.append(max(policy.min_labels, share))
    return min(asked, default=None)


def scheduled(snapshot: Snapshot, policy: RetrainingPolicy) -> Finding | None:
    """A slot of the schedule has come that is not dealt with; of several the latest stands for all."""
    if policy.schedule is None:
        return None
    zone, since = policy.time_zone, snapshot.slots_since or snapshot.now
    due = schedule.due_slot(policy.schedule, zone, after=since, now=snapshot.now)
    if due is None:
        following = schedule.next_slot(policy.schedule, zone, snapshot.now)
        when = "none will come" if following is None else told(following, zone)
        return Finding(
            "schedule",
            False,
            f"the next slot of {policy.schedule!r} is {when}",
            f"the slot, and {policy.schedule_labels} new labels",
            at=following,
        )
    missed = schedule.count_slots(policy.schedule, zone, after=since, before=due)
    many = "or more " if missed == schedule.MOST_COUNTED else ""
    why = f"the slot of {told(due, zone)} has come" + (
        f", which also stands for {missed} {many}that were missed" if missed else ""
    )
    if snapshot.labels < policy.schedule_labels:
        why = f"{why}, and passes: {labels_told(snapshot)} are there, and it takes {policy.schedule_labels}"
        needs = f"another slot, and {policy.schedule_labels} new labels"
        following = schedule.next_slot(policy.schedule, zone, snapshot.now)
        return Finding("schedule", False, why, needs, asks=True, at=following, slot=due)
    return Finding("schedule", True, f"{why}, and {labels_told(snapshot)} are there", slot=due)


def _score(report: DriftReport) -> str:
    return f"score {report.score:.4f}, alarm from {report.threshold:.4f}"
