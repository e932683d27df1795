"""Quiet hours, days and months of time zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autovision.errors import InvalidInput
from autovision.records.calendar import QuietHours, quiet_hours
from autovision.retraining.hours import day, month, quiet_until, told

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "hours", "ends"),
    [
        ("2026-01-05T21:30", ["22:00-06:00"], "2026-01-06T05:00"),  # it is 22:30 in Berlin
        ("2026-01-05T20:59", ["22:00-06:00"], None),
        ("2026-01-06T04:59", ["22:00-06:00"], "2026-01-06T05:00"),
        ("2026-01-06T05:00", ["22:00-06:00"], None),
        ("2026-01-06T10:00", ["8:00-12:00", "12:00-14:00"], "2026-01-06T13:00"),
        ("2026-01-09T23:30", ["sat-sun 00:00-24:00"], "2026-01-11T23:00"),
        ("2026-01-09T22:30", ["sat-sun 00:00-24:00"], None),
        ("2026-01-06T10:00", ["mon,wed 08:00-12:00"], None),
        ("2026-01-06T02:00", ["mon 22:00-06:00"], "2026-01-06T05:00"),  # Tuesday, of what began on Monday
        ("2026-01-07T02:00", ["mon 22:00-06:00"], None),
        ("2026-01-05T02:00", ["fri-mon 00:00-23:00"], "2026-01-05T22:00"),
        ("2026-03-29T00:30", ["02:30-05:00"], None),
        ("2026-03-29T01:30", ["02:30-05:00"], "2026-03-29T03:00"),  # 02:30 is skipped: it is 03:30
        ("2026-10-25T00:30", ["02:00-03:00"], "2026-10-25T02:00"),  # the hour comes twice, and so it is two
    ],
)
def test_quiet_hours_are_local(now: str, hours: list[str], ends: str | None) -> None:
    assert quiet_until(at(now), hours, BERLIN) == (at(ends) if ends else None)


def test_without_quiet_hours_it_is_never_quiet() -> None:
    assert quiet_until(at("2026-01-05T21:30"), [], "UTC") is None


def test_hours_that_never_pause_end_somewhere() -> None:
    found = quiet_until(at("2026-01-05T21:30"), ["00:00-24:00"], "UTC")
    assert found is not None and found > at("2026-02-05T00:00")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "22-6",
        "22:00",
        "25:00-03:00",
        "22:60-06:00",
        "22:00-22:00",
        "24:00-06:00",
        "moon 22:00-06:00",
        "mon",
    ],
)
def test_what_is_not_understood_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(InvalidInput, match="write '22:00-06:00'"):
        quiet_hours(text)


def test_days_may_go_over_the_weekend() -> None:
    assert quiet_hours("Fri-Mon 22:00 - 6:00") == QuietHours(frozenset({4, 5, 6, 0}), 22 * 60, 6 * 60)


def test_a_day_may_have_23_hours_and_a_month_has_its_days() -> None:
    begins, ends = day(at("2026-03-29T12:00"), BERLIN)
    assert (begins, ends) == (at("2026-03-28T23:00"), at("2026-03-29T22:00"))
    assert month(at("2026-03-31T22:30"), BERLIN) == (at("2026-03-31T22:00"), at("2026-04-30T22:00"))
    assert month(at("2026-12-31T12:00"), "UTC") == (at("2026-12-01T00:00"), at("2027-01-01T00:00"))


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), st.sampled_from([BERLIN, "Asia/Beirut", "UTC"])
)
def test_every_moment_lies_in_its_day_and_month(moment: datetime, zone: str) -> None:
    now = moment.replace(tzinfo=UTC)
    for begins, ends in (day(now, zone), month(now, zone)):
        assert begins <= now < ends
    begins, ends = day(now, zone)
    assert day(ends, zone)[0] == ends
    assert day(begins - timedelta(microseconds=1), zone)[1] == begins


def test_moments_are_told_in_the_zone() -> None:
    assert told(at("2026-01-05T21:30"), BERLIN) == "2026-01-05 22:30:00 Europe/Berlin"
