"""Giving up what would come too late."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from autovision.features import fill
from autovision.features.fill import OutOfTime


class Rows:
    """So many rows, of which some get done each second by the clock of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int, pace: float) -> None:
        self.now, self.rows, self.speed = 1_000.0, rows, pace
        monkeypatch.setattr(fill.time, "time", lambda: self.now)

    def left(self) -> int:
        return max(0, self.rows - round((self.now - 1_000.0) * self.speed))

    def seconds(self, until: float) -> Iterator[float]:
        while self.now < until and self.left():
            yield self.now
            self.now += 1.0


def outcome(rows: Rows, deadline: float) -> float | None:
    """When they were given up; None: they were not."""
    pace = fill._Pace(deadline)
    for now in rows.seconds(deadline):
        try:
            pace.check(rows.left)
        except OutOfTime:
            return now - 1_000.0
    return None


def test_rows_that_would_come_too_late_are_given_up_as_soon_as_that_is_clear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_up = outcome(Rows(monkeypatch, rows=1_000, pace=10.0), deadline=1_050.0)
    assert given_up is not None and given_up <= 5.0


def test_rows_that_will_be_ready_are_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(Rows(monkeypatch, rows=1_000, pace=25.0), deadline=1_050.0) is None
    just = Rows(monkeypatch, rows=1_000, pace=20.5)
    assert outcome(just, deadline=1_050.0) is None and just.left() == 0


def test_without_a_deadline_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(monkeypatch, rows=100, pace=1.0)
    assert outcome(rows, math.inf) is None and rows.left() == 0


def test_what_comes_before_the_first_rows_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network is compiled first, which takes longer than all of its rows."""
    rows = Rows(monkeypatch, rows=1_000, pace=50.0)
    pace = fill._Pace(1_060.0)
    rows.now += 30.0
    rows.rows += 1_500  # so that as many are left as at first
    pace.check(rows.left)
    for _ in rows.seconds(1_060.0):
        pace.check(rows.left)
    assert rows.left() == 0
