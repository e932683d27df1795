from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from autovision.errors import StoreUnavailable
from autovision.records.deployments import Decision, DecisionKind, DriftReport
from autovision.records.searches import LiveSearch, SearchState, SearchStatus
from autovision.registry import deployments
from autovision.registry.telemetry import KEEP_S, Telemetry
from autovision.search import requests
from autovision.store import MemoryStore, keys, records

if TYPE_CHECKING:
    from tests.unit.conftest import History

Told = dict[str, dict[tuple[str, ...], float]]


def told(telemetry: Telemetry) -> Told:
    """Series by name and labels' values, as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(telemetry)
    found: Told = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        series = {tuple(sample.labels.values()): sample.value for sample in family.samples}
        found[family.name.removeprefix("autovision_")] = series
    return found


def later(hours: float) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


@pytest.fixture
def store(tiny: History) -> Iterator[MemoryStore]:
    yield tiny.copy()


def report(model: str, name: str, *, alarm: bool, at: datetime) -> DriftReport:
    return DriftReport(
        id=name,
        deployment="door",
        model=model,
        n=100,
        reference_n=200,
        first_request="a",
        last_request="b",
        window_start=at,
        window_end=at,
        score=0.5 if alarm else 0.01,
        threshold=0.02,
        p_value=0.0002 if alarm else 0.4,
        alpha=0.001,
        alarm=alarm,
        created_at=at,
    )


def test_searches_are_counted_by_how_they_stand(store: MemoryStore, tiny: History) -> None:
    first, second = (search.id for search in tiny.searches)
    requests.set_state(store, second, status=SearchStatus.RUNNING, cost=1.5, currency="EUR")
    for search, running in ((first, 7), (second, 3)):
        live = LiveSearch(search=search, cluster="here", submitted_at=later(0), running=running)
        records.create(store, keys.live_search(search), live)
    seen = told(Telemetry(store, {}, lambda: 0.0))
    assert seen["searches"][("running",)] == seen["searches"][("finished",)] == 1
    assert seen["searches"][("failed",)] == 0
    # What a search that has ended left behind does not run.
    assert seen["trials_running"] == {(): 3}
    assert seen["trials"] == {(): sum(len(requests.trials(store, each)) for each in (first, second))}
    assert seen["search_cost"] == {("EUR",): 1.5}
    assert seen["search_waiting_seconds"] == {(): 0}


def test_the_oldest_of_the_queue_is_told(store: MemoryStore, tiny: History) -> None:
    requests.set_state(store, tiny.searches[0].id, status=SearchStatus.QUEUED)
    at = records.read(store, keys.search_state(tiny.searches[0].id), SearchState).updated_at
    telemetry = Telemetry(store, {}, lambda: 0.0, clock=lambda: at + timedelta(hours=2))
    assert told(telemetry)["search_waiting_seconds"] == {(): 7200}


def test_drift_and_decisions_are_those_of_the_champion(store: MemoryStore, tiny: History) -> None:
    deployments.create(store, "door", "colours", {})
    old, new = (model.id for model in tiny.models)
    deployments.set_champion(store, "door", new, expected=None)
    for number, (model, alarm) in enumerate(((new, True), (new, False), (old, True))):
        each = report(model, f"2026010{number}T000000.000000-abcdef", alarm=alarm, at=later(number))
        records.create(store, keys.report("door", each.id), each)
    for number, accepted in enumerate((True, False, False)):
        at = later(number)
        decision = Decision(
            id=keys.timestamped_id(at),
            kind=DecisionKind.RETRAIN,
            deployment="door",
            accepted=accepted,
            what="w",
            why="y",
            created_at=at,
        )
        deployments.record_decision(store, decision)
    seen = told(Telemetry(store, {}, lambda: 0.0))
    assert seen["deployment_model"] == {("door", new): 1}
    assert (seen["drift_alarm"], seen["drift_score"]) == ({("door",): 0}, {("door",): 0.01})
    assert seen["drift_threshold"] == {("door",): 0.02}
    assert seen["drift_examined_timestamp_seconds"][("door",)] > 0
    # Labels come in the order of their names: accepted, deployment, kind.
    assert seen["decisions"] == {("true", "door", "retrain"): 1, ("false", "door", "retrain"): 2}


class Flaky(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.away, self.lists = False, 0

    def list(self, prefix: str = "") -> Iterator[str]:
        self.lists += 1
        if self.away:
            raise StoreUnavailable("the store is away")
        return super().list(prefix)


def test_without_the_store_the_controller_is_told_of_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("autovision.registry.telemetry.time.monotonic", lambda: clock[0])
    store, failures = Flaky(), {"door: monitor": "no"}
    telemetry = Telemetry(store, failures, lambda: 77.0)
    assert told(telemetry)["store_reachable"] == {(): 1}
    asked = store.lists
    told(telemetry)
    assert store.lists == asked  # told again what was read a moment ago
    store.away = True
    clock[0] += KEEP_S
    seen = told(telemetry)
    assert seen == {
        "controller_seen_timestamp_seconds": {(): 77.0},
        "controller_failures": {(): 1},
        "store_reachable": {(): 0},
    }
    store.away = False
    assert told(telemetry)["store_reachable"] == {(): 1}
