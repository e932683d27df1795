"""What Prometheus is told of one replica: what was answered, by arm and model version, and how the replica is.

The path of requests pays for a few additions. What the engine counts anyway (queue, captures, swaps, errors) is
read when somebody asks. Every series has the label `replica`: whoever asks a server of several replicas gets one of
them, and counts of two must not be taken for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from autovision.serving.predicting import Prediction
from autovision.serving.schema import ServerInfo

STABLE: Final = "stable"
"""the arm of the deployment's champion"""
CANARY: Final = "canary"
"""the arm of a challenger that answers callers"""
SHADOW: Final = "shadow"
"""the arm of a challenger whose answers are compared, and given to nobody"""
ANSWERED: Final = "ok"
"""the kind of an outcome that is an answer; any other is the kind of a problem"""

MAX_SERIES = 24
"""pairs of arm and model version that are kept; then the one that came first is forgotten"""
LATENCY_S = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
BATCH = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def confidence_of(prediction: Prediction) -> float:
    """How sure an answer is: the largest probability; of any number of classes, that of the least sure class."""
    probabilities = prediction.probabilities.values()
    if isinstance(prediction.label, str):
        return max(probabilities)
    return min(max(p, 1 - p) for p in probabilities)


class _Series(NamedTuple):
    """The parts of one arm and model version, found once."""

    latency: Histogram
    confidence: Histogram
    batch: Histogram


class Metrics:
    """The metrics of one engine, in a registry of its own.

    Args:
        state: what the engine counts by itself.
    """

    CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, replica: str, state: Callable[[], ServerInfo]) -> None:
        self._replica = replica
        self._registry = CollectorRegistry()
        arm = ("replica", "arm", "model")
        self._requests = Counter(
            "autovision_requests",
            "Images that were asked about, by outcome: ok, or the kind of problem.",
            (*arm, "kind"),
            registry=self._registry,
        )
        self._latency = Histogram(
            "autovision_latency_seconds",
            "From a request's coming in to its answer.",
            arm,
            buckets=LATENCY_S,
            registry=self._registry,
        )
        self._confidence = Histogram(
            "autovision_confidence",
            "The probability of the answer.",
            arm,
            buckets=CONFIDENCE,
            registry=self._registry,
        )
        self._batch = Histogram(
            "autovision_batch_size",
            "Images that were predicted together.",
            arm,
            buckets=BATCH,
            registry=self._registry,
        )
        self._series: dict[tuple[str, str], _Series] = {}
        self._outcomes: dict[tuple[str, str, str], Counter] = {}
        self._lock = Lock()
        self._registry.register(_State(replica, state))

    def observe(
        self, *, arm: str, model: str, latency_s: float, kind: str = ANSWERED, confidence: float | None = None
    ) -> None:
        """One image was answered, or could not be. Thread-safe.

        Args:
            kind: `ok`, or the kind of problem; of these there are few, as code decides them and no input.
            confidence: None: there is no answer.
        """
        series = self._series.get((arm, model)) or self._new_series(arm, model)
        outcome = self._outcomes.get((arm, model, kind))
        if outcome is None:
            outcome = self._requests.labels(self._replica, arm, model, kind)
            self._outcomes[arm, model, kind] = outcome
        outcome.inc()
        if kind == ANSWERED:
            # Refusals are quick: they would make a slow server look fast.
            series.latency.observe(latency_s)
        if confidence is not None:
            series.confidence.observe(confidence)

    def observe_batch(self, arm: str, model: str, size: int) -> None:
        """So many images were predicted together. Thread-safe."""
        series = self._series.get((arm, model)) or self._new_series(arm, model)
        series.batch.observe(size)

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def _new_series(self, arm: str, model: str) -> _Series:
        with self._lock:
            if len(self._series) >= MAX_SERIES:
                self._forget(*next(iter(self._series)))
            labels = (self._replica, arm, model)
            series = _Series(
                self._latency.labels(*labels), self._confidence.labels(*labels), self._batch.labels(*labels)
            )
            self._series[arm, model] = series
            return series

    def _forget(self, arm: str, model: str) -> None:
        del self._series[arm, model]
        self._latency.remove(self._replica, arm, model)
        self._confidence.remove(self._replica, arm, model)
        self._batch.remove(self._replica, arm, model)
        for key in [key for key in self._outcomes if key[:2] == (arm, model)]:
            del self._outcomes[key]
            self._requests.remove(self._replica, *key)


class _State(Collector):
    """What the engine counts by itself, read when it is asked for."""

    def __init__(self, replica: str, state: Callable[[], ServerInfo]) -> None:
        self._replica = replica
        self._state = state

    def collect(self) -> Iterator[Metric]:
        info = self._state()
        yield self._queues(info)
        yield self._gauge("ready", "1 when images can be answered.", int(info.model is not None))
        yield self._counter("model_swaps", "How often a model replaced another.", info.swaps)
        errors = CounterMetricFamily(
            "autovision_errors", "Requests that were refused or failed, by kind.", labels=("replica", "kind")
        )
        for kind, count in sorted(info.errors.items()):
            errors.add_metric((self._replica, kind), count)
        yield errors
        if (captures := info.captures) is not None:
            yield self._counter("captures_stored", "Requests in the store.", captures.stored)
            yield self._counter("captures_dropped", "Requests that no room was left for.", captures.dropped)
            yield self._gauge("captures_pending", "Requests that are still to be stored.", captures.pending)

    def _queues(self, info: ServerInfo) -> Metric:
        """Of both arms, the challenger's while there is one."""
        family = GaugeMetricFamily(
            "autovision_queue_length", "Images that wait for the model.", labels=("replica", "arm", "model")
        )
        waiting = info.waiting
        if info.challenger is not None and info.stage is not None:
            waiting -= info.waiting_for_challenger
            labels = (self._replica, info.stage.value, info.challenger)
            family.add_metric(labels, info.waiting_for_challenger)
        family.add_metric((self._replica, STABLE, info.model or ""), waiting)
        return family

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"autovision_{name}", text, labels=("replica",))
        family.add_metric((self._replica,), value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"autovision_{name}", text, labels=("replica",))
        family.add_metric((self._replica,), value)
        return family
