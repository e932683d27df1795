"""Ticks are round moments, and as many as there is room for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autovision.report.time_axis import TimeScale

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def names(begin: datetime, days: float, width: float = 500) -> list[str]:
    scale = TimeScale(begin, begin + timedelta(days=days), 0, width)
    return [name for _, name in scale.ticks()]


@pytest.mark.parametrize(
    ("days", "shown"),
    [
        (0.2, ["12:00", "13:00", "14:00", "15:00", "16:00"]),
        (1.0, ["12:00", "18:00", "2 Mar", "06:00", "12:00"]),
        (5.0, ["2 Mar", "3 Mar", "4 Mar", "5 Mar", "6 Mar"]),
        (35.0, ["2 Mar", "9 Mar", "16 Mar", "23 Mar", "30 Mar"]),
        (150.0, ["Apr", "May", "Jun", "Jul"]),
        (420.0, ["May", "Jul", "Sep", "Nov", "Jan 2027", "Mar"]),
        (3000.0, ["2028", "2030", "2032", "2034"]),
    ],
)
def test_ticks_are_round(days: float, shown: list[str]) -> None:
    assert names(NOON, days) == shown


def test_weeks_begin_on_mondays() -> None:
    scale = TimeScale(NOON, NOON + timedelta(days=40), 0, 500)
    assert {at.weekday() for at, _ in scale.ticks()} == {0}


moments = st.datetimes(datetime(2001, 1, 1), datetime(2098, 1, 1), timezones=st.just(UTC))


@given(
    moments, st.floats(0, 15_000_000).map(lambda m: timedelta(minutes=m)), st.sampled_from([300.0, 1000.0])
)
def test_ticks_lie_within_in_order_and_not_too_close(begin: datetime, span: timedelta, width: float) -> None:
    scale = TimeScale(begin, begin + span, 40, 40 + width)
    ticks = [at for at, _ in scale.ticks()]
    assert all(begin <= at <= begin + span for at in ticks)
    at_pixels = [scale(at) for at in ticks]
    assert all(later - earlier >= 60 for earlier, later in pairwise(at_pixels))


def test_other_zones_are_the_same_moments() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    assert names(NOON.astimezone(zone), 35) == names(NOON, 35)


def test_what_lies_outside_is_at_the_edge() -> None:
    scale = TimeScale(NOON, NOON + timedelta(days=1), 40, 100)
    assert scale(NOON - timedelta(days=3)) == 40
    assert scale(NOON + timedelta(days=3)) == 100
    assert TimeScale(NOON, NOON, 40, 100)(NOON) == 70


def test_of_what_lies_together_one_is_chosen() -> None:
    scale = TimeScale(NOON, NOON + timedelta(days=100), 0, 100)
    days = [0.1, 0.2, 7.0, 9.9, 50.0]
    kept = scale.thinned(days, lambda each: NOON + timedelta(days=each), max, 5.0)
    assert kept == [0.2, 9.9, 50.0]
