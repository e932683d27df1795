"""The whole loop, turned without Ray: searches are run by their own parts in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from autovision import controller as controller_module
from autovision.controller import Controller, Event
from autovision.dataset import catalog
from autovision.errors import AutoVisionError, Conflict, Interrupted, StoreUnavailable
from autovision.model import bundle
from autovision.priors import ShiftEstimate
from autovision.records.deployments import (
    CapturePolicy,
    Decision,
    DecisionKind,
    Deployment,
    DriftReport,
    Label,
    RetrainingPolicy,
)
from autovision.records.searches import SearchState, SearchStatus
from autovision.registry import deployments
from autovision.registry.searches import all_searches
from autovision.retraining import adaptation, evaluation
from autovision.retraining import request as retraining
from autovision.search import requests
from autovision.search.run import run_search as real_run_search
from autovision.store import MemoryStore, captures, keys, labels, lease, records
from autovision.store.protocol import Store
from autovision.testing.clock import FakeClock
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History

START = datetime(2026, 6, 1, tzinfo=UTC)
POLICY = RetrainingPolicy(
    window=40, min_labels=30, volume_labels=None, budget_s=60.0, max_trials=1, cooldown_s=3600.0
)


@dataclass
class Plant:
    """A deployment `door` on the first model's data, a clock, and what was run."""

    store: MemoryStore
    history: History
    serve: Callable[..., list[tuple[str, str]]]
    folder: Path
    clock_at: datetime = START
    ran: list[str] = field(default_factory=list)
    connected: int = 0

    def controller(self, **options: Any) -> Controller:
        def connect() -> None:
            self.connected += 1

        return Controller(self.store, **{"clock": self.clock, "connect": connect, **options})

    def clock(self) -> datetime:
        """No two looks at a clock see the same time: ids are made of it."""
        self.clock_at += timedelta(milliseconds=1)
        return self.clock_at

    def turn(self) -> list[Event]:
        return list(self.controller().step_without_search())

    def settle(self) -> list[Event]:
        return list(self.controller().run(once=True))

    def contents(self) -> dict[str, bytes]:
        """Everything but leases, which change with every look, and the note of when retraining was evaluated."""
        changing = ("leases/", keys.retraining("door"))
        return {key: self.store.get(key).data for key in self.store.list() if not key.startswith(changing)}

    def send(self, n: int, *, seed: int, shifted: bool, deployment: str = "door") -> list[tuple[str, str]]:
        model = deployments.get(self.store, deployment).model
        folder = self.folder / str(seed)
        return self.serve(self.store, model, folder, n, seed=seed, shifted=shifted, deployment=deployment)

    def label(self, truth: list[tuple[str, str]]) -> None:
        for request_id, name in truth:
            labels.add(self.store, "door", Label(request_id=request_id, label=name, received_at=START))

    def decisions(self, kind: DecisionKind) -> list[Decision]:
        return [d for d in deployments.decisions(self.store, "door") if d.kind is kind]


