"""Fifty searches of five people at once, through the API service and the store's queue, each really run."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray

from autovision import runtime
from autovision.api import AutoVision
from autovision.records.searches import SearchStatus
from autovision.records.tokens import Scope
from autovision.records.trials import TrialState
from autovision.search.sharing import queue
from autovision.service.app import build_app
from autovision.service.client import ServiceClient
from autovision.service.schema import SearchDeclaration
from autovision.service.server import ServiceServer
from autovision.serving.auth import TokenBook
from tests.integration.conftest import Tiny, draw

USERS = ("ann", "ben", "cem", "dia", "eve")
EACH = 10
BUDGET_S = 30.0
"""of which a search of one trial takes a part"""


@pytest.fixture
def one_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Ray of one place, whatever the machine has: whose turn it is, is all that there is to decide."""
    real = ray.init
    with monkeypatch.context() as patch:
        patch.setattr(ray, "init", lambda *args, **options: real(*args, num_cpus=1, **options))
        runtime.connect()
    yield
    runtime.disconnect()


@pytest.fixture
def av(tmp_path: Path) -> AutoVision:
    av = AutoVision(tmp_path / "store")
    for number in range(140):
        draw(tmp_path / "images" / ("red", "blue")[number % 2] / f"{number}.png", number % 2, number)
    av.import_dataset(tmp_path / "images", "colours", seed=0)
    return av


def submitted(av: AutoVision) -> dict[str, str]:
    """Search -> user, of all that were submitted at once, one thread each, everything twice."""
    secrets = {
        user: av.create_token(user, [Scope.SUBMIT, Scope.READ], max_searches=EACH).secret for user in USERS
    }
    together = threading.Barrier(len(USERS))
    found: dict[str, str] = {}

    def submit(user: str) -> None:
        with ServiceClient(server.url, secrets[user]) as client:
            together.wait()
            for number in [*range(EACH), *range(EACH)]:
                declared = SearchDeclaration(
                    dataset="colours",
                    space=Tiny().to_json(),
                    budget_s=BUDGET_S,
                    max_trials=1,
                    seed=100 * USERS.index(user) + number,
                )
                found[client.submit(declared).search] = user

    service = build_app(av.store, book=TokenBook(av.store))
    with ServiceServer(service, "127.0.0.1", 0) as server, ThreadPoolExecutor(len(USERS)) as pool:
        for each in [pool.submit(submit, user) for user in USERS]:
            each.result()
    return found


@pytest.mark.timeout(3000)
def test_fifty_searches_of_five_users_are_fair_and_none_is_lost_or_run_twice(
    av: AutoVision, one_cpu: None
) -> None:
    of = submitted(av)
    assert Counter(of.values()) == dict.fromkeys(USERS, EACH)
    assert [state.submitted_by for _, state in av.searches()] == [of[each.id] for each, _ in av.searches()]
    told = [f"{event.stage}: {event.text}" for event in av.controller().run(once=True)]
    assert not [line for line in told if line.startswith("error")], told

    states = {request.id: state for request, state in av.searches()}
    assert set(states) == set(of) and queue.entries(av.store) == []
    ended = {}
    for search, state in states.items():
        assert (state.status, state.attempt, state.error) == (SearchStatus.FINISHED, 1, None)
        (trial,) = av.trials(search)
        assert trial.state is TrialState.COMPLETE and trial.number == 0
        assert av.model(str(state.model)).lineage.search == search
        ended[search] = trial.created_at
    order = sorted(ended, key=ended.__getitem__)

    left, got, slots = Counter(of.values()), defaultdict(float), Counter[str]()
    for search in order:
        if 0 in left.values():
            break
        left[of[search]] -= 1
        got[of[search]] += states[search].spent_s
        slots[of[search]] += 1
    longest, mean = max(state.spent_s for state in states.values()), sum(got.values()) / len(USERS)
    furthest = max(abs(seconds - mean) for seconds in got.values()) / mean
    print(
        f"\nwhile all five waited: seconds {dict(got)}, searches {dict(slots)}, off the mean by {furthest:.1%}"
    )
    assert max(got.values()) - min(got.values()) <= longest, "nobody is ahead by more than one search"
