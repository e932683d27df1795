"""What is gathered of a deployment is what was done with it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from autovision.controller import Controller
from autovision.errors import NotFound
from autovision.promotion import rollout
from autovision.records.deployments import (
    AccuracyEstimate,
    Decision,
    DecisionKind,
    DetectorVerdict,
    DriftReport,
    Label,
    LabelledAccuracy,
    RetrainingPolicy,
)
from autovision.records.history import History as Told
from autovision.records.history import reach
from autovision.records.rollouts import RolloutPolicy
from autovision.records.searches import SearchStatus
from autovision.registry import deployments
from autovision.registry.history import gather
from autovision.search import requests
from autovision.store import MemoryStore, keys, labels, records
from autovision.store.protocol import Blob

if TYPE_CHECKING:
    from tests.unit.conftest import History

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(days: float) -> datetime:
    return NOON + timedelta(days=days)


@pytest.fixture
def store(tiny: History) -> MemoryStore:
    store = tiny.copy()
    deployments.create(store, "door", "colours", tiny.space.to_json(), RetrainingPolicy(window=40))
    created = deployments.get(store, "door").with_(created_at=NOON)
    records.update(store, keys.deployment("door"), type(created), lambda _: created)
    return store


def promote(store: MemoryStore, model: str, days: float, **options: Any) -> Decision:
    made = rollout.consider(store, "door", model, force=True, clock=lambda: at(days), **options)
    assert made.accepted
    return made


def history(store: MemoryStore, days: float = 100, since: float | None = None) -> Told:
    found = gather(store, "door", since=None if since is None else at(since), clock=lambda: at(days))
    assert Told.model_validate_json(found.to_json()) == found
    return found


def verdict(name: str, ratio: float) -> DetectorVerdict:
    return DetectorVerdict(
        name=name,
        alarm=ratio >= 1,
        score=0.02 * ratio,
        threshold=0.02,
        p_value=0.0001 if ratio >= 1 else 0.4,
        alpha=0.001,
        n=40,
        reference_n=80,
    )


def accuracy(value: float, expected: float = 0.9) -> LabelledAccuracy:
    return LabelledAccuracy(
        value=value,
        low=value - 0.05,
        high=value + 0.05,
        n=50,
        expected=expected,
        held_out=expected,
        reviewed=0,
        confidence=0.9,
        confidence_of_all=0.9,
    )


def watch(
    store: MemoryStore,
    model: str,
    days: float,
    *verdicts: DetectorVerdict,
    said: LabelledAccuracy | None = None,
) -> DriftReport:
    """Store a report as the monitor does; without verdicts one of before there were several detectors."""
    report = DriftReport(
        id=keys.timestamped_id(at(days)),
        deployment="door",
        model=model,
        n=40,
        reference_n=80,
        first_request="a",
        last_request="b",
        window_start=at(days - 1),
        window_end=at(days),
        score=0.01,
        threshold=0.02,
        p_value=0.3,
        alpha=0.001,
        alarm=any(each.alarm for each in verdicts),
        created_at=at(days),
        detectors=verdicts,
        estimate=AccuracyEstimate(
            value=0.8, low=0.7, high=0.9, by_difference=0.8, held_out=0.9, n=40, held_out_n=80
        ),
        accuracy=said,
    )
    records.create(store, keys.report("door", report.id), report)
    return report


def test_champions_have_their_times_and_figures(store: MemoryStore, tiny: History) -> None:
    first, second = tiny.models
    promote(store, first.id, 1)
    promote(store, second.id, 2)
    rollout.roll_back(store, "door", clock=lambda: at(3))
    found = history(store)
    assert [(each.model, each.since, each.until) for each in found.reigns] == [
        (first.id, at(1), at(2)),
        (second.id, at(2), at(3)),
        (first.id, at(3), None),
    ]
    assert (found.champion, found.notes) == (first.id, ())
    assert [each.made_champion for each in found.decisions] == [True, True, True]
    assert list(found.models) == [first.id, second.id]
    figures, test = found.models[second.id], second.metrics["test"]
    assert (figures.dataset, figures.n, figures.accuracy) == ("colours@2", test.n, test.accuracy)
    assert figures.value == test.accuracy
    for index, name in enumerate(second.classes):
        recall = figures.recall[name]
        assert recall.value == test.per_class_recall[name]
        assert recall.n == sum(test.confusion[index])
        assert recall.low is not None and recall.high is not None
        assert recall.low <= recall.value <= recall.high
    assert set(figures.subgroups) == {
        name.removeprefix("test:") for name in second.metrics if name.startswith("test:")
    }


def test_a_rollout_makes_a_champion_at_its_end(store: MemoryStore, tiny: History) -> None:
    first, second = (model.id for model in tiny.models)
    promote(store, first, 1)
    deployments.set_rollout_policy(store, "door", RolloutPolicy(canary=(0.1, 0.5)))
    promote(store, second, 2)
    assert (history(store).challenger, len(history(store).reigns)) == (second, 1)
    for days in (3, 4):
        rollout.go_on(store, "door", at_once=True, clock=lambda days=days: at(days))
    found = history(store)
    assert [each.made_champion for each in found.decisions] == [True, False, False, True]
    assert [(each.model, each.since) for each in found.reigns] == [(first, at(1)), (second, at(4))]
    assert (found.champion, found.challenger) == (second, None)


def test_since_a_moment_the_champion_of_then_is_known_and_little_else_is_read(
    store: MemoryStore, tiny: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (model.id for model in tiny.models)
    promote(store, first, 1)
    for minutes in range(250):
        deployments.record_decision(store, wait(1.5 + minutes / 1440))
        watch(store, first, 1.5 + minutes / 1440)
    promote(store, second, 2)
    for minutes in range(150):
        deployments.record_decision(store, wait(2.5 + minutes / 1440))
    read = []
    get = MemoryStore.get

    def counting(self: MemoryStore, key: str) -> Blob:
        read.append(key)
        return get(self, key)

    monkeypatch.setattr(MemoryStore, "get", counting)
    found = gather(store, "door", since=at(5), clock=lambda: at(9))
    assert [(each.model, each.since, each.until) for each in found.reigns] == [(second, at(2), None)]
    assert (found.decisions, found.windows, found.since) == ((), (), at(5))
    assert not any(keys.reports("door") in key or keys.decisions("door") in key for key in read)
    (before, after) = gather(store, "door", since=at(1.9), clock=lambda: at(9)).reigns
    assert ((before.model, before.since), (after.model, after.since)) == ((first, at(1)), (second, at(2)))


def wait(days: float) -> Decision:
    return Decision(
        id=keys.timestamped_id(at(days)),
        kind=DecisionKind.RETRAIN,
        deployment="door",
        accepted=False,
        what="do not search again yet",
        why="nothing stirs",
        created_at=at(days),
    )


def test_windows_tell_what_each_detector_said(store: MemoryStore, tiny: History) -> None:
    model = tiny.models[0].id
    promote(store, model, 1)
    old = watch(store, model, 2)
    new = watch(store, model, 3, verdict("input", 0.4), verdict("quality", 3.0), said=accuracy(0.85))
    found = history(store).windows
    assert [each.report for each in found] == [old.id, new.id]
    assert [[each.name for each in window.detectors] for window in found] == [["input"], ["input", "quality"]]
    assert [reach(window.detectors[-1]) for window in found] == pytest.approx([0.5, 3.0])
    assert [each.alarm for each in found] == [False, True]
    assert (found[1].estimate, found[1].accuracy) == (new.estimate, new.accuracy)


def test_labels_that_come_after_an_alarm_tell_whether_it_mattered(store: MemoryStore, tiny: History) -> None:
    first, second = (model.id for model in tiny.models)
    promote(store, first, 0.5)
    watch(store, first, 1, verdict("input", 2))
    watch(store, first, 2, verdict("input", 0.1), said=accuracy(0.6))
    watch(store, first, 3, verdict("input", 2), said=accuracy(0.88))
    watch(store, first, 4, verdict("input", 2), verdict("accuracy", 1.5), said=accuracy(0.87))
    watch(store, first, 5, verdict("input", 2))
    watch(store, second, 6, verdict("input", 0.1), said=accuracy(0.5))
    found = history(store)
    assert [each.harm for each in found.windows] == [True, None, False, True, None, None]
    (march,) = (each for each in found.months if each.month == "2026-03")
    assert (march.windows, march.alarms, march.harmful, march.harmless) == (6, 4, 2, 1)


def test_an_alarm_leads_to_a_search_that_is_counted(store: MemoryStore, tiny: History) -> None:
    first = tiny.models[0].id
    promote(store, first, 1)
    alarm = watch(store, first, 2, verdict("input", 9))
    request = tiny.searches[1].with_(nonce=alarm.id, reason="search again, because of drift")
    requests.submit(store, request)
    requests.set_state(
        store,
        request.id,
        status=SearchStatus.FINISHED,
        spent_s=90.0,
        cost=0.5,
        currency="EUR",
        trials=12,
        model=tiny.models[1].id,
    )
    asked = Decision(
        id=keys.timestamped_id(at(2.1)),
        kind=DecisionKind.RETRAIN,
        deployment="door",
        accepted=True,
        what=request.reason,
        why="it has drifted",
        subject=request.id,
        numbers={"report": alarm.id, "trigger": "drift"},
        created_at=at(2.1),
    )
    deployments.record_decision(store, asked)
    found = history(store, 400)
    (window,) = found.windows
    assert window.search == request.id
    searched = {each.search: each for each in found.searches}
    assert set(searched) == {request.id, *(each.id for each in tiny.searches)}
    facts = searched[request.id]
    assert (facts.decision, facts.cost, facts.trials, facts.became_champion) == (asked.id, 0.5, 12, False)
    assert searched[tiny.searches[0].id].became_champion
    assert (searched[tiny.searches[0].id].decision, searched[tiny.searches[0].id].cost) == (None, None)
    assert (found.sums.searches, found.sums.spent_s, found.sums.cost) == (3, 90.0, {"EUR": 0.5})
    promote(store, tiny.models[1].id, 3)
    assert {each.search: each.became_champion for each in history(store).searches}[request.id]


@pytest.mark.parametrize(
    ("numbers", "led"),
    [
        ({"trigger": "volume"}, False),
        ({"trigger": "accuracy"}, True),
        ({"trigger": "schedule", "reasons": ["search", "schedule", "drift"]}, True),
        ({"trigger": "schedule", "reasons": ["search", "schedule"]}, False),
    ],
)
def test_a_search_follows_from_a_window_only_if_that_spoke_for_it(
    store: MemoryStore, tiny: History, numbers: dict[str, Any], led: bool
) -> None:
    alarm = watch(store, tiny.models[0].id, 2, verdict("input", 9))
    asked = wait(3).with_(accepted=True, subject="s", numbers={"report": alarm.id, **numbers})
    deployments.record_decision(store, asked)
    assert history(store).windows[0].search == ("s" if led else None)


def test_what_a_controller_did_is_found(
    store: MemoryStore,
    tiny: History,
    serve_images: Callable[..., list[tuple[str, str]]],
    tmp_path: Path,
) -> None:
    clock = iter(at(10 + minutes / 1440) for minutes in range(10_000))
    controller = Controller(store, clock=lambda: next(clock))
    while list(controller.step_without_search()):
        pass  # it judges one model in a pass
    champion = deployments.get(store, "door").model
    assert champion is not None
    for request, name in serve_images(store, champion, tmp_path, 40, seed=1, shifted=False):
        labels.add(store, "door", Label(request_id=request, label=name, received_at=NOON))
    list(controller.step_without_search())
    found = history(store)
    assert found.reigns[-1].model == champion == found.champion
    assert sum(each.kind is DecisionKind.PROMOTE for each in found.decisions) == 2
    assert [each.n for each in found.windows] == [40]
    assert (found.sums.requests, found.sums.labelled, found.requests_counted) == (40, 40, True)
    assert found.sums.windows == 1


def test_a_deployment_to_which_nothing_happened(store: MemoryStore) -> None:
    found = history(store, 1)
    assert (found.champion, found.reigns, found.windows, found.decisions) == (None, (), (), ())
    assert found.metric == "accuracy"
    with pytest.raises(NotFound, match="no deployment 'dor'"):
        gather(store, "dor")


def test_a_label_of_a_request_that_nobody_can_have_sent_makes_no_months(store: MemoryStore) -> None:
    said = Label(request_id="00010101T000000.000000-abcdef", label="red", received_at=NOON)
    labels.add(store, "door", said)
    assert len(gather(store, "door").months) < 100


def test_a_champion_of_which_nothing_is_left_is_told(store: MemoryStore, tiny: History) -> None:
    first = tiny.models[0].id
    deployments.set_champion(store, "door", first, expected=None)
    store.delete(keys.model(first))
    found = history(store)
    assert [each.model for each in found.reigns] == [first]
    assert found.models == {}
    assert any("no decision tells" in note for note in found.notes)
    assert any("no longer in the store" in note for note in found.notes)


def test_what_the_next_search_waits_for_is_told_as_the_controller_saw_it(
    store: MemoryStore, tiny: History
) -> None:
    assert history(store).standing is None
    promote(store, tiny.models[0].id, 1)
    policy = RetrainingPolicy(window=40, budget_month_s=900, time_zone="Asia/Tokyo")
    deployment = deployments.get(store, "door").with_(policy=policy)
    records.update(store, keys.deployment("door"), type(deployment), lambda _: deployment)
    # After the searches that the store comes with, which were made just now.
    list(Controller(store, clock=lambda: at(10_000)).step_without_search())
    found = history(store, 10_001).standing
    assert found is not None and [each.trigger for each in found.triggers] == ["drift", "volume"]
    assert "more new labels" in found.triggers[1].needs and found.limits == ()
    assert (found.time_zone, found.spent_month_s, found.budget_month_s, found.budget_day_s) == (
        "Asia/Tokyo",
        0,
        900,
        None,
    )
