"""What holds a re-search back, and until when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from autovision.records.deployments import RetrainingPolicy
from autovision.retraining.limits import limits
from autovision.retraining.snapshot import Snapshot

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
POLICY = RetrainingPolicy(budget_s=100, cooldown_s=3600)
FREE = Snapshot(now=NOW)


def held(
    snapshot: Snapshot, policy: RetrainingPolicy = POLICY, *, by_hand: bool = False
) -> dict[str, datetime | None]:
    return {limit.limit: limit.until for limit in limits(snapshot, policy, by_hand=by_hand)}


def ago(**passed: float) -> datetime:
    return NOW - timedelta(**passed)


def test_nothing_holds_back_who_is_free() -> None:
    assert held(FREE) == {}


def test_cooldown_is_counted_from_the_beginning_of_the_last_search() -> None:
    assert held(replace(FREE, last_search_at=ago(minutes=59))) == {"cooldown": NOW + timedelta(minutes=1)}
    assert held(replace(FREE, last_search_at=ago(minutes=60))) == {}


def test_failures_double_the_pause_up_to_a_week() -> None:
    for failures, hours in [(1, 1), (2, 2), (5, 16), (8, 128), (9, 168), (5000, 168)]:
        snapshot = replace(FREE, failures=failures, failed_at=NOW)
        assert held(snapshot) == {"backoff": NOW + timedelta(hours=hours)}, failures
    assert held(replace(FREE, failures=1, failed_at=ago(hours=1))) == {}
    assert held(replace(FREE, failures=9, failed_at=NOW), POLICY.with_(backoff_s=0)) == {}


def test_budgets_count_searches_of_the_local_day_and_month_and_the_one_that_would_begin() -> None:
    policy = POLICY.with_(budget_day_s=250, budget_month_s=600, time_zone="Asia/Tokyo")  # where it is 21:00
    today, yesterday = NOW.replace(hour=0), datetime(2026, 1, 14, 14, 59, tzinfo=UTC)
    spent = replace(FREE, spent=((today, 150.0), (yesterday, 150.0)))
    assert held(spent, policy) == {}
    assert held(replace(spent, spent=((today, 151.0),)), policy) == {
        "budget_day": datetime(2026, 1, 15, 15, tzinfo=UTC)
    }
    month = replace(spent, spent=((yesterday, 501.0), (datetime(2025, 12, 31, 14, tzinfo=UTC), 9e9)))
    assert held(month, policy) == {"budget_month": datetime(2026, 1, 31, 15, tzinfo=UTC)}


def test_each_class_needs_its_labels() -> None:
    policy = POLICY.with_(min_labels_per_class=5)
    snapshot = replace(FREE, classes=("cat", "dog"), labels=9, labels_per_class={"cat": 9})
    (limit,) = limits(snapshot, policy, by_hand=False)
    assert limit.why.endswith("5 of each class are needed: 5 more of dog")
    assert held(replace(snapshot, labels_per_class={"cat": 9, "dog": 5}), policy) == {}
    assert held(replace(snapshot, labels_per_class={"cat": 9, "dog": 5, "new": 1}), policy) == {
        "labels_per_class": None
    }


def test_of_a_thousand_classes_some_are_named() -> None:
    names = tuple(f"class{n:04d}" for n in range(1000))
    snapshot = replace(FREE, classes=names, labels=500, labels_per_class=dict.fromkeys(names[:500], 1))
    (limit,) = limits(snapshot, POLICY.with_(min_labels_per_class=2), by_hand=False)
    assert "500 new labels (class0000 1, " in limit.why and ", and 490 more) are there" in limit.why
    assert limit.why.endswith(", 1 more of class0009, and 990 more")
    assert len(limit.why) < 600


def test_a_person_overrules_all_but_budgets_and_that_one_search_runs_at_a_time() -> None:
    policy = POLICY.with_(
        quiet_hours=("00:00-24:00",), min_labels_per_class=5, budget_day_s=100, budget_month_s=100
    )
    snapshot = Snapshot(
        now=NOW,
        classes=("cat",),
        last_search_at=NOW,
        running_search="s-1",
        spent=((NOW, 1.0),),
        failures=1,
        failed_at=NOW,
    )
    hard = {"running", "budget_day", "budget_month"}
    assert set(held(snapshot, policy, by_hand=True)) == hard
    assert set(held(snapshot, policy)) == hard | {"cooldown", "backoff", "quiet_hours", "labels_per_class"}


@given(st.integers(0, 10), st.integers(0, 200_000), st.integers(0, 400_000), st.floats(0, 300))
def test_a_limit_that_has_an_end_is_over_then(
    failures: int, failed_s: int, last_s: int, spent: float
) -> None:
    policy = POLICY.with_(budget_day_s=150, quiet_hours=("10:00-13:00",), time_zone="Europe/Berlin")
    snapshot = Snapshot(
        now=NOW,
        failures=failures,
        failed_at=ago(seconds=failed_s),
        last_search_at=ago(seconds=last_s),
        spent=((NOW, spent),),
    )
    for limit in limits(snapshot, policy, by_hand=False):
        assert limit.until is not None and limit.until > NOW
        later = {each.limit for each in limits(replace(snapshot, now=limit.until), policy, by_hand=False)}
        assert limit.limit not in later


def test_a_pause_longer_than_calendars_are_is_a_long_one() -> None:
    found = held(replace(FREE, last_search_at=NOW), POLICY.with_(cooldown_s=1e300))
    assert (found["cooldown"] or NOW) > NOW + timedelta(days=3650)
