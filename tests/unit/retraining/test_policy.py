import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autovision.records.deployments import DriftReport, RetrainingPolicy, Verdict
from autovision.records.retraining import Ask
from autovision.retraining.accuracy import Share
from autovision.retraining.policy import NOTHING, Snapshot, decide
from autovision.retraining.triggers import alarming

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
        (Snapshot(now=NOW, labels=1000), True, "1000 new labels are there; 1000 trigger a search, without"),
        (Snapshot(now=NOW, labels=999), False, "999 new labels"),
        (replace(ALARM, answered=True, labels=2000), True, "2000 new labels"),
    ],
)
def test_rules(snapshot, accepted, why):
    verdict = decide(snapshot, POLICY)
    assert verdict.accepted == accepted
    assert re.search(why, verdict.why), verdict.why
    assert Verdict.model_validate_json(verdict.to_json()) == verdict


@pytest.mark.parametrize(("in_vain", "wanted"), [(0, 50), (1, 50), (2, 100), (3, 200), (100, 50 << 10)])
def test_re_searches_in_vain_ask_for_more_labels_each_time(in_vain, wanted):
    policy = POLICY.with_(accuracy_floor=0.9, volume_labels=None)
    low = replace(ALARM, in_vain=in_vain, measured=Share(200, 100))
    for snapshot in (low, replace(low, report=report(False)), replace(low, measured=None)):
        assert decide(replace(snapshot, labels=wanted), policy).accepted
        short = decide(replace(snapshot, labels=wanted - 1), policy)
        assert not short.accepted and f"1 more of {wanted} are missing" in short.why
        assert (f"{in_vain} re-searches of this champion" in short.why) == (in_vain > 1)
        assert decide(replace(snapshot, labels=50), policy.with_(labels_growth=1.0)).accepted


def test_the_trigger_is_named():
    assert decide(ALARM, POLICY).numbers["trigger"] == "drift"
    assert decide(replace(ALARM, report=None, labels=5000), POLICY).numbers["trigger"] == "volume"
    assert decide(replace(ALARM, labels=0), POLICY).numbers["trigger"] is None


def test_volume_can_be_switched_off():
    verdict = decide(Snapshot(now=NOW, labels=10**6), POLICY.with_(volume_labels=None))
    assert not verdict.accepted and "volume alone never" in verdict.why


@pytest.mark.parametrize(
    ("images", "number", "wanted", "why"),
    [
        (0, None, 50, "50 trigger a search, the least: 0.25 of the 0 images"),
        (300, None, 75, "75 trigger a search, 0.25 of the 300 images that the last search learnt from"),
        (301, None, 76, "76 trigger a search, 0.25 of the 301"),
        (10**6, None, 250_000, "0.25 of the 1000000 images"),
        (10**6, 1000, 1000, "there; 1000 trigger a search"),
        (300, 1000, 75, "0.25 of the 300"),
        (1000, 40, 40, "there; 40 trigger a search"),
    ],
)
def test_volume_is_a_share_of_what_was_learnt_from_or_a_number(images, number, wanted, why):
    policy = RetrainingPolicy(min_labels=50, volume_share=0.25, volume_labels=number, labels_growth=10.0)
    snapshot = Snapshot(now=NOW, images=images, labels=wanted, in_vain=5)
    found = decide(snapshot, policy)
    assert (found.numbers["trigger"], found.numbers["volume_labels"]) == ("volume", wanted)
    short = decide(replace(snapshot, labels=wanted - 1), policy)
    assert not short.accepted and found.numbers["trigger"] == "volume"
    assert why in short.why
    assert any(each["needs"] == "1 more new labels" for each in short.numbers["triggers"])


def test_a_share_asks_for_no_label_more_than_it_says():
    policy = RetrainingPolicy(min_labels=1, volume_share=1.1)
    assert decide(Snapshot(now=NOW, images=10, labels=11), policy).accepted
    assert not decide(Snapshot(now=NOW, images=10, labels=10), policy).accepted


