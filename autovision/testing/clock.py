"""A clock that stands still until it is told to move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class FakeClock:
    """Pass it wherever a `clock: Callable[[], datetime]` is asked for; it tells the time it was set to."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start.astimezone(UTC)

    def __call__(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> datetime:
        """Move by `seconds` (back, if negative, as a clock that is corrected does); the new time."""
        self._now += timedelta(seconds=seconds)
        return self._now

    def set(self, to: datetime) -> None:
        self._now = to.astimezone(UTC)
