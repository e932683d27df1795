"""Slots of a schedule: moments at which a cron expression comes to pass in a time zone.

Local time that is skipped or repeated counts as in Debian's cron: what comes at a set hour and minute comes once a day,
at the end of a gap if its time is in there, and the first time of two; what comes more often goes by elapsed time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile

from cronsim import CronSim

from autovision.records.calendar import zone

_FOLD = timedelta(hours=3)
"""longer than any time that clocks are set back by"""
_LOOKS_BACK = tuple(timedelta(days=days) for days in (1 / 24, 1, 8, 32, 370, 10 * 366))
MOST_COUNTED = 1000


def slots(expression: str, time_zone: str, after: datetime) -> Iterator[datetime]:
    """Slots later than `after`, in UTC, rising."""
    # The library takes the first of two equal local times, whichever it is given: begin before both.
    begin = (after - _FOLD).astimezone(zone(time_zone))
    latest = after
    for local in CronSim(expression, begin):
        at = local.astimezone(UTC)
        if at > latest:
            latest = at
            yield at


def next_slot(expression: str, time_zone: str, after: datetime) -> datetime | None:
    """The first slot later than `after`; None: there is none within decades."""
    return next(slots(expression, time_zone, after), None)


def due_slot(expression: str, time_zone: str, *, after: datetime, now: datetime) -> datetime | None:
    """The latest slot that is later than `after` and has come; None: there is none."""
    for back in _LOOKS_BACK:
        begin = max(after, now - back)
        come = takewhile(lambda slot: slot <= now, slots(expression, time_zone, begin))
        last = max(come, default=None)
        if last is not None or begin == after:
            return last
    return None


def count_slots(expression: str, time_zone: str, *, after: datetime, before: datetime) -> int:
    """How many slots lie between, `MOST_COUNTED` at most."""
    between = takewhile(lambda slot: slot < before, slots(expression, time_zone, after))
    return sum(1 for _ in islice(between, MOST_COUNTED))