def test_who_gives_a_number_alone_has_no_share():
    assert RetrainingPolicy().volume_share is not None and RetrainingPolicy().volume_labels is None
    for number in (None, 1000):
        policy = RetrainingPolicy(volume_labels=number)
        assert (policy.volume_share, policy.volume_labels) == (None, number)
    both = RetrainingPolicy(volume_labels=1000, volume_share=0.2)
    assert (both.volume_share, both.volume_labels) == (0.2, 1000)
    assert RetrainingPolicy.model_validate_json(both.to_json()) == both
    assert RetrainingPolicy().with_(window=50).volume_share == RetrainingPolicy().volume_share
    for wrong in (0, -0.1, 11, float("inf")):
        with pytest.raises(ValueError, match="volume_share"):
            RetrainingPolicy(volume_share=wrong)


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


# ------------------------------------------------------------------------------------- triggers one by one


def trigger_of(verdict):
    return verdict.numbers["trigger"]


def asked():
    return Ask(id="a", person="ann", reason="new lamps", at=NOW)


def test_a_person_comes_first_and_needs_no_labels():
    verdict = decide(replace(ALARM, ask=asked(), labels=0, last_search_at=NOW), POLICY)
    assert (trigger_of(verdict), verdict.what) == ("manual", "search again, because of a person's word")
    assert "ann asked for it: new lamps" in verdict.why
    assert not decide(replace(ALARM, ask=asked(), running_search="s-1"), POLICY).accepted


def accuracy_policy(**fields):
    return POLICY.with_(volume_labels=None, drift_detectors=(), **fields)


@pytest.mark.parametrize(
    ("right", "labels", "accepted", "reasons"),
    [
        (60, 100, True, ["search", "accuracy"]),
        (80, 100, False, [NOTHING]),  # may be by chance
        (95, 100, False, [NOTHING]),
        (60, 10, False, ["accuracy lacks labels"]),
    ],
)
def test_a_floor_is_undercut_only_where_labels_show_it(right, labels, accepted, reasons):
    snapshot = Snapshot(now=NOW, labels=labels, measured=Share(100, right))
    verdict = decide(snapshot, accuracy_policy(accuracy_floor=0.85))
    assert (verdict.accepted, verdict.numbers["reasons"]) == (accepted, reasons), verdict.why


def test_accuracy_is_compared_with_that_on_test_images():
    policy = accuracy_policy(accuracy_margin=0.05)
    snapshot = Snapshot(now=NOW, labels=100, measured=Share(200, 150), held_out=Share(400, 380))
    verdict = decide(snapshot, policy)
    assert (verdict.accepted, trigger_of(verdict)) == (True, "accuracy")
    assert "150 of 200 labelled answers are right, 75.0%" in verdict.why
    assert not decide(replace(snapshot, held_out=Share(40, 34)), policy).accepted
    assert not decide(replace(snapshot, held_out=None), policy).accepted
    assert not decide(snapshot, accuracy_policy(accuracy_margin=0.3)).accepted


def test_accuracy_is_not_judged_by_a_few_labels():
    policy = accuracy_policy(accuracy_floor=0.9, accuracy_labels=50)
    verdict = decide(Snapshot(now=NOW, labels=100, measured=Share(49, 0)), policy)
    assert not verdict.accepted
    (finding,) = [f for f in verdict.numbers["triggers"] if f["trigger"] == "accuracy"]
    assert finding["needs"] == "1 more labels of the champion's answers"


SCHEDULED = RetrainingPolicy(schedule="0 3 * * *", schedule_labels=5, volume_labels=None, min_labels=50)


