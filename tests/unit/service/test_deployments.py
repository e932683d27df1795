"""Promoting through the service: as the command does it, by whoever's token it is, and once with one key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from autovision.records.rollouts import RolloutPolicy
from autovision.records.tokens import Scope
from autovision.registry import deployments
from tests.unit.service.conftest import World, check_problem, made


@pytest.fixture
def models(tiny: Any) -> Iterator[tuple[World, str, str]]:
    """A service over a store with two models, the second of which is the better one; and their ids."""
    store = tiny.copy()
    service = made(store)
    with TestClient(service) as http:
        first, second = (each.id for each in tiny.models)
        yield World(store, service, http), first, second


def test_a_model_is_promoted_and_rolled_back_and_the_records_say_by_whom(models: Any) -> None:
    world, first, second = models
    ann, key = world.token(Scope.PROMOTE, Scope.READ), {"idempotency-key": "k-1"}
    url = "/api/v1/deployments/gate"
    for model in (first, second):
        decision = world.http.post(f"{url}/promote", json={"model": model}, headers=ann).json()
        assert decision["accepted"], decision
        assert decision["numbers"]["person"] == "ann"
    shown = world.http.get(url, headers=ann).json()
    assert (shown["model"], shown["previous"]) == (second, [first])
    back = world.http.post(f"{url}/rollback", headers=ann | key)
    assert back.json()["subject"] == first
    # The same again is not another step back; without the key it would be refused, for there is none.
    assert world.http.post(f"{url}/rollback", headers=ann | key).json() == back.json()
    check_problem(world.http.post(f"{url}/rollback", headers=ann), 422, "invalid")
    assert deployments.get(world.store, "gate").model == first
    told = world.http.get(f"{url}/decisions", params={"limit": 2}, headers=ann).json()
    rest = world.http.get(f"{url}/decisions", params={"cursor": told["next"]}, headers=ann).json()
    assert [each["kind"] for each in told["items"] + rest["items"]] == ["promote", "promote", "rollback"]
    assert [each["name"] for each in world.http.get("/api/v1/deployments", headers=ann).json()["items"]] == [
        "gate"
    ]


def test_what_waits_is_approved_or_rejected_by_a_person(models: Any) -> None:
    world, first, second = models
    ann = world.token(Scope.PROMOTE)
    url = "/api/v1/deployments/gate"
    assert world.http.post(f"{url}/promote", json={"model": first}, headers=ann).json()["accepted"]
    deployments.set_rollout_policy(world.store, "gate", RolloutPolicy(approval="both"))
    from autovision.promotion import rollout

    rollout.consider(world.store, "gate", second)
    rejected = world.http.post(f"{url}/reject", json={"model": second}, headers=ann).json()
    assert not rejected["accepted"] and "rejected by ann" in rejected["why"]
    check_problem(world.http.post(f"{url}/approve", json={"model": second}, headers=ann), 422, "invalid")
    rollout.consider(world.store, "gate", second)
    assert world.http.post(f"{url}/approve", json={"model": second}, headers=ann).json()["accepted"]
    assert deployments.get(world.store, "gate").model == second


def test_models_are_shown_with_where_they_came_from(models: Any) -> None:
    world, first, second = models
    ann = world.token(Scope.READ)
    listed = world.http.get("/api/v1/models", headers=ann).json()["items"]
    assert [each["id"] for each in listed] == [first, second]
    assert world.http.get(f"/api/v1/models/{first}", headers=ann).json() == listed[0]
    lineage = world.http.get(f"/api/v1/models/{second}/lineage", headers=ann).json()
    assert (lineage["dataset"], lineage["parents"]) == ("colours@2", listed[1]["lineage"]["parents"])
    figures = world.http.get(f"/api/v1/models/{first}/evaluation", headers=ann).json()
    assert figures["test"]["accuracy"]["value"] == listed[0]["metrics"]["test"]["accuracy"]["value"]
    check_problem(world.http.get("/api/v1/models/nothing", headers=ann), 404, "not-found")


def test_a_service_that_compares_as_much_as_it_can_says_so(models: Any) -> None:
    world, first, _ = models
    ann = world.token(Scope.PROMOTE)
    room = world.service.context.room
    with room.heavy(), room.heavy():
        refused = world.http.post("/api/v1/deployments/gate/promote", json={"model": first}, headers=ann)
    check_problem(refused, 503, "busy")
    assert refused.headers["retry-after"] == "5"