@pytest.fixture
def plant(
    tiny: History,
    serve_images: Callable[..., list[tuple[str, str]]],
    run_search_alone: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Plant:
    """Before its first promotion; the second search has not happened."""
    store = tiny.copy()
    for key in list(store.list()):
        if (
            tiny.searches[1].id in key
            or tiny.models[1].id in key
            or key == keys.dataset_version("colours", 2)
        ):
            store.delete(key)
    deployments.create(store, "door", "colours", tiny.space.to_json(), POLICY)
    plant = Plant(store, tiny, serve_images, tmp_path)

    def run_search(store: Store, search: str, **options: Any) -> SearchState:
        plant.ran.append(search)
        run_search_alone(store, requests.get(store, search)[0], Workbench(store, threads=2))
        return requests.set_state(store, search, best_value=1.0)

    monkeypatch.setattr(controller_module, "run_search", run_search)
    return plant


@pytest.fixture
def promoted(plant: Plant) -> Plant:
    """The first model serves."""
    (event,) = plant.turn()
    assert event.stage == "promotion"
    return plant


def test_an_alarm_is_answered_without_labels_where_the_policy_says_so(
    promoted: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = promoted
    moved = ShiftEstimate(np.array([0.5, 0.5]), np.array([0.9, 0.1]), 0.001, 0.6, 0.04, 0.02)
    monkeypatch.setattr(adaptation, "estimate", lambda *given, seed: moved)
    plant.send(60, seed=2, shifted=True)
    assert [event.stage for event in plant.turn()] == ["monitoring", "retraining"], "not asked for"
    changed: Callable[..., Deployment] = partial(
        records.update, plant.store, keys.deployment("door"), Deployment
    )
    changed(lambda deployment: deployment.with_(policy=POLICY.with_(adapt=True)))
    adapted, judged = plant.turn()
    assert (adapted.stage, judged.stage) == ("adaptation", "promotion")
    assert isinstance(adapted.record, Decision) and isinstance(judged.record, Decision)
    assert adapted.record.accepted and judged.record.subject == adapted.record.subject
    assert not judged.record.accepted, "on held-out images the champion errs nowhere"
    assert plant.turn() == [], "once for each alarm"
    # Whoever is killed in between leaves the gates to be asked.
    plant.store.delete(keys.decision("door", judged.record.id))
    changed(lambda deployment: deployment.with_(decided=None))
    assert [event.stage for event in plant.turn()] == ["promotion"]


def test_the_loop_turns_from_drift_to_a_better_model(promoted: Plant) -> None:
    plant = promoted
    plant.send(40, seed=1, shifted=False)
    (calm,) = plant.turn()
    assert isinstance(calm.record, DriftReport)
    assert not calm.record.alarm
    assert calm.text.startswith("no drift in the last 40 requests")

    truth = plant.send(60, seed=2, shifted=True)
    alarm, waits = plant.turn()
    assert isinstance(alarm.record, DriftReport)
    assert alarm.record.alarm
    assert isinstance(waits.record, Decision)
    assert (waits.stage, waits.record.accepted) == ("retraining", False)
    assert "30 more of 30 are missing" in waits.record.why
    assert plant.turn() == [], "the same reason is recorded once"

    plant.label(truth)
    events = plant.settle()
    assert [event.stage for event in events] == ["retraining", "search", "promotion"]
    asked, searched, took = (event.record for event in events)
    assert isinstance(asked, Decision)
    assert (asked.accepted, asked.subject, asked.numbers["trigger"]) == (True, plant.ran[0], "drift")
    assert isinstance(searched, SearchState)
    assert isinstance(took, Decision)
    champion = deployments.get(plant.store, "door")
    assert (champion.model, champion.previous) == (searched.model, (plant.history.models[0].id,))
    assert took.subject == searched.model
    assert (len(plant.ran), plant.connected) == (1, 1)
    assert catalog.latest(plant.store, "colours").n == plant.history.versions[0].n + 60

    before = plant.contents()
    assert plant.settle() == []
    assert plant.contents() == before


def test_a_pass_over_a_settled_store_writes_nothing(promoted: Plant) -> None:
    promoted.send(30, seed=1, shifted=True)
    promoted.settle()
    before = promoted.contents()
    promoted.clock_at += timedelta(days=1)
    assert promoted.turn() == []
    assert list(promoted.controller().step()) == []
    assert promoted.contents() == before
    assert promoted.connected == 0, "nothing needed Ray"


def test_every_model_is_judged_once(plant: Plant) -> None:
    (event,) = plant.turn()
    assert isinstance(event.record, Decision)
    assert event.record.accepted
    assert event.record.created_at - START < timedelta(seconds=1), "by the controller's clock"
    assert plant.turn() == []
    assert len(plant.decisions(DecisionKind.PROMOTE)) == 1


def test_each_window_is_examined_once(promoted: Plant) -> None:
    promoted.send(45, seed=1, shifted=False)
    assert [event.stage for event in promoted.turn()] == ["monitoring"]
    assert promoted.turn() == []
    promoted.send(30, seed=2, shifted=False)
    assert promoted.turn() == [], "half a window"
    promoted.send(10, seed=3, shifted=False)
    (event,) = promoted.turn()
    assert isinstance(event.record, DriftReport)
    assert (event.record.n, event.record.first_request) == (40, "r-2-000")


def test_a_reason_to_wait_is_recorded_once_even_while_a_cooldown_runs_down(promoted: Plant) -> None:
    plant = promoted
    truth = plant.send(60, seed=2, shifted=True)
    plant.label(truth)
    plant.settle()
    assert len(plant.ran) == 1
    began = requests.get(plant.store, plant.ran[0])[1].created_at
    plant.label(plant.send(40, seed=3, shifted=True))
    policy = POLICY.with_(volume_labels=40)
    deployments.decide(plant.store, "door", lambda d: d.with_(policy=policy), None)
    plant.clock_at = began
    for _ in range(3):
        plant.clock_at += timedelta(seconds=500)
        plant.turn()
    waited = [d for d in plant.decisions(DecisionKind.RETRAIN) if "cooldown" in d.why]
    assert len(waited) == 1


def test_where_nothing_stirs_it_is_written_down_once_and_nobody_is_told(promoted: Plant) -> None:
    promoted.send(40, seed=1, shifted=False)
    assert [event.stage for event in promoted.settle()] == ["monitoring"]
    controller = promoted.controller()
    for _ in range(5):
        promoted.clock_at += timedelta(minutes=2)
        assert list(controller.step_without_search()) == []
    (decision,) = promoted.decisions(DecisionKind.RETRAIN)
    assert (decision.accepted, decision.numbers["reasons"]) == (False, ["nothing asks for a search"])
    state = evaluation.read(promoted.store, "door").state
    assert state.latest is not None and "no drift" in state.latest.why
    assert state.evaluations >= 6 and state.evaluated_at is not None
    assert promoted.clock_at - state.evaluated_at < timedelta(seconds=1)


def test_a_person_has_it_searched_again_once(promoted: Plant) -> None:
    plant = promoted
    evaluation.ask(plant.store, "door", person="ann", reason="new lamps", at=plant.clock())
    assert [event.stage for event in plant.settle()][:2] == ["retraining", "search"]
    assert len(plant.ran) == 1
    assert requests.get(plant.store, plant.ran[0])[0].reason == (
        "search again, because of a person's word: ann asked for it: new lamps"
    )
    plant.settle()
    assert len(plant.ran) == 1


def test_each_slot_is_answered_once_whoever_controls_and_missed_ones_together(promoted: Plant) -> None:
    plant = promoted
    policy = POLICY.with_(schedule="0 3 * * *", schedule_labels=0, cooldown_s=0)
    deployments.decide(plant.store, "door", lambda d: d.with_(policy=policy), None)
    asked = []
    for hours in (1, 1, 0, 1, 23, 1, 0, 24, 72, 1):
        plant.clock_at += timedelta(hours=hours)
        for controller in (plant.controller(), plant.controller()):  # each knows nothing of the other
            asked += [event.record for event in controller.step_without_search()]
        for request, _ in all_searches(plant.store):
            if request.parent_model:
                requests.set_state(plant.store, request.id, status=SearchStatus.STOPPED)
    slots = [decision.numbers["slot"] for decision in asked if isinstance(decision, Decision)]
    assert [slot[5:16] for slot in slots] == ["06-01T03:00", "06-02T03:00", "06-03T03:00", "06-06T03:00"]
    assert len([pair for pair in all_searches(plant.store) if pair[0].parent_model]) == 4


def test_a_controller_killed_before_its_request_asks_for_the_search_after_all(
    promoted: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = promoted
    plant.label(plant.send(60, seed=2, shifted=True))
    submit = requests.submit

    def killed(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(requests, "submit", killed)
    with pytest.raises(KeyboardInterrupt):
        plant.turn()
    assert catalog.version_numbers(plant.store, "colours") == [1, 2]
    monkeypatch.setattr(requests, "submit", submit)
    plant.turn()
    decisions = plant.decisions(DecisionKind.RETRAIN)
    (asked,) = [decision for decision in decisions if decision.accepted]
    assert requests.get(plant.store, asked.subject or "")[0].dataset_version == 2
    assert catalog.version_numbers(plant.store, "colours") == [1, 2]
    plant.settle()
    assert plant.ran == [asked.subject]


def test_captures_are_forgotten_as_the_policy_says_now_and_then(promoted: Plant) -> None:
    plant = promoted
    plant.label(plant.send(46, seed=1, shifted=False)[:1])
    deployments.set_capture_policy(plant.store, "door", CapturePolicy(keep_days=1.0))
    controller = plant.controller()
    events = list(controller.step_without_search())
    assert [event.stage for event in events] == ["monitoring", "retention"], "seen, then forgotten"
    assert events[-1].text.startswith("door forgot 45 requests")
    assert [each.request_id for each in captures.read(plant.store, "door").captures] == ["r-1-000"]
    plant.send(30, seed=2, shifted=False)
    assert list(controller.step_without_search()) == [], "it was looked at a moment ago"
    plant.clock_at += timedelta(minutes=11)
    (event,) = controller.step_without_search()
    assert event.text.startswith("door forgot 30 requests")
    assert plant.turn() == []


# ------------------------------------------------------------------------------------------------- leadership


def test_of_two_controllers_one_leads(promoted: Plant) -> None:
    promoted.send(40, seed=1, shifted=False)
    leading = promoted.controller().run()
    assert next(leading).stage == "monitoring"
    with pytest.raises(Conflict, match="another controller leads the store memory://"):
        next(promoted.controller().run(once=True))
    assert isinstance(leading, Iterator)
    leading.close()  # type: ignore[attr-defined]
    assert list(promoted.controller().run(once=True)) == [], "the lease was given back"


def test_a_controller_whose_lease_ended_stops_acting(promoted: Plant) -> None:
    promoted.send(40, seed=1, shifted=False)
    leading = promoted.controller().run()
    assert next(leading).stage == "monitoring"
    # It slept for longer than its lease, and another one took it.
    promoted.store.delete(keys.lease("controller"))
    assert lease.acquire(promoted.store, "controller", "somebody else", 600.0) is not None
    held = leading.gi_frame.f_locals["held"]  # type: ignore[attr-defined]
    assert not held.renew()
    with pytest.raises(Conflict, match="lease ended while it worked"):
        list(leading)


def test_a_store_that_is_away_for_longer_than_the_lease_is_waited_for(
    promoted: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, clock, away = promoted, FakeClock(), [False]

    def breakable(name: str) -> None:
        real = getattr(plant.store, name)

        def call(*args: Any, **options: Any) -> Any:
            if away[0]:
                raise StoreUnavailable("the disk is gone")
            return real(*args, **options)

        monkeypatch.setattr(plant.store, name, call)

    for name in ("get", "get_many", "list", "folders", "exists", "put_new", "put_if"):
        breakable(name)
    plant.send(40, seed=1, shifted=False)
    leading = plant.controller(lease_clock=clock).run(interval_s=0.01)
    assert next(leading).stage == "monitoring"
    held = leading.gi_frame.f_locals["held"]  # type: ignore[attr-defined]
    away[0] = True
    with pytest.raises(StoreUnavailable):
        held.renew()
    said = "the store is away, and is tried again: the disk is gone"
    assert next(event for event in leading if not event.text.startswith("door: ")).text == said
    clock.advance(600)
    away[0] = False
    plant.send(40, seed=2, shifted=False)
    assert next(leading).stage == "monitoring"
    assert lease.is_held(plant.store, "controller", clock)
    leading.close()  # type: ignore[attr-defined]
    away[0] = True
    with pytest.raises(StoreUnavailable):
        list(plant.controller().run(once=True))


def test_a_controller_that_is_told_to_stop_leaves_its_lease_to_others(promoted: Plant) -> None:
    asked = [False]
    stopping = promoted.controller(should_stop=lambda: asked[0])
    promoted.send(40, seed=1, shifted=False)
    events = stopping.run(interval_s=60.0)
    next(events)
    asked[0] = True
    assert list(events) == []
    assert list(promoted.controller().run(once=True)) == []


# --------------------------------------------------------------------------------------------------- failures


def break_reference(store: MemoryStore, model_id: str, history: History) -> str:
    """Damage what drift is measured against; the key."""
    version = next(model for model in history.models if model.id == model_id)
    key = keys.model_file(model_id, bundle.REFERENCE_FILE, version.files[bundle.REFERENCE_FILE])
    store.delete(key)
    store.put_new(key, b"damaged")
    return key


def test_a_failure_is_told_once_and_the_loop_comes_to_rest(promoted: Plant) -> None:
    plant = promoted
    key = break_reference(plant.store, plant.history.models[0].id, plant.history)
    plant.send(40, seed=1, shifted=False)
    controller = plant.controller()
    (event,) = list(controller.run(once=True))
    assert event.stage == "error"
    assert "reference.safetensors" in event.text
    assert event.text.startswith("door: ")
    assert list(controller.run(once=True)) == []
    assert list(controller.failures) == ["door: monitor"]

    plant.store.delete(key)
    plant.store.put_new(key, plant.history.store.get(key).data)
    assert [event.stage for event in controller.run(once=True)] == ["monitoring"], "it is tried again"
    assert controller.failures == {}


def test_one_deployments_failure_does_not_keep_another_from_its_turn(promoted: Plant) -> None:
    plant = promoted
    for name in ("aaa", "zzz"):
        deployments.create(plant.store, name, "colours", plant.history.space.to_json(), POLICY)
        deployments.set_champion(plant.store, name, plant.history.models[0].id, expected=None)
    deployments.create(plant.store, "mmm", "nowhere", plant.history.space.to_json(), POLICY)
    plant.store.put_if(keys.deployment("aaa"), b"no record", plant.store.get(keys.deployment("aaa")).etag)
    plant.send(40, seed=1, shifted=False)
    plant.send(40, seed=2, shifted=False, deployment="zzz")
    events = plant.turn()
    errors = {event.text.partition(":")[0] for event in events if event.stage == "error"}
    reports = [event.record for event in events if isinstance(event.record, DriftReport)]
    assert errors == {"aaa"}
    assert {report.deployment for report in reports} == {"door", "zzz"}


def test_a_fault_that_nobody_thought_of_stops_neither_the_loop_nor_other_deployments(
    promoted: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = promoted
    deployments.create(plant.store, "aaa", "colours", plant.history.space.to_json(), POLICY)
    deployments.set_champion(plant.store, "aaa", plant.history.models[0].id, expected=None)
    for seed, name in ((1, "aaa"), (2, "door")):
        plant.send(40, seed=seed, shifted=False, deployment=name)
    watch = controller_module.watch

    def fails_once(store: Store, deployment: Deployment, clock: Any) -> DriftReport | None:
        if deployment.name == "aaa":
            raise ZeroDivisionError("by nothing")
        return watch(store, deployment, clock)

    monkeypatch.setattr(controller_module, "watch", fails_once)
    controller = plant.controller()
    events = list(controller.run(once=True))
    assert [event.text for event in events if event.stage == "error"] == [
        "aaa: unexpected ZeroDivisionError: by nothing"
    ]
    assert [event.record.deployment for event in events if isinstance(event.record, DriftReport)] == ["door"]
    assert list(controller.failures) == ["aaa: monitor"]


def test_a_search_that_fails_is_told_and_not_asked_for_again(
    promoted: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = promoted

    def fail(store: Store, search: str, **options: Any) -> SearchState:
        plant.ran.append(search)
        requests.set_state(store, search, status=SearchStatus.FAILED, error="no trial gave a model")
        raise AutoVisionError("no trial gave a model")

    monkeypatch.setattr(controller_module, "run_search", fail)
    plant.label(plant.send(60, seed=2, shifted=True))
    events = plant.settle()
    stages = [event.stage for event in events]
    assert stages.count("error") == 1
    assert len(plant.ran) == 1
    assert plant.settle() == []
    assert len(plant.ran) == 1


def test_a_failed_search_is_tried_again_after_a_pause_that_doubles(
    promoted: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = promoted

    def fail(store: Store, search: str, **options: Any) -> SearchState:
        plant.ran.append(search)
        requests.set_state(store, search, status=SearchStatus.FAILED, error="no trial gave a model")
        records.update(
            store, keys.search_state(search), SearchState, lambda s: s.with_(updated_at=plant.clock_at)
        )
        raise AutoVisionError("no trial gave a model")

    monkeypatch.setattr(controller_module, "run_search", fail)
    plant.label(plant.send(60, seed=2, shifted=True))
    for hours, ran in [(0, 1), (0.5, 1), (0.6, 2), (1.5, 2), (0.6, 3), (3.5, 3), (0.6, 4)]:
        plant.clock_at += timedelta(hours=hours)
        plant.settle()
        assert len(plant.ran) == len(set(plant.ran)) == ran
    assert catalog.version_numbers(plant.store, "colours") == [1, 2], "of the same data"


def test_a_search_that_somebody_else_runs_is_left_to_them(
    promoted: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(store: Store, search: str, **options: Any) -> SearchState:
        raise Conflict("is being run by another process")

    monkeypatch.setattr(controller_module, "run_search", busy)
    request = promoted.history.searches[0].with_(nonce="again")
    requests.submit(promoted.store, request)
    controller = promoted.controller()
    assert list(controller.step()) == []
    assert controller.failures == {f"{request.id}: search": "is being run by another process"}


def test_who_is_next_is_asked_anew_after_each_search(
    promoted: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, urgent = (
        promoted.history.searches[0].with_(nonce=nonce, deployment=None, priority=priority)
        for nonce, priority in (("a", 0), ("b", 0), ("c", 1))
    )
    for request in (first, second):
        requests.submit(promoted.store, request)

    def run(store: Store, search: str, **options: Any) -> SearchState:
        promoted.ran.append(search)
        requests.submit(store, urgent)
        return requests.set_state(store, search, status=SearchStatus.FINISHED, model="m", best_value=0.5)

    monkeypatch.setattr(controller_module, "run_search", run)
    assert [event.stage for event in promoted.controller().step()] == ["search"] * 3
    assert promoted.ran == [first.id, urgent.id, second.id]


def test_a_search_whose_controller_is_stopped_waits_for_the_next_one(
    promoted: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [False]

    def stopped(store: Store, search: str, **options: Any) -> SearchState:
        requests.set_state(store, search, status=SearchStatus.STOPPED)
        asked[0] = True
        assert options["should_stop"]()
        raise Interrupted("stopped after 3 trials")

    monkeypatch.setattr(controller_module, "run_search", stopped)
    request = promoted.history.searches[0].with_(nonce="again")
    requests.submit(promoted.store, request)
    with pytest.raises(Interrupted):
        list(promoted.controller(should_stop=lambda: asked[0]).step())
    assert requests.get(promoted.store, request.id)[1].status is SearchStatus.QUEUED


def test_a_search_that_a_person_stops_while_it_is_taken_up_stays_so_and_the_loop_goes_on(
    promoted: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller_module, "run_search", real_run_search)
    request = promoted.history.searches[0].with_(nonce="again", deployment=None)
    requests.submit(promoted.store, request)
    stop = partial(requests.request_stop, promoted.store, request.id)
    (event,) = promoted.controller(connect=stop).step()
    assert (event.stage, "was stopped before its turn" in event.text) == ("search", True)
    state = requests.get(promoted.store, request.id)[1]
    assert (state.status, state.attempt) == (SearchStatus.STOPPED, 0)
    assert list(promoted.controller().step()) == []


def test_searches_that_are_over_or_stopped_by_a_person_are_not_run(promoted: Plant) -> None:
    request = promoted.history.searches[0].with_(nonce="again")
    requests.submit(promoted.store, request)
    requests.request_stop(promoted.store, request.id)
    promoted.settle()
    assert promoted.ran == []
    assert {state.status for _, state in all_searches(promoted.store)} == {
        SearchStatus.FINISHED,
        SearchStatus.STOPPED,
    }


def test_what_the_controller_looks_at_is_the_latest_report(promoted: Plant) -> None:
    promoted.send(40, seed=1, shifted=False)
    promoted.turn()
    deployment = deployments.get(promoted.store, "door")
    report = retraining.latest_report(promoted.store, deployment)
    assert report is not None
    assert report.created_at - START < timedelta(seconds=1)


def test_a_model_that_cannot_be_compared_does_not_keep_later_ones_from_their_turn(tiny: History) -> None:
    store = tiny.copy()
    deployments.create(store, "door", "colours", tiny.space.to_json(), POLICY)
    store.delete(keys.model(tiny.models[0].id))
    controller = Controller(store)
    fault, promoted = list(controller.step_without_search())
    assert fault.stage == "error" and tiny.models[0].id in fault.text
    assert promoted.stage == "promotion"
    assert deployments.get(store, "door").model == tiny.models[1].id
    assert list(controller.failures) == [f"door: promote {tiny.models[0].id}"], (
        "it is tried again, and told once"
    )
    assert list(controller.step_without_search()) == []
