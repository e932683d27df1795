"""What a token may submit, also of many submits at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from autovision.records.searches import SearchStatus
from autovision.records.service import Charge, Submission, Usage
from autovision.records.tokens import Scope, Token
from autovision.registry.searches import all_searches
from autovision.search import requests
from autovision.service import quotas
from autovision.service.quotas import judge
from autovision.store import keys, records
from tests.unit.service.conftest import NOON, World, check_problem


def token(**quota: Any) -> Token:
    return Token(id="t", name="ann", scopes=(Scope.SUBMIT,), digest="", created_at=NOON, **quota)


def usage(*charges: tuple[str, float, float]) -> Usage:
    """(search, seconds, hours ago)"""
    made = [Charge(search=s, seconds=n, at=NOON - timedelta(hours=h)) for s, n, h in charges]
    return Usage(token="t", charges=tuple(made))


def test_seconds_count_for_a_day_and_the_wait_is_until_enough_are_free() -> None:
    asked = token(max_search_s_per_day=1000.0)
    used = usage(("a", 400, 30), ("b", 300, 20), ("c", 500, 10))
    verdict = judge(asked, used, (), "d", 200.0, NOON)
    assert (verdict.fault, verdict.left.search_s, verdict.left.searches) == (None, 200.0, None)
    refused = judge(asked, used, (), "d", 201.0, NOON)
    assert refused.fault is not None and "200 of the 1000 s" in refused.fault
    assert refused.retry_after_s == 4 * 3600
    assert judge(asked, used, (), "d", 501.0, NOON).retry_after_s == 14 * 3600
    assert judge(asked, used, (), "d", 2000.0, NOON).retry_after_s == 24 * 3600


def test_searches_at_once_count_until_they_end() -> None:
    asked, used = token(max_searches=2), usage(("a", 60, 30), ("b", 60, 1))
    refused = judge(asked, used, {"a", "b"}, "c", 60.0, NOON)
    assert refused.fault is not None and refused.left.searches == 0 and refused.retry_after_s > 0
    assert judge(asked, used, {"a", "b"}, "a", 60.0, NOON).fault is None
    assert judge(asked, used, {"a"}, "c", 60.0, NOON).left.searches == 1


def test_a_used_up_quota_is_told_with_what_is_left_and_frees_itself(world: World) -> None:
    headers = world.token(Scope.SUBMIT, Scope.READ, max_searches=2, max_search_s_per_day=500.0)
    made = [world.submit(headers, seed=seed, budget_s=100).json() for seed in range(2)]
    full = world.submit(headers, seed=2, budget_s=100)
    problem = check_problem(full, 429, "quota")
    assert problem["left"] == {"searches": 0, "search_s": 300.0} and int(full.headers["retry-after"]) > 0
    # What is there already costs nothing; what ends makes room; what was granted today stays granted.
    assert world.submit(headers, seed=0, budget_s=100).json()["created"] is False
    world.http.post(f"{made[0]['url']}/stop", headers=headers)
    assert world.submit(headers, seed=2, budget_s=250).status_code == 202
    requests.set_state(world.store, made[1]["search"], status=SearchStatus.FAILED)
    refused = check_problem(world.submit(headers, seed=3, budget_s=100), 429, "quota")
    assert refused["left"] == {"searches": 1, "search_s": 50.0}
    assert world.http.get("/api/v1/me", headers=headers).json()["left"] == refused["left"]
    # More seconds of a stopped search are charged as well.
    resumed = world.http.post(f"{made[0]['url']}/resume", json={"budget_s": 51}, headers=headers)
    check_problem(resumed, 429, "quota")
    assert (
        world.http.post(f"{made[0]['url']}/resume", json={"budget_s": 50}, headers=headers).status_code == 200
    )
    other = world.token(Scope.SUBMIT, name="bob")
    assert world.submit(other, seed=9, budget_s=10_000).status_code == 202
    assert world.http.get("/api/v1/me", headers=other).json()["left"] == {"searches": None, "search_s": None}


def test_seconds_that_were_used_within_a_minute_are_charged_when_they_are_asked_for_again(
    world: World,
) -> None:
    headers = world.token(Scope.SUBMIT, Scope.READ, max_search_s_per_day=100.0)
    made = world.submit(headers, budget_s=10).json()

    def left_after(*, ended: bool) -> float:
        if ended:
            requests.set_state(world.store, made["search"], status=SearchStatus.FINISHED)
        answer = world.http.post(f"{made['url']}/resume", json={"budget_s": 20}, headers=headers)
        assert answer.status_code == 200
        seconds: float = world.http.get("/api/v1/me", headers=headers).json()["left"]["search_s"]
        return seconds

    assert [left_after(ended=ended) for ended in (True, True, False, True)] == [70.0, 50.0, 50.0, 30.0]


def test_a_priority_above_what_the_token_may_have_is_refused(world: World) -> None:
    plain = world.token(Scope.SUBMIT, name="ann")
    problem = check_problem(world.submit(plain, priority=1), 403, "priority")
    assert "may have 0 at most" in problem["detail"] and "--max-priority" in problem["detail"]
    assert world.submit(plain, priority=0).status_code == 202
    assert world.submit(plain, priority=-3, seed=1).status_code == 202
    urgent = world.token(Scope.SUBMIT, Scope.READ, name="bob", max_priority=2)
    assert world.submit(urgent, priority=2, seed=2).status_code == 202
    check_problem(world.submit(urgent, priority=3, seed=3), 403, "priority")
    assert world.http.get("/api/v1/me", headers=urgent).json()["token"]["max_priority"] == 2
    assert world.submit(world.token(name="root"), priority=10, seed=4).status_code == 202


def test_who_submits_what_somebody_else_submits_at_the_same_moment_is_not_charged_for_it(
    world: World,
) -> None:
    headers = world.token(Scope.SUBMIT, Scope.READ, max_search_s_per_day=100.0)
    made = world.submit(headers, budget_s=60).json()["search"]
    store = world.store
    store.delete(keys.search_state(made))
    store.delete(keys.submission(made))
    bob = world.token(Scope.SUBMIT, Scope.READ, name="bob", max_search_s_per_day=100.0)
    records.create(store, keys.submission(made), Submission(search=made, by="ann", token=None, at=NOON))
    assert world.submit(bob, budget_s=60).json()["search"] == made
    assert world.http.get("/api/v1/me", headers=bob).json()["left"]["search_s"] == 100.0
    assert requests.get(store, made)[1].submitted_by == "ann"
    refused = world.http.post(f"/api/v1/searches/{made}/stop", headers=bob)
    check_problem(refused, 403, "not-yours")


def test_a_refused_declaration_costs_nothing(world: World) -> None:
    headers = world.token(Scope.SUBMIT, max_search_s_per_day=100.0)
    assert world.submit(headers, metric="nonsense", budget_s=100).status_code == 422
    assert world.submit(headers, budget_s=100).status_code == 202


def test_fifty_submits_of_five_people_at_once_are_fifty_searches(world: World) -> None:
    people = [world.token(Scope.SUBMIT, name=f"user-{n}", max_searches=10) for n in range(5)]

    def submit(number: int) -> Any:
        return world.submit(people[number % 5], seed=number, budget_s=5)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(submit, range(50)))
    assert [each.status_code for each in answers] == [202] * 50
    accepted = [each.json()["search"] for each in answers]
    found = {request.id: request for request, _ in all_searches(world.store)}
    assert len(set(accepted)) == 50 and set(found) == set(accepted)
    assert sorted(request.reason for request in found.values()) == sorted(
        f"submitted by user-{n % 5}" for n in range(50)
    )
    assert [
        check_problem(world.submit(each, seed=99), 429, "quota")["left"]["searches"] for each in people
    ] == [0] * 5


def test_of_many_submits_at_once_none_slips_past_the_quota(world: World) -> None:
    headers = world.token(Scope.SUBMIT, max_searches=3, max_search_s_per_day=10_000.0)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda seed: world.submit(headers, seed=seed, budget_s=10), range(24)))
    assert sorted(each.status_code for each in answers) == [202] * 3 + [429] * 21
    assert len(all_searches(world.store)) == 3


def test_what_was_charged_and_not_done_is_given_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = world.token(Scope.SUBMIT, max_search_s_per_day=100.0)
    from autovision.errors import StoreUnavailable

    def away(*args: Any, **options: Any) -> None:
        raise StoreUnavailable("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(requests, "submit", away)
        check_problem(world.submit(headers, budget_s=100), 503, "store-unavailable")
    assert world.submit(headers, budget_s=100).status_code == 202


def test_a_token_of_before_has_no_quota() -> None:
    assert not token().has_quota
    quotas.reserve(None, token(), "s", 1e9, NOON)  # type: ignore[arg-type] # it needs no store
