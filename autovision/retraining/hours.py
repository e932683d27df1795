"""Days, months and quiet hours of a time zone, as moments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

from autovision.records.calendar import QuietHours, quiet_hours, zone

_MOST_CHAINED = 64


def day(at: datetime, time_zone: str) -> tuple[datetime, datetime]:
    """When the local day of `at` begins, and the next one."""
    today = at.astimezone(zone(time_zone)).date()
    return _moment(today, 0, time_zone), _moment(today + timedelta(days=1), 0, time_zone)


def month(at: datetime, time_zone: str) -> tuple[datetime, datetime]:
    """When the local month of `at` begins, and the next one."""
    first = at.astimezone(zone(time_zone)).date().replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    return _moment(first, 0, time_zone), _moment(following, 0, time_zone)


def quiet_until(at: datetime, texts: Sequence[str], time_zone: str) -> datetime | None:
    """When the quiet hours end that `at` lies in, those that follow without a pause included; None: it lies in none."""
    windows = [quiet_hours(text) for text in texts]
    end = at
    for _ in range(_MOST_CHAINED):
        later = max((_end(end, window, time_zone) for window in windows), default=end)
        if later <= end:
            break
        end = later
    return end if end > at else None


def _end(at: datetime, window: QuietHours, time_zone: str) -> datetime:
    """When a window ends that `at` lies in; `at` if it lies in none."""
    today = at.astimezone(zone(time_zone)).date()
    for begins in (today - timedelta(days=1), today):
        if begins.weekday() in window.days:
            over_midnight = window.end <= window.start
            start = _moment(begins, window.start, time_zone)
            end = _moment(begins + timedelta(days=over_midnight), window.end, time_zone)
            if start <= at < end:
                return end
    return at


def _moment(local: date, minutes: int, time_zone: str) -> datetime:
    """Of a local day and minute; one that is skipped is as much later, of two equal ones it is the first."""
    local += timedelta(days=minutes // (24 * 60))
    minutes %= 24 * 60
    return datetime.combine(local, time(minutes // 60, minutes % 60), zone(time_zone)).astimezone(UTC)


def told(at: datetime, time_zone: str) -> str:
    """A moment as people of that zone write it."""
    return f"{at.astimezone(zone(time_zone)):%Y-%m-%d %H:%M:%S} {time_zone}"