def test_a_slot_leads_to_a_search_once():
    slot = NOW.replace(hour=3)
    snapshot = Snapshot(now=slot, labels=5, slots_since=slot - timedelta(days=1))
    verdict = decide(snapshot, SCHEDULED)
    assert (trigger_of(verdict), verdict.numbers["slot"]) == ("schedule", slot.isoformat())
    after = decide(replace(snapshot, slots_since=slot), SCHEDULED)
    assert not after.accepted and after.numbers["slot"] is None
    assert "the next slot of '0 3 * * *' is 2026-01-03 03:00:00 UTC" in after.why


def test_of_slots_that_were_missed_the_latest_stands_for_all():
    verdict = decide(Snapshot(now=NOW, labels=5, slots_since=NOW - timedelta(days=30)), SCHEDULED)
    assert verdict.accepted and "also stands for 29 that were missed" in verdict.why
    assert verdict.numbers["slot"] == (NOW - timedelta(hours=21)).isoformat()


def test_a_slot_without_labels_passes():
    since = NOW - timedelta(days=1)
    verdict = decide(Snapshot(now=NOW, labels=4, slots_since=since), SCHEDULED)
    assert not verdict.accepted and verdict.numbers["slot"] == (NOW - timedelta(hours=21)).isoformat()
    assert "passes: 4 new labels are there, and it takes 5" in verdict.why


def test_a_slot_waits_while_something_holds_it_back():
    snapshot = Snapshot(now=NOW, labels=5, slots_since=NOW - timedelta(days=1), running_search="s-1")
    verdict = decide(snapshot, SCHEDULED)
    assert (verdict.accepted, verdict.numbers["slot"]) == (False, None)
    assert verdict.numbers["reasons"] == ["schedule", "but", "running"]


def test_a_search_for_another_reason_answers_a_slot_that_is_due():
    verdict = decide(replace(ALARM, slots_since=NOW - timedelta(days=1)), SCHEDULED)
    assert trigger_of(verdict) == "drift" and verdict.numbers["slot"] is not None


def test_a_schedule_that_is_new_counts_from_now():
    verdict = decide(Snapshot(now=NOW, labels=100), SCHEDULED)
    assert not verdict.accepted and verdict.numbers["slot"] is None


# ------------------------------------------------------------------------------------------------ detectors


@dataclass(frozen=True)
class Detector:
    name: str
    alarm: bool


@dataclass(frozen=True)
class Report:
    """As much of a report as triggers look at, with what each detector said."""

    alarm: bool
    detectors: tuple[Detector, ...]


@pytest.mark.parametrize(
    ("wanted", "counts"),
    [
        (None, ("mmd", "confidence")),
        (("mmd",), ("mmd",)),
        (("mmd", "quality"), ("mmd",)),
        (("quality",), ()),
        ((), ()),
    ],
)
def test_only_detectors_that_the_policy_names_count(wanted, counts):
    said = Report(True, (Detector("mmd", True), Detector("quality", False), Detector("confidence", True)))
    assert alarming(said, wanted) == counts


def test_a_report_without_detectors_is_of_the_one_that_there_was():
    assert alarming(report(True), ("mmd",)) == ("",)
    assert alarming(report(False), None) == ()
    assert not decide(ALARM, POLICY.with_(drift_detectors=())).accepted


# ------------------------------------------------------------------------------------------------- outlook


def test_reasons_change_only_when_they_do():
    """Figures that change all the time are no news."""
    few = decide(replace(ALARM, labels=10), POLICY)
    assert few.numbers["reasons"] == decide(replace(ALARM, labels=49), POLICY).numbers["reasons"]
    held = [
        decide(replace(ALARM, last_search_at=NOW - timedelta(seconds=s)), POLICY).numbers["reasons"]
        for s in (1, 3000)
    ]
    assert held == [["drift", "but", "cooldown"]] * 2
    assert decide(Snapshot(now=NOW), POLICY).numbers["reasons"] == [NOTHING]


