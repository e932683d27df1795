"""What Prometheus reads is true, bounded, and its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from autovision.records.rollouts import RolloutPolicy
from autovision.serving.limits import Limits
from autovision.serving.metrics import MAX_SERIES, Metrics, confidence_of
from autovision.serving.schema import CaptureStatus, FollowStatus, ServerInfo
from tests.unit.serving.worlds import World, until

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def state(**changes: Any) -> ServerInfo:
    values: dict[str, Any] = {
        "model": "m1",
        "classes": ("a", "b"),
        "since": None,
        "deployment": None,
        "replica": "r",
        "started_at": "2026-03-01T12:00:00Z",
        "swaps": 2,
        "requests": 0,
        "answered": 0,
        "errors": {"queue-full": 3},
        "waiting": 5,
        "following": FollowStatus(),
        "captures": CaptureStatus(stored=7, dropped=1, pending=4),
    }
    return ServerInfo.model_validate(values | changes)


def samples(text: str) -> Samples:
    """Every sample by its name and its labels, without the replica, which all have."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("replica")
            found[sample.name, frozenset(labels.items())] = sample.value
    return found


def at(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_what_is_observed_is_told_by_arm_model_and_kind() -> None:
    metrics = Metrics("r", state)
    for latency_s, confidence in ((0.004, 0.55), (0.3, 0.97)):
        metrics.observe(arm="stable", model="m1", latency_s=latency_s, confidence=confidence)
    metrics.observe(arm="canary", model="m2", latency_s=0.001, confidence=1.0)
    metrics.observe(arm="stable", model="m1", kind="invalid-image", latency_s=0.001)
    metrics.observe_batch("stable", "m1", 3)
    metrics.observe_batch("canary", "m2", 1)
    found = samples(metrics.render().decode())
    stable = {"arm": "stable", "model": "m1"}
    assert found[at("autovision_requests_total", **stable, kind="ok")] == 2
    assert found[at("autovision_requests_total", **stable, kind="invalid-image")] == 1
    assert found[at("autovision_requests_total", arm="canary", model="m2", kind="ok")] == 1
    assert found[at("autovision_latency_seconds_count", **stable)] == 2, "refusals are not in it"
    assert found[at("autovision_latency_seconds_sum", **stable)] == pytest.approx(0.304)
    assert found[at("autovision_latency_seconds_bucket", **stable, le="0.005")] == 1
    assert found[at("autovision_confidence_bucket", **stable, le="0.6")] == 1
    assert found[at("autovision_confidence_count", **stable)] == 2
    assert found[at("autovision_batch_size_bucket", **stable, le="4.0")] == 1
    assert found[at("autovision_batch_size_bucket", **stable, le="2.0")] == 0
    assert found[at("autovision_batch_size_sum", arm="canary", model="m2")] == 1


def test_what_the_engine_counts_is_read_when_it_is_asked_for() -> None:
    found = samples(Metrics("r", state).render().decode())
    assert found[at("autovision_queue_length", arm="stable", model="m1")] == 5
    assert found[at("autovision_ready")] == 1
    assert found[at("autovision_model_swaps_total")] == 2
    assert found[at("autovision_errors_total", kind="queue-full")] == 3
    assert found[at("autovision_captures_stored_total")] == 7
    assert found[at("autovision_captures_dropped_total")] == 1
    assert found[at("autovision_captures_pending")] == 4
    found = samples(Metrics("r", lambda: state(model=None, captures=None)).render().decode())
    assert found[at("autovision_ready")] == 0
    assert at("autovision_captures_stored_total") not in found
    rollout = {"challenger": "m2", "stage": "canary", "share": 0.5, "waiting_for_challenger": 2}
    found = samples(Metrics("r", lambda: state(**rollout)).render().decode())
    assert found[at("autovision_queue_length", arm="stable", model="m1")] == 3
    assert found[at("autovision_queue_length", arm="canary", model="m2")] == 2


def test_models_that_come_and_go_do_not_pile_up() -> None:
    metrics = Metrics("r", state)
    for number in range(3 * MAX_SERIES):
        for kind in ("ok", "internal"):
            metrics.observe(arm="stable", model=f"m{number}", kind=kind, latency_s=0.01, confidence=0.9)
        metrics.observe_batch("stable", f"m{number}", 1)
    found = samples(metrics.render().decode())
    observed = [dict(labels) for name, labels in found if name != "autovision_queue_length"]
    models = {labels["model"] for labels in observed if "model" in labels}
    assert models == {f"m{number}" for number in range(2 * MAX_SERIES, 3 * MAX_SERIES)}
    metrics.observe(arm="stable", model="m0", latency_s=0.01)
    found = samples(metrics.render().decode())
    assert found[at("autovision_requests_total", arm="stable", model="m0", kind="ok")] == 1


def test_threads_may_observe_at_once() -> None:
    metrics = Metrics("r", state)

    def observe(number: int) -> None:
        for _ in range(100):
            metrics.observe(arm="stable", model=f"m{number % 3}", latency_s=0.01, confidence=0.5)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(observe, range(6)))
    found = samples(metrics.render().decode())
    for number in range(3):
        labels = {"arm": "stable", "model": f"m{number}"}
        assert found[at("autovision_requests_total", **labels, kind="ok")] == 200
        assert found[at("autovision_confidence_count", **labels)] == 200


