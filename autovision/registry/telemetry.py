"""What Prometheus is told of searches, promotions and drift: read from the store whenever somebody asks.

The controller serves it (`autovision controller run --metrics-port`), as it is what stays while searches come and go.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from threading import Lock

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from autovision.errors import AutoVisionError
from autovision.records.base import now
from autovision.records.deployments import Deployment, DriftReport
from autovision.records.searches import LiveSearch, SearchState, SearchStatus
from autovision.registry import deployments
from autovision.registry.searches import all_searches
from autovision.store import keys, records
from autovision.store.protocol import Store

KEEP_S = 15.0
"""so long what was read is told again: whoever asks more often does not cost the store more"""


class Telemetry(Collector):
    """Metrics of a store, and of the controller that works on it.

    Args:
        failures: what the controller could not do and tries again, by `subject: stage`.
        seen_at: when the controller showed last that it lives, in seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        failures: Mapping[str, str],
        seen_at: Callable[[], float],
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._store, self._failures, self._seen_at, self._clock = store, failures, seen_at, clock
        self._read_at = -KEEP_S
        self._read: list[Metric] = []
        self._lock = Lock()

    def describe(self) -> Iterable[Metric]:
        """Nothing is promised: what there is follows from the store, which is not read for this."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Raises nothing: without the store, only what the controller knows by itself is told."""
        yield _gauge(
            "controller_seen_timestamp_seconds", "When the controller was last seen at work.", self._seen_at()
        )
        yield _gauge(
            "controller_failures", "Things that could not be done and are tried again.", len(self._failures)
        )
        with self._lock:
            if time.monotonic() - self._read_at >= KEEP_S:
                try:
                    self._read = list(self._of_the_store())
                    self._read_at = time.monotonic()
                except AutoVisionError:
                    self._read, self._read_at = [], -KEEP_S
            found = self._read
        yield _gauge("store_reachable", "1 when the store could be read.", int(bool(found)))
        yield from found

    def _of_the_store(self) -> Iterator[Metric]:
        searches = [state for _, state in all_searches(self._store)]
        live = records.read_all(self._store, keys.LIVE, LiveSearch)
        yield from _of_searches(searches, live, self._clock())
        served = [deployments.get(self._store, name) for name in deployments.names(self._store)]
        model = _family("deployment_model", "1: the champion of a deployment.", "deployment", "model")
        for each in served:
            if each.model is not None:
                model.add_metric((each.name, each.model), 1)
        yield model
        yield self._of_decisions(served)
        yield from self._of_drift(served)

    def _of_decisions(self, served: Iterable[Deployment]) -> Metric:
        family = _family(
            "decisions",
            "Decisions that were taken, by whether they led to an act.",
            "deployment",
            "kind",
            "accepted",
        )
        for each in served:
            said = deployments.decisions(self._store, each.name)
            counts = Counter((decision.kind.value, decision.accepted) for decision in said)
            for (kind, accepted), count in sorted(counts.items()):
                family.add_metric((each.name, kind, str(accepted).lower()), count)
        return family

    def _of_drift(self, served: Iterable[Deployment]) -> Iterator[Metric]:
        score = _family("drift_score", "Of the window that was examined last.", "deployment")
        threshold = _family("drift_threshold", "At or above it there is an alarm.", "deployment")
        alarm = _family("drift_alarm", "1: the window that was examined last has drifted.", "deployment")
        at = _family("drift_examined_timestamp_seconds", "When a window was examined last.", "deployment")
        for each in served:
            reports = records.read_all(self._store, keys.reports(each.name), DriftReport)
            last = next((report for report in reversed(reports) if report.model == each.model), None)
            if last is None:
                continue
            score.add_metric((each.name,), last.score)
            threshold.add_metric((each.name,), last.threshold)
            alarm.add_metric((each.name,), int(last.alarm))
            at.add_metric((each.name,), last.created_at.timestamp())
        yield from (score, threshold, alarm, at)


def _of_searches(states: list[SearchState], live: list[LiveSearch], at: datetime) -> Iterator[Metric]:
    counts = Counter(state.status for state in states)
    family = _family("searches", "Searches, by how they stand.", "status")
    for status in SearchStatus:
        family.add_metric((status.value,), counts[status])
    yield family
    running = {state.search for state in states if state.status is SearchStatus.RUNNING}
    trials = sum(each.running for each in live if each.search in running)
    yield _gauge("trials_running", "Trials that run now.", trials)
    yield _gauge(
        "trials", "Trials of all searches, as these last told.", sum(state.trials for state in states)
    )
    yield _gauge(
        "search_seconds", "Wall seconds that searches have used.", sum(state.spent_s for state in states)
    )
    waiting = [
        (at - state.updated_at).total_seconds() for state in states if state.status is SearchStatus.QUEUED
    ]
    yield _gauge(
        "search_waiting_seconds", "How long the oldest search of the queue waits.", max([0.0, *waiting])
    )
    cost = _family("search_cost", "What searches have cost, where prices were given.", "currency")
    for currency in sorted({state.currency for state in states if state.cost is not None}):
        spent = (state.cost for state in states if state.currency == currency)
        cost.add_metric((currency,), sum(each for each in spent if each is not None))
    yield cost


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"autovision_{name}", text, labels=labels)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"autovision_{name}", text, value)