def test_what_would_have_to_happen_is_told():
    policy = POLICY.with_(schedule="0 3 * * *", quiet_hours=("00:00-06:00",))
    numbers = decide(replace(ALARM, labels=10, last_search_at=NOW), policy).numbers
    needs = {each["trigger"]: (each["needs"], each["at"]) for each in numbers["triggers"]}
    assert needs["drift"] == ("40 more new labels", None)
    assert needs["volume"] == ("990 more new labels", None)
    assert needs["schedule"] == ("the slot, and 1 new labels", (NOW + timedelta(hours=3)).isoformat())
    assert {each["limit"] for each in numbers["limits"]} == {"cooldown", "quiet_hours"}
    assert numbers["not_before"] == (NOW + timedelta(hours=6)).isoformat()


everything = st.builds(
    Snapshot,
    now=st.just(NOW),
    report=st.sampled_from([None, report(True), report(False)]),
    answered=st.booleans(),
    labels=st.integers(0, 2000),
    images=st.integers(0, 5000),
    classes=st.sampled_from([(), ("cat", "dog")]),
    labels_per_class=st.dictionaries(st.sampled_from(["cat", "dog"]), st.integers(0, 30)),
    last_search_at=st.none() | st.integers(0, 10_000).map(lambda s: NOW - timedelta(seconds=s)),
    running_search=st.none() | st.just("s-1"),
    spent=st.lists(
        st.tuples(st.integers(0, 10**7).map(lambda s: NOW - timedelta(seconds=s)), st.floats(0, 500)),
        max_size=4,
    ).map(tuple),
    failures=st.integers(0, 5),
    failed_at=st.none() | st.integers(0, 10**5).map(lambda s: NOW - timedelta(seconds=s)),
    measured=st.none() | st.integers(0, 100).map(lambda right: Share(100, right)),
    held_out=st.none() | st.just(Share(300, 270)),
    ask=st.none() | st.just(asked()),
    slots_since=st.none() | st.integers(0, 10**6).map(lambda s: NOW - timedelta(seconds=s)),
)
any_policy = st.builds(
    RetrainingPolicy,
    min_labels=st.integers(1, 500),
    volume_labels=st.none() | st.integers(1, 1500),
    volume_share=st.none() | st.floats(0.01, 2),
    cooldown_s=st.sampled_from([0.0, 7200.0]),
    schedule=st.sampled_from([None, "0 3 * * *", "*/5 * * * *"]),
    schedule_labels=st.integers(0, 10),
    accuracy_floor=st.none() | st.just(0.8),
    accuracy_margin=st.none() | st.just(0.05),
    min_labels_per_class=st.integers(0, 10),
    budget_day_s=st.none() | st.just(400.0),
    budget_month_s=st.none() | st.just(2000.0),
    quiet_hours=st.sampled_from([(), ("22:00-06:00",)]),
    time_zone=st.sampled_from(["UTC", "Europe/Berlin"]),
)


@given(everything, any_policy)
def test_whatever_is_known_the_verdict_has_its_reasons(snapshot, policy):
    verdict = decide(snapshot, policy)
    numbers = verdict.numbers
    fired = [each["trigger"] for each in numbers["triggers"] if each["fires"]]
    assert verdict.accepted == (bool(fired) and not numbers["limits"])
    assert verdict.why and numbers["reasons"]
    assert all(
        each["why"] and (each["fires"] or each["needs"] or each["trigger"] == "volume")
        for each in numbers["triggers"]
    )
    assert Verdict.model_validate_json(verdict.to_json()).numbers == numbers, "it is JSON"
    if verdict.accepted:
        assert snapshot.running_search is None
        if policy.budget_day_s is not None:
            assert numbers["spent_day_s"] + policy.budget_s <= policy.budget_day_s
    if numbers["not_before"] is not None:
        # All of them are over then; quiet hours may have begun again.
        later = replace(snapshot, now=datetime.fromisoformat(numbers["not_before"]))
        held = {each["limit"] for each in decide(later, policy).numbers["limits"]}
        assert held <= {"quiet_hours"}
