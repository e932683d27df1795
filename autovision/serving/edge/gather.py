"""The metrics of all replicas in one page of Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


def merged(
    texts: Sequence[str], replicas: Mapping[str, int], waiting: int, errors: Mapping[str, int]
) -> bytes:
    """What replicas tell, each family once, and how many of them there are.

    Args:
        texts: of each replica; their series differ in the label `replica`.
        replicas: deployment -> how many replicas answer.
        waiting: requests that wait for a replica.
        errors: kind of problem -> requests that the edge itself answered with it.
    """
    registry = CollectorRegistry()
    registry.register(_Gathered(texts, replicas, waiting, errors))
    return generate_latest(registry)


class _Gathered(Collector):
    def __init__(
        self, texts: Sequence[str], replicas: Mapping[str, int], waiting: int, errors: Mapping[str, int]
    ) -> None:
        self._texts = texts
        self._replicas = replicas
        self._waiting = waiting
        self._errors = errors

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for text in self._texts:
            for family in text_string_to_metric_families(text):
                into = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                into.samples.extend(family.samples)
        yield from families.values()
        count = GaugeMetricFamily(
            "autovision_replicas", "Replicas that answer, by deployment.", labels=("deployment",)
        )
        for name, number in self._replicas.items():
            count.add_metric((name,), number)
        yield count
        yield GaugeMetricFamily(
            "autovision_waiting_for_replica", "Requests that wait for a replica.", self._waiting
        )
        refused = CounterMetricFamily(
            "autovision_edge_errors",
            "Requests that got no further than the edge, by kind of problem.",
            labels=("kind",),
        )
        for kind, number in sorted(self._errors.items()):
            refused.add_metric((kind,), number)
        yield refused
