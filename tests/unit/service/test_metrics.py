"""What Prometheus is told of the API service, and what it is not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from autovision.errors import StoreUnavailable
from autovision.records.searches import SearchStatus
from autovision.records.tokens import Scope
from autovision.search import requests
from autovision.service import metrics
from autovision.service.metrics import ServiceMetrics, submitter_of
from autovision.store import MemoryStore
from tests.unit.service.conftest import World, check_problem


def samples(told: str | bytes) -> dict[tuple[str, ...], float]:
    """Name and values of labels -> value."""
    text = told if isinstance(told, str) else told.decode()
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_are_counted_by_route_and_status_and_nothing_of_a_caller_is_told(world: World) -> None:
    admin = world.token(Scope.ADMIN, name="prometheus")
    ann = world.token(Scope.READ, name="ann")
    for path in ("secret-of-ann", "another-secret"):
        check_problem(world.http.get(f"/api/v1/searches/{path}", headers=ann), 404, "not-found")
    world.http.get("/api/v1/secret-path?token=secret-of-ann", headers=ann)
    world.http.request("SECRETVERB", "/api/v1/searches", headers=ann)
    check_problem(world.http.get("/api/v1/metrics", headers=ann), 403, "forbidden")
    check_problem(world.http.get("/api/v1/metrics"), 401, "unauthorized")
    answer = world.http.get("/api/v1/metrics", headers=admin)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    said = answer.text
    told = samples(said)
    assert told["autovision_api_requests_total", "GET", "/searches/{search}", "404"] == 2
    assert told["autovision_api_requests_total", "GET", "other", "404"] == 1
    assert told["autovision_api_requests_total", "GET", "/metrics", "403"] == 1
    assert told["autovision_api_requests_total", "GET", "/metrics", "401"] == 1
    assert told["autovision_api_latency_seconds_count", "GET", "/searches/{search}"] == 2
    assert told["autovision_api_latency_seconds_bucket", "+Inf", "GET", "/searches/{search}"] == 2
    hidden = [*world.secrets, "ann", "prometheus", "secret", "SECRET"]
    assert not [word for word in hidden if word in said]


def test_a_body_that_is_refused_before_any_route_is_counted_too(open_world: World) -> None:
    open_world.http.post("/api/v1/searches", content=b"no json")
    told = samples(open_world.http.get("/api/v1/metrics").text)
    assert told["autovision_api_requests_total", "POST", "other", "415"] == 1


def test_the_queue_is_told_by_status_and_kind_of_submitter(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "KEEP_S", 0.0)
    admin, ann = world.token(Scope.ADMIN, name="prometheus"), world.token(Scope.SUBMIT, name="ann")
    ids = []
    for seed in range(3):
        made = world.submit(ann, seed=seed, budget_s=60)
        assert made.status_code in (200, 201, 202), made.text
        ids.append(made.json()["search"])
    own = requests.get(world.store, ids[0])[0].with_(nonce="on the store itself")
    requests.submit(world.store, own)
    requests.set_state(world.store, ids[0], status=SearchStatus.RUNNING)
    requests.set_state(world.store, ids[1], status=SearchStatus.FINISHED)
    told = samples(world.http.get("/api/v1/metrics", headers=admin).text)
    queue = {key[1:]: value for key, value in told.items() if key[0] == "autovision_api_queue" and value}
    assert queue == {("running", "token"): 1, ("queued", "token"): 1, ("queued", "store"): 1}
    assert told["autovision_api_store_reachable",] == 1


def test_who_is_anonymous_is_a_kind_of_its_own(open_world: World) -> None:
    search = open_world.submit(budget_s=60).json()["search"]
    assert submitter_of(requests.get(open_world.store, search)[1]) == "anonymous"


def test_without_the_store_the_rest_is_told() -> None:
    class Away(MemoryStore):
        def folders(self, prefix: str):  # type: ignore[no-untyped-def]
            raise StoreUnavailable

    told = samples(ServiceMetrics(Away(), lambda: 3).render())
    assert told == {("autovision_api_streams",): 3.0, ("autovision_api_store_reachable",): 0.0}


def test_the_store_is_read_now_and_then() -> None:
    looks: list[datetime] = []

    class Counted(MemoryStore):
        def folders(self, prefix: str):  # type: ignore[no-untyped-def]
            looks.append(datetime.now(UTC))
            return super().folders(prefix)

    told = ServiceMetrics(Counted(), lambda: 0)
    told.render()
    told.render()
    assert len(looks) == 1
