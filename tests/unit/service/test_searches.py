"""Submitting, looking at, stopping and resuming searches."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autovision.records.searches import SearchStatus
from autovision.records.tokens import Scope
from autovision.search import requests
from autovision.store import keys
from tests.unit.service.conftest import World, check_problem

SPACE = {
    "format": 1,
    "name": "Mine",
    "parameters": {
        "backbone": {"kind": "choice", "values": ["tf_efficientnet_lite0"]},
        "lr": {"kind": "float", "low": 0.0001, "high": 0.01, "log": True},
    },
}


def test_what_builds_networks_to_see_their_size_waits_for_others_that_compute(open_world: World) -> None:
    room = open_world.service.context.room
    with room.heavy(), room.heavy():
        busy = open_world.submit(max_size_mb=60.0)
        check_problem(busy, 503, "busy")
        assert int(busy.headers["retry-after"]) > 0
        assert open_world.submit().status_code == 202


def test_a_declaration_becomes_a_search_in_the_queue(open_world: World) -> None:
    response = open_world.submit(budget_s=60, seed=3, max_latency_ms=20, runtime="eager-f32", priority=2)
    assert response.status_code == 202
    made = response.json()
    assert (made["status"], made["dataset"], made["created"]) == ("queued", "pets@2", True)
    assert response.headers["location"] == made["url"] == f"/api/v1/searches/{made['search']}"
    request, state = requests.get(open_world.store, made["search"])
    assert (request.budget_s, request.seed, request.max_latency_ms, request.priority) == (60, 3, 20, 2)
    assert request.runtime == "eager-f32"
    assert (request.reason, state.status) == ("submitted by anonymous", SearchStatus.QUEUED)
    shown = open_world.http.get(made["url"]).json()
    assert shown["request"]["space"]["name"] == "Quick" and shown["submitted_by"] == "anonymous"
    (listed,) = open_world.http.get("/api/v1/searches").json()["items"]
    assert (listed["search"], listed["status"], listed["budget_s"]) == (made["search"], "queued", 60)
    (waits,) = open_world.http.get("/api/v1/queue").json()
    assert (waits["search"], waits["position"], waits["priority"]) == (made["search"], 1, 2)


def test_the_same_declaration_is_the_same_search_unless_it_says_again(open_world: World) -> None:
    first, second = open_world.submit().json(), open_world.submit().json()
    assert (first["search"], first["created"]) == (second["search"], True) and not second["created"]
    again = open_world.submit(again=True).json()
    assert again["created"] and again["search"] != first["search"]


def test_a_space_travels_as_data(open_world: World) -> None:
    made = open_world.submit(space=SPACE, dataset="pets@1").json()
    request, _ = requests.get(open_world.store, made["search"])
    assert (request.space["name"], request.dataset_version) == ("Mine", 1)
    assert set(request.space["parameters"]) >= {"backbone", "lr"}


@pytest.mark.parametrize(
    ("declared", "fault"),
    [
        ({"space": "os:system"}, "body.space"),
        ({"space": "mine.json"}, "body.space"),
        ({"space": "../quick"}, "body.space"),
        ({"sampler": "optuna.samplers:RandomSampler"}, "body.sampler"),
        ({"scheduler": "os:system"}, "body.scheduler"),
        ({"nonce": "x"}, "body.nonce"),
        ({"budget": 3}, "body.budget"),
        ({"budget_s": 0}, "body.budget_s"),
        ({"budget_s": "60"}, "body.budget_s"),
        ({"budget_s": 1e12}, "body.budget_s"),
        ({"seed": -1}, "body.seed"),
        ({"priority": 11}, "body.priority"),
        ({"prices": {"currency": "EUR", "gold": 1}}, "body.prices.gold"),
    ],
)
def test_what_is_no_declaration_is_refused_by_its_place(
    open_world: World, declared: dict[str, Any], fault: str
) -> None:
    problem = check_problem(open_world.submit(**declared), 422, "invalid")
    assert any(each["where"].startswith(fault) for each in problem["faults"]), problem
    assert open_world.http.get("/api/v1/searches").json()["items"] == []


@pytest.mark.parametrize(
    ("declared", "status", "said"),
    [
        ({"dataset": "pest"}, 404, "did you mean 'pets'"),
        ({"dataset": "pets@9"}, 404, "no version 9"),
        ({"dataset": "../pets"}, 422, "not a valid name"),
        ({"dataset": "pets@x"}, 422, "'pets@x'"),
        ({"space": "quik"}, 422, "did you mean 'quick'"),
        ({"metric": "accurcy"}, 422, "accurcy"),
        ({"sampler": "tpee"}, 422, "tpee"),
        ({"space": {"format": 1, "name": "A", "parameters": {"lr": {"kind": "import"}}}}, 422, "kind"),
        ({"space": {**SPACE, "code": "import os"}}, 422, "'code'"),
        ({"space": {"format": 1, "name": "A", "parameters": {"backbone": {"kind": "constant", "value": "os"}}}},
         422, "os"),
        ({"max_cost": 3}, 422, "prices"),
        ({"costs": {"cat": {"dgo": 1.0}}}, 422, "dgo"),
        ({"licenses": ["a b"]}, 422, "licence"),
        ({"deployment": "../door"}, 422, "not a valid name"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused_with_the_remedy(
    open_world: World, declared: dict[str, Any], status: int, said: str
) -> None:
    response = open_world.submit(**declared)
    assert said in check_problem(response, status, "not-found" if status == 404 else "invalid")["detail"]
    assert not [key for key in open_world.store.list() if key.startswith(("searches/", "deployments/"))]


@pytest.mark.parametrize(
    ("body", "headers", "status", "kind"),
    [
        (b"{", {}, 400, "not-json"),
        (b'{"dataset": "pets", "budget_s": NaN}', {}, 400, "not-json"),
        (b'{"dataset": "\\ud800"}', {}, 400, "not-json"),
        (b"[" * 100_000, {}, 400, "not-json"),
        (b"\xff\xfe", {}, 400, "not-json"),
        (b"{}", {"content-type": "text/plain"}, 415, "unsupported-media-type"),
        (b"{}", {"content-encoding": "gzip"}, 415, "unsupported-media-type"),
        (b"[]", {}, 422, "invalid"),
        (b"", {}, 422, "invalid"),
        (b'{"dataset": "pets", "space": "' + b"a" * 300_000 + b'"}', {}, 413, "too-large"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    open_world: World, body: bytes, headers: dict[str, str], status: int, kind: str
) -> None:
    response = open_world.http.post(
        "/api/v1/searches", content=body, headers={"content-type": "application/json", **headers}
    )
    check_problem(response, status, kind)


def test_a_search_with_a_deployment_needs_the_right_to_promote(world: World) -> None:
    ann, bob = world.token(Scope.SUBMIT), world.token(Scope.SUBMIT, Scope.PROMOTE, name="bob")
    assert "'promote'" in check_problem(world.submit(ann, deployment="door"), 403, "forbidden")["detail"]
    assert not world.store.exists(keys.deployment("door"))
    made = world.submit(bob, deployment="door").json()
    assert requests.get(world.store, made["search"])[0].reason == "submitted by bob"
    assert world.store.exists(keys.deployment("door"))


def test_one_stops_and_resumes_ones_own_searches_and_an_admin_everybodys(world: World) -> None:
    ann, bob = world.token(Scope.SUBMIT), world.token(Scope.SUBMIT, name="bob")
    admin = world.token(Scope.SUBMIT, Scope.ADMIN, name="root")
    url = world.submit(ann).json()["url"]
    assert "'ann'" in check_problem(world.http.post(f"{url}/stop", headers=bob), 403, "not-yours")["detail"]
    # Whoever has another token of the same name is the same person.
    assert world.http.post(f"{url}/stop", headers=world.token(Scope.SUBMIT)).json()["status"] == "stopped"
    check_problem(world.http.post(f"{url}/resume", json={}, headers=bob), 403, "not-yours")
    resumed = world.http.post(f"{url}/resume", json={"budget_s": 30.0}, headers=ann).json()
    assert (resumed["status"], resumed["budget_s"], resumed["stop_requested"]) == ("queued", 30.0, False)
    assert world.http.post(f"{url}/stop", headers=admin).json()["status"] == "stopped"


def test_a_finished_search_goes_on_with_more_seconds_only(open_world: World) -> None:
    search = open_world.submit().json()["search"]
    requests.set_state(open_world.store, search, status=SearchStatus.FINISHED, model="m-1", spent_s=100.0)
    url = f"/api/v1/searches/{search}"
    assert (
        "finished" in check_problem(open_world.http.post(f"{url}/resume", json={}), 422, "invalid")["detail"]
    )
    resumed = open_world.http.post(f"{url}/resume", json={"budget_s": 50}).json()
    assert (resumed["status"], resumed["budget_s"], resumed["model"]) == ("queued", 150.0, "m-1")
    more = open_world.http.post(f"{url}/resume", json={"max_trials": 5}).json()
    assert (more["max_trials"], more["budget_s"], more["max_cost"]) == (5, 150.0, None)


@pytest.mark.parametrize("name", ["..", "a..b", "%2e%2e%2fpets", "a%00b", "-a", "a" * 200, "nobody"])
def test_no_path_leads_out_of_the_store(open_world: World, name: str) -> None:
    for place in ("searches", "models", "deployments", "datasets"):
        assert open_world.http.get(f"/api/v1/{place}/{name}").status_code in (404, 422)
    assert open_world.http.post(f"/api/v1/tokens/{name}/revoke").status_code in (404, 422)


def test_an_explanation_of_a_search_without_trials(open_world: World) -> None:
    url = open_world.submit().json()["url"]
    found = open_world.http.get(f"{url}/explanation")
    assert found.status_code == 200 and json.loads(found.text)["winner"] is None
    assert open_world.http.get(f"{url}/trials").json() == {"items": [], "next": None}


def test_data_sets_are_listed_and_shown(open_world: World) -> None:
    names = [each["dataset"] for each in open_world.http.get("/api/v1/datasets").json()["items"]]
    assert names == ["cars@1", "pets@2"]
    shown = open_world.http.get("/api/v1/datasets/pets@1").json()
    assert (shown["version"], shown["counts"]["train"]) == (1, {"cat": 50, "dog": 50})
    check_problem(open_world.http.get("/api/v1/datasets/pets@7"), 404, "not-found")


def test_lists_come_in_parts_without_gaps(open_world: World) -> None:
    made = [open_world.submit(seed=seed).json()["search"] for seed in range(7)]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        part = open_world.http.get(
            "/api/v1/searches", params={"limit": 3, "cursor": cursor} if cursor else {"limit": 3}
        )
        seen += [each["search"] for each in part.json()["items"]]
        cursor = part.json()["next"]
    assert (seen, cursor) == (made, None)
    for cursor in ("x", "é", "AAAA", "a" * 600):
        check_problem(open_world.http.get("/api/v1/searches", params={"cursor": cursor}), 422, "invalid")
    check_problem(open_world.http.get("/api/v1/searches", params={"limit": 0}), 422, "invalid")
