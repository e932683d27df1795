import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autovision.records.deployments import DriftReport, RetrainingPolicy, Verdict
from autovision.retraining.policy import Snapshot, decide

NOW = datetime(2026, 1, 2, tzinfo=UTC)
POLICY = RetrainingPolicy(min_labels=50, volume_labels=1000, cooldown_s=3600)


def report(alarm):
    return DriftReport(
        id="20260101T000000.000000-abcdef",
        deployment="solar",
        model="m1",
        n=100,
        reference_n=200,
        first_request="a",
        last_request="b",
        window_start=NOW,
        window_end=NOW,
        score=0.5 if alarm else 0.001,
        threshold=0.02,
        p_value=0.0002 if alarm else 0.4,
        alpha=0.001,
        alarm=alarm,
        created_at=NOW,
    )


ALARM = Snapshot(now=NOW, report=report(True), labels=60, labels_per_class={"ok": 40, "defective": 20})


@pytest.mark.parametrize(
    ("snapshot", "accepted", "why"),
    [
        (ALARM, True, r"drifted \(score 0.5000, alarm from 0.0200, .*60 new labels \(defective 20, ok 40\)"),
        (replace(ALARM, labels=50), True, "50 new labels"),
        (replace(ALARM, labels=49), False, "1 more of 50 are missing"),
        (replace(ALARM, answered=True), False, "answered by a search already.*1000 trigger a search"),
        (replace(ALARM, running_search="s-1"), False, "search s-1 is not over yet"),
        (
            replace(ALARM, last_search_at=NOW - timedelta(seconds=3599)),
            False,
            "lasts until 2026-01-02 00:00:01",
        ),
        (replace(ALARM, last_search_at=NOW - timedelta(seconds=3600)), True, "drifted"),
        (replace(ALARM, report=report(False)), False, "show no drift"),
        (replace(ALARM, report=None), False, "no window of requests has been examined"),
        (Snapshot(now=NOW, labels=1000), True, "1000 new labels are there, and 1000 trigger"),
        (Snapshot(now=NOW, labels=999), False, "999 new labels"),
        (replace(ALARM, answered=True, labels=2000), True, "2000 new labels"),
    ],
)
def test_rules(snapshot, accepted, why):
    verdict = decide(snapshot, POLICY)
    assert verdict.accepted == accepted
    assert re.search(why, verdict.why), verdict.why
    assert Verdict.model_validate_json(verdict.to_json()) == verdict


def test_the_trigger_is_named():
    assert decide(ALARM, POLICY).numbers["trigger"] == "drift"
    assert decide(replace(ALARM, report=None, labels=5000), POLICY).numbers["trigger"] == "volume"
    assert decide(replace(ALARM, labels=0), POLICY).numbers["trigger"] is None


def test_volume_can_be_switched_off():
    verdict = decide(Snapshot(now=NOW, labels=10**6), POLICY.with_(volume_labels=None))
    assert not verdict.accepted and "volume alone never" in verdict.why


def test_volume_needs_no_alarm_even_where_an_alarm_needs_more():
    policy = POLICY.with_(min_labels=500, volume_labels=100)
    assert decide(replace(ALARM, labels=200), policy).numbers["trigger"] == "volume"


snapshots = st.builds(
    Snapshot,
    now=st.just(NOW),
    report=st.sampled_from([None, report(True), report(False)]),
    answered=st.booleans(),
    labels=st.integers(0, 2000),
    last_search_at=st.none() | st.integers(-100, 10_000).map(lambda s: NOW - timedelta(seconds=s)),
    running_search=st.none() | st.just("s-1"),
)
policies = st.builds(
    RetrainingPolicy,
    min_labels=st.integers(1, 500),
    volume_labels=st.none() | st.integers(1, 1500),
    cooldown_s=st.sampled_from([0.0, 60.0, 7200.0]),
)


@given(snapshots, policies)
def test_never_two_at_once_never_in_the_cooldown_never_without_labels(snapshot, policy):
    verdict = decide(snapshot, policy)
    assert verdict.why and verdict.what
    assert verdict.accepted == (verdict.numbers["trigger"] is not None)
    if verdict.accepted:
        assert snapshot.running_search is None
        assert snapshot.labels >= min(policy.min_labels, policy.volume_labels or policy.min_labels)
        if snapshot.last_search_at is not None:
            assert (NOW - snapshot.last_search_at).total_seconds() >= policy.cooldown_s


@given(snapshots, policies, st.integers(1, 1000))
def test_more_labels_never_turn_a_search_down(snapshot, policy, more):
    if decide(snapshot, policy).accepted:
        assert decide(replace(snapshot, labels=snapshot.labels + more), policy).accepted
