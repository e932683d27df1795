"""Moments as pixels, and round moments as ticks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from autovision.report.svg import Markup, Scale, join, line, tag, text

T = TypeVar("T")

_DAY = 86_400
_STEPS_S = (
    1,
    5,
    15,
    60,
    300,
    900,
    1800,
    3600,
    3 * 3600,
    6 * 3600,
    12 * 3600,
    _DAY,
    2 * _DAY,
    7 * _DAY,
    14 * _DAY,
)
_STEPS_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)
_A_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)


@dataclass(frozen=True)
class TimeScale:
    """Maps moments onto pixels."""

    begin: datetime
    end: datetime
    left: float
    right: float

    def __call__(self, at: datetime) -> float:
        """Moments outside are put at the edges."""
        span = (self.end - self.begin).total_seconds()
        share = (at - self.begin).total_seconds() / span if span > 0 else 0.5
        return Scale(0, 1, self.left, self.right)(min(1.0, max(0.0, share)))

    def ticks(self) -> list[tuple[datetime, str]]:
        """Round moments in UTC with their names, at most about one in 70 pixels."""
        count = max(2, int((self.right - self.left) / 70))
        span = (self.end - self.begin).total_seconds()
        step = next((step for step in _STEPS_S if span <= step * count), None)
        if step is not None:
            return [(at, _name(at, step)) for at in self._by_seconds(step)]
        months = span / (30.44 * _DAY)
        by = next((step for step in _STEPS_MONTHS if months <= step * count), _STEPS_MONTHS[-1])
        return [(at, _month_name(at, by)) for at in self._by_months(by)]

    def axis(self, top: float, bottom: float) -> Markup:
        """Grid lines with the ticks' names above and below."""
        parts = []
        for at, name in self.ticks():
            x = self(at)
            parts.append(line(x, top, x, bottom, "grid"))
            anchor = "start" if x < self.left + 16 else "end" if x > self.right - 16 else "middle"
            parts += [text(x, y, name, "tick", anchor) for y in (top - 6, bottom + 16)]
        return join(parts)

    def thinned(
        self, items: Sequence[T], moment: Callable[[T], datetime], choose: Callable[[list[T]], T], gap: float
    ) -> list[T]:
        """Of the items that would be drawn within `gap` pixels, the chosen one."""
        cells: dict[int, list[T]] = {}
        for item in items:
            cells.setdefault(int((self(moment(item)) - self.left) / gap), []).append(item)
        return [choose(cell) for _, cell in sorted(cells.items())]

    def _by_seconds(self, step: int) -> Iterator[datetime]:
        since = (self.begin - _A_MONDAY).total_seconds()
        at = _A_MONDAY + timedelta(seconds=-(-since // step) * step)
        while at <= self.end:
            yield at
            at += timedelta(seconds=step)

    def _by_months(self, step: int) -> Iterator[datetime]:
        begin = self.begin.astimezone(UTC)
        index = 12 * begin.year + begin.month - 1
        index = -(-index // step) * step
        while True:
            at = datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC)
            if at > self.end:
                return
            if at >= self.begin:
                yield at
            index += step


def day(at: datetime) -> str:
    """`3 Mar`"""
    at = at.astimezone(UTC)
    return f"{at.day} {at:%b}"


def minute(at: datetime) -> str:
    """`2026-03-03 14:05`"""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def stamp(at: datetime) -> Markup:
    """`minute` as an element, which keeps to one line."""
    return tag("time", minute(at), datetime=f"{at.astimezone(UTC):%Y-%m-%dT%H:%MZ}")


def _name(at: datetime, step: int) -> str:
    if step >= _DAY or (at.hour, at.minute, at.second) == (0, 0, 0):
        return day(at)
    return f"{at:%H:%M}" if step >= 60 else f"{at:%H:%M:%S}"


def _month_name(at: datetime, step: int) -> str:
    if step >= 12:
        return f"{at.year}"
    return f"{at:%b} {at.year}" if at.month == 1 else f"{at:%b}"