def test_two_engines_share_nothing_and_leave_the_global_registry_alone() -> None:
    before = set(REGISTRY._names_to_collectors)
    first, second = Metrics("a", state), Metrics("b", state)
    first.observe(arm="stable", model="m1", latency_s=0.01)
    assert "autovision_requests_total{" not in second.render().decode()
    assert set(REGISTRY._names_to_collectors) == before


class Said:
    def __init__(self, label: str | tuple[str, ...], *values: float) -> None:
        self.label = label
        self.probabilities = dict(zip("abc", values, strict=False))
        self.embedding: Any = None


def test_how_sure_an_answer_is() -> None:
    assert confidence_of(Said("b", 0.2, 0.7, 0.1)) == 0.7
    assert confidence_of(Said(("a", "b"), 0.9, 0.6, 0.05)) == 0.6
    assert confidence_of(Said((), 0.1, 0.3)) == 0.7


def test_a_shadow_has_an_arm_of_its_own(http: httpx.Client, world: World, png: Any) -> None:
    world.begin("m2", RolloutPolicy(shadow_requests=5))
    for _ in range(3):
        assert http.post("/v1/predict", content=png(200)).json()["model"] == "m1"
    shadow = {"arm": "shadow", "model": "m2"}
    ok = at("autovision_requests_total", **shadow, kind="ok")
    until(lambda: samples(http.get("/metrics").text).get(ok) == 3)
    found = samples(http.get("/metrics").text)
    assert found[at("autovision_requests_total", arm="stable", model="m1", kind="ok")] == 3
    assert found[at("autovision_latency_seconds_count", **shadow)] == 3
    assert found[at("autovision_confidence_count", **shadow)] == 3
    assert found[at("autovision_batch_size_sum", **shadow)] == 3
    assert found[at("autovision_queue_length", **shadow)] == 0


def test_images_that_were_refused_or_not_answered_in_time_are_among_the_requests(
    make_predictor: Any, clock: Any, serve: Any, png: Any
) -> None:
    world = World(make_predictor, clock, max_waiting=2)
    url = serve(world, limits=Limits(deadline_s=0.2))
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as http:
        assert http.post("/v1/predict", content=png()).status_code == 503
        assert http.get("/v2/models/shades").status_code == 503, "which asks about no image"
        world.promote("m1")
        world.predictors["m1"].gate.clear()
        files = [("image", ("x.png", png()))] * 3
        assert http.post("/v1/predict", files=files).status_code == 503
        assert http.post("/v1/predict", content=png()).status_code == 504
        world.predictors["m1"].gate.set()
        found = samples(http.get("/metrics").text)
    stable = {"arm": "stable", "model": "m1"}
    assert found[at("autovision_requests_total", arm="stable", model="", kind="no-model")] == 1
    assert found[at("autovision_requests_total", **stable, kind="queue-full")] == 3
    assert found[at("autovision_requests_total", **stable, kind="deadline")] == 1


def test_the_route_tells_of_what_was_asked(http: httpx.Client, world: World, png: Any) -> None:
    files = [("image", ("x", data)) for data in (png(200), png(100), b"text")]
    http.post("/v1/predict", files=files)
    http.post("/v1/predict", content=png(200))
    http.post("/v1/predict", content=b"")
    world.promote("m2")
    http.post("/v1/predict", content=png(200))
    assert world.engine.flush(5)
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(response.text)
    m1 = {"arm": "stable", "model": "m1"}
    assert found[at("autovision_requests_total", **m1, kind="ok")] == 3
    assert found[at("autovision_requests_total", **m1, kind="invalid-image")] == 1
    assert found[at("autovision_requests_total", arm="stable", model="m2", kind="ok")] == 1
    assert found[at("autovision_errors_total", kind="invalid-image")] == 1
    assert found[at("autovision_errors_total", kind="empty-body")] == 1
    assert found[at("autovision_latency_seconds_count", **m1)] == 3
    assert found[at("autovision_confidence_bucket", **m1, le="0.7")] == 1
    assert found[at("autovision_model_swaps_total")] == 1
    assert found[at("autovision_captures_stored_total")] == 4
    batches = [found[at("autovision_batch_size_sum", arm="stable", model=model)] for model in ("m1", "m2")]
    assert batches == [4, 1], "every image was in one batch"
