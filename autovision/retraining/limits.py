"""What holds a re-search back that something asks for: each limit a pure function of what is known."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from autovision.records.deployments import RetrainingPolicy
from autovision.retraining.hours import day, month, quiet_until, told
from autovision.retraining.snapshot import Snapshot, labels_told, listed

_LONGEST_BACKOFF = timedelta(days=7)
_LONGEST_S = 1e9
"""of any pause: thirty years, which calendars can hold"""


@dataclass(frozen=True)
class Limit:
    """What holds a re-search back."""

    limit: str
    why: str
    until: datetime | None = None
    """when it ends; None: time alone does not end it"""


def limits(snapshot: Snapshot, policy: RetrainingPolicy, *, by_hand: bool) -> list[Limit]:
    """All that holds a re-search back now.

    A person who asks overrules all but the budget, and that one search runs at a time.
    """
    found = [running(snapshot), *budgets(snapshot, policy)]
    if not by_hand:
        found += [
            cooldown(snapshot, policy),
            backoff(snapshot, policy),
            quiet(snapshot, policy),
            classes(snapshot, policy),
        ]
    return [limit for limit in found if limit is not None]


def running(snapshot: Snapshot) -> Limit | None:
    """One search at a time."""
    if snapshot.running_search is None:
        return None
    return Limit("running", f"search {snapshot.running_search} is not over yet; one runs at a time")


def cooldown(snapshot: Snapshot, policy: RetrainingPolicy) -> Limit | None:
    """A pause after the beginning of each re-search that did not fail."""
    if snapshot.last_search_at is None:
        return None
    until = snapshot.last_search_at + timedelta(seconds=min(policy.cooldown_s, _LONGEST_S))
    if until <= snapshot.now:
        return None
    zone = policy.time_zone
    why = (
        f"the last search began at {told(snapshot.last_search_at, zone)}, and the cooldown of {policy.cooldown_s:g} s "
        f"lasts until {told(until, zone)}"
    )
    return Limit("cooldown", why, until)


def backoff(snapshot: Snapshot, policy: RetrainingPolicy) -> Limit | None:
    """A pause after a failure, twice as long after each further one."""
    if not snapshot.failures or snapshot.failed_at is None:
        return None
    # So many doublings of anything are longer than the longest pause.
    pause = timedelta(seconds=min(policy.backoff_s * 2.0 ** min(snapshot.failures - 1, 40), _LONGEST_S))
    until = snapshot.failed_at + min(pause, _LONGEST_BACKOFF)
    if until <= snapshot.now:
        return None
    many = "the last search" if snapshot.failures == 1 else f"the last {snapshot.failures} searches"
    return Limit(
        "backoff", f"{many} failed, and the next may begin at {told(until, policy.time_zone)}", until
    )


def quiet(snapshot: Snapshot, policy: RetrainingPolicy) -> Limit | None:
    """Hours in which nothing begins."""
    until = quiet_until(snapshot.now, policy.quiet_hours, policy.time_zone)
    if until is None:
        return None
    return Limit("quiet_hours", f"quiet hours last until {told(until, policy.time_zone)}", until)


def classes(snapshot: Snapshot, policy: RetrainingPolicy) -> Limit | None:
    """New labels of each class."""
    least = policy.min_labels_per_class
    short = {
        name: least - snapshot.labels_per_class.get(name, 0)
        for name in sorted({*snapshot.classes, *snapshot.labels_per_class})
        if snapshot.labels_per_class.get(name, 0) < least
    }
    if not short:
        return None
    missing = listed([f"{count} more of {name}" for name, count in short.items()])
    why = f"{labels_told(snapshot)} are there, and {least} of each class are needed: {missing}"
    return Limit("labels_per_class", why)


def budgets(snapshot: Snapshot, policy: RetrainingPolicy) -> list[Limit]:
    """Seconds that re-searches of one day, and of one month, may use; each counts for when it began."""
    found = []
    for name, most, (begins, ends) in (
        ("day", policy.budget_day_s, day(snapshot.now, policy.time_zone)),
        ("month", policy.budget_month_s, month(snapshot.now, policy.time_zone)),
    ):
        used = spent_since(snapshot, begins)
        if most is not None and used + policy.budget_s > most:
            why = (
                f"re-searches of this {name} took {used:g} s, and {policy.budget_s:g} s more are above its budget of "
                f"{most:g} s; the next {name} begins at {told(ends, policy.time_zone)}"
            )
            found.append(Limit(f"budget_{name}", why, ends))
    return found


def spent_since(snapshot: Snapshot, begins: datetime) -> float:
    """Wall seconds of re-searches that began since."""
    return sum(seconds for at, seconds in snapshot.spent if at >= begins)
