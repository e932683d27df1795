"""Slots of cron expressions, also where clocks are put forward and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autovision.errors import InvalidInput
from autovision.records import calendar
from autovision.records.deployments import RetrainingPolicy
from autovision.retraining.schedule import MOST_COUNTED, count_slots, due_slot, next_slot, slots

BERLIN = "Europe/Berlin"
SPRING, AUTUMN = datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)
"""days on which Berlin's clocks change, at 01:00 UTC"""


def told(expression: str, zone: str, after: datetime, n: int) -> list[str]:
    return [f"{slot:%d %H:%M}" for slot in islice(slots(expression, zone, after), n)]


def test_slots_are_of_the_time_zone() -> None:
    after = datetime(2026, 1, 1, tzinfo=UTC)
    assert told("0 3 * * 1", BERLIN, after, 3) == ["05 02:00", "12 02:00", "19 02:00"]
    assert told("0 3 * * MON", "America/New_York", after, 2) == ["05 08:00", "12 08:00"]


def test_a_time_that_is_skipped_comes_at_the_end_of_the_gap_and_once() -> None:
    assert told("30 2 * * *", BERLIN, SPRING, 2) == ["29 01:00", "30 00:30"]
    assert told("0,30 2 * * *", BERLIN, SPRING, 2) == ["29 01:00", "30 00:00"]
    assert told("30 2,3 * * *", BERLIN, SPRING, 3) == ["29 01:00", "29 01:30", "30 00:30"]


def test_a_time_that_comes_twice_counts_the_first_time() -> None:
    assert told("30 2 * * *", BERLIN, AUTUMN, 2) == ["25 00:30", "26 01:30"]
    for minutes in range(0, 61, 10):  # wherever in the repeated hour one begins to look
        after = AUTUMN.replace(hour=1) + timedelta(minutes=minutes)
        assert told("30 2 * * *", BERLIN, after, 1) == ["26 01:30"], after


def test_what_comes_every_hour_goes_by_elapsed_time() -> None:
    assert told("0 * * * *", BERLIN, AUTUMN, 3) == ["25 01:00", "25 02:00", "25 03:00"]
    assert told("0 * * * *", BERLIN, SPRING, 3) == ["29 01:00", "29 02:00", "29 03:00"]


def test_the_latest_slot_that_has_come_stands_for_those_that_were_missed() -> None:
    last, now = datetime(2026, 1, 5, 3, tzinfo=UTC), datetime(2026, 3, 3, 10, tzinfo=UTC)
    due = due_slot("0 3 * * 1", "UTC", after=last, now=now)
    assert due == datetime(2026, 3, 2, 3, tzinfo=UTC)
    assert count_slots("0 3 * * 1", "UTC", after=last, before=due) == 7
    assert due_slot("0 3 * * 1", "UTC", after=due, now=now) is None
    assert due_slot("0 3 29 2 *", "UTC", after=datetime(2020, 1, 1, tzinfo=UTC), now=now) == datetime(
        2024, 2, 29, 3, tzinfo=UTC
    )
    assert due_slot("0 3 1 1 *", "UTC", after=last, now=now) is None
    assert count_slots("* * * * *", "UTC", after=last, before=now) == MOST_COUNTED


def test_a_slot_is_due_from_its_very_moment() -> None:
    at = datetime(2026, 1, 5, 3, tzinfo=UTC)
    before = at - timedelta(microseconds=1)
    assert due_slot("0 3 * * *", "UTC", after=at - timedelta(hours=1), now=before) is None
    assert due_slot("0 3 * * *", "UTC", after=before, now=at) == at
    assert next_slot("0 3 * * *", "UTC", before) == at
    assert next_slot("0 3 * * *", "UTC", at) == at + timedelta(days=1)


fields = st.tuples(
    st.sampled_from(["0", "30", "*/20", "5,35", "*"]),
    st.sampled_from(["*", "2", "1-3", "*/6", "0,2"]),
    st.sampled_from(["*", "1", "29-31"]),
    st.sampled_from(["*", "3,10"]),
    st.sampled_from(["*", "0", "1-5"]),
)
zones = st.sampled_from([BERLIN, "UTC", "America/New_York", "Australia/Lord_Howe", "America/Santiago"])
moments = st.sampled_from(
    [SPRING, AUTUMN, datetime(2026, 4, 5, tzinfo=UTC), datetime(2026, 3, 8, tzinfo=UTC)]
)


@given(fields, zones, moments, st.lists(st.integers(1, 6 * 3600), min_size=1, max_size=12))
def test_looking_now_and_then_each_slot_is_met_once_or_stood_for(
    fields: tuple[str, ...], zone: str, begin: datetime, pauses: list[int]
) -> None:
    expression = " ".join(fields)
    handled, now, met = begin, begin, []
    for pause in pauses:
        now += timedelta(seconds=pause)
        if (due := due_slot(expression, zone, after=handled, now=now)) is not None:
            met.append(due)
            handled = due
    everything = [slot for slot in islice(slots(expression, zone, begin), 5000) if slot <= now]
    assert everything == sorted(set(everything))
    assert set(met) <= set(everything)
    assert met == sorted(set(met)), "none twice"
    assert (met[-1:] or [None]) == (everything[-1:] or [None]), "the latest is never left out"


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("0 3 * *", "has 4 fields"),
        ("0 0 3 * * *", "has 6 fields"),
        ("@daily", "has 1 fields"),
        ("61 3 * * *", "Bad minute"),
        ("0 3 31 2 *", "Bad day-of-month"),
        ("", "has 0 fields"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_remedy(expression: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=rf"{why}.*such as '0 3 \* \* 1'"):
        calendar.check_schedule(expression)
    with pytest.raises(ValueError, match=why):
        RetrainingPolicy(schedule=expression)


def test_a_time_zone_is_one_that_exists() -> None:
    with pytest.raises(InvalidInput, match=r"no time zone 'Europe/Berln'; did you mean 'Europe/Berlin'"):
        calendar.zone("Europe/Berln")
    for odd in ("", "../UTC", "/etc/localtime", "Europe", "\0"):
        with pytest.raises(InvalidInput, match="no time zone"):
            calendar.zone(odd)
