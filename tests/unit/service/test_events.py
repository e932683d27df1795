"""A search as it goes: what is told, once, in order, also after a stream broke off."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from autovision.records.searches import SearchStatus
from autovision.records.tokens import Scope
from autovision.records.trials import CurvePoint, TrialResult, TrialState
from autovision.search import requests
from autovision.service.client import ServiceClient
from autovision.service.context import Limits
from autovision.service.events import Follower
from autovision.service.schema import Progress
from autovision.service.server import ServiceServer
from autovision.store import keys, records, tokens
from tests.unit.service.conftest import World, check_problem, made, until


def trial(search: str, number: int, value: float, at_s: float | None = None) -> TrialResult:
    """A trial that ended so many seconds after noon."""
    ended = datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=number if at_s is None else at_s)
    metrics = {"accuracy": value, "neg_log_loss": value - 1}
    point = CurvePoint(rung=0, epoch=1, seconds=1.0, search_s=float(number), train_loss=0.5, metrics=metrics)
    return TrialResult(
        search=search,
        trial=f"01-{number:05d}",
        number=number,
        state=TrialState.COMPLETE,
        config={"backbone": "resnet18"},
        parameters={},
        origin="sampled",
        curve=(point,),
        value=value,
        metrics=metrics,
        weights_key=f"searches/{search}/weights/{number}",
        created_at=ended,
    )


def end(store: Any, *trials: TrialResult) -> None:
    for each in trials:
        records.create(store, keys.trial(each.search, each.trial), each)


@pytest.fixture
def search(open_world: World) -> str:
    found: str = open_world.submit().json()["search"]
    return found


def kinds(events: list[Any]) -> list[str]:
    return [each.kind for each in events]


def test_only_what_is_new_is_told_and_at_last_the_end(open_world: World, search: str) -> None:
    store = open_world.store
    follower = Follower(store, search)
    (first,) = follower.look()
    assert (first.kind, json.loads(first.data)["status"]) == ("progress", "queued")
    assert follower.look() == []
    end(store, trial(search, 0, 0.6), trial(search, 1, 0.8))
    told = follower.look()
    assert kinds(told) == ["trial", "trial", "progress"]
    assert [json.loads(each.data)["trial"] for each in told[:2]] == ["01-00000", "01-00001"]
    progress = Progress.model_validate_json(told[2].data)
    assert (progress.complete, progress.best_value, progress.best_config) == (
        2,
        0.8,
        {"backbone": "resnet18"},
    )
    assert follower.look() == [] and not follower.ended
    end(store, trial(search, 2, 0.7))
    requests.set_state(store, search, status=SearchStatus.FINISHED, model="m-1", trials=3)
    told = follower.look()
    assert kinds(told) == ["trial", "end"] and follower.ended
    assert json.loads(told[1].data)["model"] == "m-1"
    assert Follower(store, search, told[1].id).nothing_new
    # It was extended: the end is not the end any more.
    requests.set_state(store, search, status=SearchStatus.QUEUED)
    assert not Follower(store, search, told[1].id).nothing_new


def test_whoever_comes_back_is_told_the_rest(open_world: World, search: str) -> None:
    store = open_world.store
    end(store, *(trial(search, number, 0.5) for number in range(4)))
    events = Follower(store, search).look()
    for position in range(4):
        told = Follower(store, search, events[position].id).look()
        assert [each.data for each in told[:-1]] == [each.data for each in events[position + 1 : 4]]
    assert kinds(Follower(store, search, events[-1].id).look()) == ["progress"]


@pytest.mark.parametrize(
    "last", ["", "0", "9-aaaaaaaaaaaa", "2-aaaaaaaaaaaa", "x" * 64, "999999999-" + "0" * 12]
)
def test_an_event_that_nobody_told_is_no_place_to_go_on_from(
    open_world: World, search: str, last: str
) -> None:
    end(open_world.store, trial(search, 0, 0.5), trial(search, 1, 0.5))
    assert kinds(Follower(open_world.store, search, last).look()) == ["trial", "trial", "progress"]


def test_a_trial_that_comes_late_by_its_clock_is_not_left_out(open_world: World, search: str) -> None:
    end(open_world.store, trial(search, 0, 0.5), trial(search, 1, 0.5))
    last = Follower(open_world.store, search).look()[-1]
    end(open_world.store, trial(search, 2, 0.5, at_s=0.5))
    told = Follower(open_world.store, search, last.id).look()
    assert {json.loads(each.data)["trial"] for each in told if each.kind == "trial"} >= {"01-00002"}


# ------------------------------------------------------------------------------------------ over real HTTP


def read(response: httpx.Response) -> list[dict[str, str]]:
    """Events up to the end of a stream."""
    found: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if not line and fields:
            found.append(fields)
            fields = {}
        elif line:
            name, _, value = line.partition(":")
            fields[name or "comment"] = value.strip()
    return found


def test_a_stream_lives_as_long_as_the_search_and_is_taken_up_where_it_ended(
    store: Any, server: ServiceServer
) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=120) as http:
        url = http.post("/api/v1/searches", json={"dataset": "pets"}).json()["url"]
        search = url.rpartition("/")[2]
        beats: list[str] = []

        def go_on() -> None:
            for number in range(3):
                end(store, trial(search, number, 0.5 + number / 10))
                time.sleep(0.1)
            requests.set_state(store, search, status=SearchStatus.FINISHED, model="m-1")

        worker = threading.Thread(target=go_on)
        with http.stream("GET", f"{url}/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            worker.start()
            events = read(response)
        worker.join()
        beats = [each["comment"] for each in events if "comment" in each]
        told = [each for each in events if "event" in each]
        assert [each["event"] for each in told if each["event"] != "progress"] == ["trial"] * 3 + ["end"]
        assert beats, "nothing happened for longer than a heartbeat"
        third = next(each for each in told if each["event"] == "trial")
        with http.stream("GET", f"{url}/events", headers={"last-event-id": third["id"]}) as response:
            assert [each["event"] for each in read(response)] == ["trial", "trial", "end"]
        over = http.get(f"{url}/events", headers={"last-event-id": told[-1]["id"]})
        assert (over.status_code, over.text) == (204, "")


def test_a_client_follows_over_the_ends_of_streams(store: Any) -> None:
    service = made(store, required=False, limits=Limits(poll_s=0.01, stream_s=0.05))
    with ServiceServer(service, "127.0.0.1", 0) as server, ServiceClient(server.url) as client:
        from autovision.service.schema import SearchDeclaration

        search = client.submit(SearchDeclaration(dataset="pets")).search

        def go_on() -> None:
            for number in range(4):
                time.sleep(0.3)
                end(store, trial(search, number, 0.5))
            requests.set_state(store, search, status=SearchStatus.STOPPED)

        worker = threading.Thread(target=go_on)
        worker.start()
        told = list(client.follow(search))
        worker.join()
    assert [each.number for each in told if isinstance(each, TrialResult)] == [0, 1, 2, 3]
    last = told[-1]
    assert isinstance(last, Progress) and last.status == "stopped"


def test_a_stream_ends_with_the_token_and_with_the_service(store: Any) -> None:
    service = made(store)
    with (
        ServiceServer(service, "127.0.0.1", 0) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=120) as http,
    ):
        secrets = [
            tokens.create(store, name, [Scope.READ, Scope.SUBMIT], datetime.now(UTC)).secret
            for name in ("ann", "bob")
        ]
        ann, bob = ({"authorization": f"Bearer {each}"} for each in secrets)
        until(lambda: http.get("/api/v1/me", headers=bob).status_code == 200)
        url = http.post("/api/v1/searches", json={"dataset": "pets"}, headers=ann).json()["url"]
        with http.stream("GET", f"{url}/events", headers=ann) as response:
            tokens.revoke(store, "ann", datetime.now(UTC))
            assert all(each.get("event") != "end" for each in read(response))
        with http.stream("GET", f"{url}/events", headers=bob) as response:
            service.close()
            read(response)


def test_one_token_has_so_many_streams_and_leaves_them_when_it_goes(store: Any) -> None:
    limits = Limits(poll_s=0.01, heartbeat_s=0.02, max_streams_per_token=1)
    service = made(store, required=False, limits=limits)
    with (
        ServiceServer(service, "127.0.0.1", 0) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=120) as http,
    ):
        url = http.post("/api/v1/searches", json={"dataset": "pets"}).json()["url"]
        with http.stream("GET", f"{url}/events") as response:
            assert response.status_code == 200
            refused = http.get(f"{url}/events")
            assert "retry-after" in refused.headers
            check_problem(refused, 429, "too-many-streams")
        until(lambda: not service.context.room._streams)
        with http.stream("GET", f"{url}/events") as response:
            assert response.status_code == 200
