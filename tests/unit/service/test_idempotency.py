"""The same request again is done once, whatever happens between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from autovision.records.service import Answered
from autovision.records.tokens import Scope
from autovision.registry.searches import all_searches
from autovision.search import requests
from autovision.service.idempotency import Asked, once
from autovision.service.problems import UnderWay
from autovision.store import keys, records
from tests.unit.service.conftest import World, check_problem, version


def key(name: str = "k-1") -> dict[str, str]:
    return {"idempotency-key": name}


def test_the_same_key_and_body_gets_the_same_answer_and_another_body_is_refused(world: World) -> None:
    ann = world.token(Scope.SUBMIT)
    first = world.submit(ann | key(), again=True)
    # Meanwhile the data set has a new version, and the search has ended.
    records.create(world.store, keys.dataset_version("pets", 3), version("pets", 3))
    requests.set_state(world.store, first.json()["search"], status="finished")
    second = world.submit(ann | key(), again=True)
    assert (first.status_code, second.status_code, first.json()) == (202, 202, second.json())
    assert "idempotency-replayed" not in first.headers and second.headers["idempotency-replayed"] == "true"
    check_problem(world.submit(ann | key(), again=True, seed=1), 422, "idempotency-key-reused")
    assert len(all_searches(world.store)) == 1
    # Another person's key is another key, and another key is another request.
    assert world.submit(world.token(Scope.SUBMIT, name="bob") | key(), seed=1).json()["created"]
    assert world.submit(ann | key("k-2"), again=True).json()["created"]
    assert len(all_searches(world.store)) == 3


def test_at_once_with_one_key_it_is_one_search(world: World) -> None:
    ann = world.token(Scope.SUBMIT)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: world.submit(ann | key(), again=True), range(8)))
    assert {each.status_code for each in answers} == {202}
    assert len({each.text for each in answers}) == 1 and len(all_searches(world.store)) == 1


def test_a_refusal_is_not_kept(world: World) -> None:
    ann = world.token(Scope.SUBMIT, max_searches=1)
    held = world.submit(ann).json()
    check_problem(world.submit(ann | key(), seed=1), 429, "quota")
    world.http.post(f"{held['url']}/stop", headers=ann)
    assert world.submit(ann | key(), seed=1).status_code == 202


def test_a_key_is_a_word(world: World) -> None:
    for bad in ("", "a b", "x" * 200):
        check_problem(world.submit(world.token(Scope.SUBMIT) | key(bad)), 422, "invalid")


def abandoned(world: World, asked: Asked, **fields: Any) -> None:
    """What a process leaves behind that was killed while it answered."""
    at = datetime.now(UTC) - timedelta(minutes=1)
    records.create(
        world.store, keys.answered(asked.digest), Answered(fingerprint=asked.fingerprint, at=at, **fields)
    )


def test_a_submit_that_was_killed_before_it_answered_is_found_again(world: World) -> None:
    ann = world.token(Scope.SUBMIT)
    body = {"dataset": "pets", "seed": 5}
    there = world.submit(ann, **body).json()
    from autovision.service.schema import SearchDeclaration

    sent = SearchDeclaration(**body).model_dump(mode="json")
    asked = Asked("k-1", "ann", "POST", "/api/v1/searches", sent)
    abandoned(world, asked, subject=there["search"])
    records.create(world.store, keys.dataset_version("pets", 3), version("pets", 3))
    again = world.submit(ann | key(), **body).json()
    assert (again["search"], again["created"], again["dataset"]) == (there["search"], False, "pets@2")
    assert len(all_searches(world.store)) == 1


def test_what_cannot_be_done_twice_is_never_done_on_a_guess(world: World) -> None:
    asked = Asked("k-1", "ann", "POST", "/api/v1/deployments/door/rollback", None)
    abandoned(world, asked)
    with pytest.raises(UnderWay):
        once(world.store, asked, pytest.fail, datetime.now(UTC), wait_s=0.05)


def test_an_act_whose_outcome_is_not_known_keeps_its_key(world: World) -> None:
    from autovision.errors import InvalidInput, StoreUnavailable

    asked = Asked("k-1", "ann", "POST", "/x", None)

    def fails(error: Exception) -> Any:
        def act(*args: Any) -> Any:
            raise error

        return act

    at = datetime.now(UTC)
    with pytest.raises(InvalidInput):
        once(world.store, asked, fails(InvalidInput()), at)
    with pytest.raises(StoreUnavailable):
        once(world.store, asked, fails(StoreUnavailable()), at)
    with pytest.raises(UnderWay):
        once(world.store, asked, pytest.fail, at, wait_s=0.05)
