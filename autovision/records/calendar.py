"""What the texts of a policy mean that speak of the calendar: time zones, cron expressions, quiet hours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from autovision.errors import InvalidInput, near

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIMES = re.compile(r"([0-9]{1,2}):([0-9]{2}) ?- ?([0-9]{1,2}):([0-9]{2})")
_DAY_MINUTES = 24 * 60
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=256)
def zone(name: str) -> ZoneInfo:
    """A time zone of the IANA database by its name. Raises `InvalidInput`, with the near ones."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InvalidInput(
            f"no time zone {name!r}{near(name, available_timezones())}; give a name of the IANA database, such as "
            "'Europe/Berlin' or 'UTC'"
        ) from None


@lru_cache(maxsize=256)
def check_schedule(expression: str) -> str:
    """A cron expression of five fields that comes to pass at all, with single spaces; else an `InvalidInput`."""
    fields = expression.split()
    if len(fields) != 5:
        raise InvalidInput(
            f"the schedule {expression!r} has {len(fields)} fields; give five: minute, hour, day of the month, month, "
            "day of the week, such as '0 3 * * 1' for Mondays at three"
        )
    try:
        next(CronSim(" ".join(fields), _LONG_AGO))
    except CronSimError as error:
        raise InvalidInput(
            f"the schedule {expression!r} is no cron expression ({error}); its fields are minute 0-59, hour 0-23, "
            "day of the month 1-31, month 1-12, day of the week 0-7 or SUN-SAT, such as '0 3 * * 1'"
        ) from None
    except StopIteration:
        raise InvalidInput(
            f"the schedule {expression!r} never comes to pass; give a day that exists"
        ) from None
    return " ".join(fields)


@dataclass(frozen=True)
class QuietHours:
    """Hours of the day, on some days of the week, in local time."""

    days: frozenset[int]
    """on which they begin; 0 is Monday"""
    start: int
    """minutes after midnight"""
    end: int
    """minutes after midnight; at or before `start`: of the next day"""


@lru_cache(maxsize=256)
def quiet_hours(text: str) -> QuietHours:
    """`22:00-06:00`, `sat-sun 00:00-24:00` or `mon,wed 8:00-12:00`; else an `InvalidInput`."""
    *days, times = text.strip().lower().split(" ", 1) if text[:1].isalpha() else [text.strip()]
    found = _TIMES.fullmatch(times.strip())
    try:
        if found is None:
            raise ValueError
        start, end = (_minutes(hour, minute) for hour, minute in ((found[1], found[2]), (found[3], found[4])))
        if start in (end, _DAY_MINUTES):
            raise ValueError
        return QuietHours(_days(days[0]) if days else frozenset(range(7)), start, end)
    except ValueError:
        raise InvalidInput(
            f"quiet hours {text!r} are not understood; write '22:00-06:00', or with the days on which they begin "
            "'sat-sun 00:00-24:00' or 'mon,wed 08:00-12:00'"
        ) from None


def _minutes(hour: str, minute: str) -> int:
    minutes = 60 * int(hour) + int(minute)
    if int(minute) > 59 or minutes > _DAY_MINUTES:
        raise ValueError
    return minutes


def _days(text: str) -> frozenset[int]:
    """`mon`, `mon,wed` or `fri-mon`."""
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        days.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(days)
