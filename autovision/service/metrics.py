"""What Prometheus is told of one API service: requests by route, and the queue as the store has it.

Labels name routes as they are documented, statuses and kinds of submitters: nothing that a caller can choose, so that
there are few series, and nobody's name or token is among them.
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from autovision.errors import AutoVisionError
from autovision.records.searches import SearchState, SearchStatus
from autovision.registry.searches import all_searches
from autovision.store.protocol import Store

LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
KEEP_S = 15.0
"""so long what was read of the store is told again: whoever asks more often does not cost the store more"""
METHODS: Final = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")
OTHER: Final = "other"
"""what is no documented route, or no method that there is"""
SUBMITTERS: Final = ("token", "anonymous", "store")
"""with a token, without one on a loopback, on the store itself: by its command line or by the controller"""
ANONYMOUS: Final = "anonymous"


def submitter_of(state: SearchState) -> str:
    """Of which kind whoever submitted a search is."""
    if state.submitted_by is None:
        return "store"
    return ANONYMOUS if state.submitted_by == ANONYMOUS else "token"


class ServiceMetrics:
    """The metrics of one process, in a registry of its own. Thread-safe.

    Args:
        streams: how many streams of events are open.
    """

    CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, store: Store, streams: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "autovision_api_requests",
            "Requests, by route and HTTP status.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._latency = Histogram(
            "autovision_api_latency_seconds",
            "From a request's coming in to the beginning of its answer.",
            ("method", "route"),
            buckets=LATENCY_S,
            registry=self._registry,
        )
        self._registry.register(_State(store, streams))

    def observe(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """A request was answered.

        Args:
            route: its documented path, without `/api/v1`, such as `/searches/{search}`; None: it is none of them.
        """
        # Bytes of a stranger's choice are no label.
        method, route = method if method in METHODS else OTHER, route or OTHER
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(method, route).observe(seconds)

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)


class _State(Collector):
    """What is read when somebody asks: open streams, and the queue."""

    def __init__(self, store: Store, streams: Callable[[], int]) -> None:
        self._store, self._streams = store, streams
        self._lock = Lock()
        self._read_at = -KEEP_S
        self._queue: Metric | None = None

    def describe(self) -> list[Metric]:
        """Nothing is promised: the store is not read for this."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Raises nothing: without the store, only what the service knows by itself is told."""
        yield _gauge("streams", "Streams of events that are open.", self._streams())
        with self._lock:
            if time.monotonic() - self._read_at >= KEEP_S:
                try:
                    self._queue = _queue([state for _, state in all_searches(self._store)])
                    self._read_at = time.monotonic()
                except AutoVisionError:
                    self._queue, self._read_at = None, -KEEP_S
            queue = self._queue
        yield _gauge("store_reachable", "1 when the store could be read.", int(queue is not None))
        if queue is not None:
            yield queue


def _queue(states: list[SearchState]) -> Metric:
    counts = Counts((state.status, submitter_of(state)) for state in states)
    family = GaugeMetricFamily(
        "autovision_api_queue",
        "Searches that wait or run, by the kind of who submitted them.",
        labels=("status", "submitter"),
    )
    for status in (SearchStatus.QUEUED, SearchStatus.RUNNING):
        for submitter in SUBMITTERS:
            family.add_metric((status.value, submitter), counts[status, submitter])
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"autovision_api_{name}", text, value)
