"""Fifty searches of five people at once, through the API service and the store's queue, each really run."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
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
    """Search -> user, of all that were submitted at once, each user in a thread, everything twice.

    The first user is quicker than the others, and has all of hers in the queue before them.
    """
    secrets = {
        user: av.create_token(user, [Scope.SUBMIT, Scope.READ], max_searches=EACH).secret for user in USERS
    }
    together = threading.Barrier(len(USERS))
    found: dict[str, str] = {}

    def submit(user: str) -> None:
        with ServiceClient(server.url, secrets[user]) as client:

            def all_of_them() -> None:
                for number in range(EACH):
                    declared = SearchDeclaration(
                        dataset="colours",
                        space=Tiny().to_json(),
                        budget_s=BUDGET_S,
                        max_trials=1,
                        seed=100 * USERS.index(user) + number,
                    )
                    found[client.submit(declared).search] = user

            if user == USERS[0]:
                all_of_them()
            together.wait()
            all_of_them()
            if user != USERS[0]:
                all_of_them()

    service = build_app(av.store, book=TokenBook(av.store))
    with ServiceServer(service, "127.0.0.1", 0) as server, ThreadPoolExecutor(len(USERS)) as pool:
        for each in [pool.submit(submit, user) for user in USERS]:
            each.result()
    return found


@pytest.mark.timeout(3000)
def test_fifty_searches_of_five_users_are_fair_and_none_is_lost_or_run_twice(
    av: AutoVision, one_cpu: None, record_property: Callable[[str, object], None]
) -> None:
    of = submitted(av)
    assert Counter(of.values()) == dict.fromkeys(USERS, EACH)
    queued = [of[each.id] for each, _ in av.searches()]
    assert [state.submitted_by for _, state in av.searches()] == queued
    assert queued[:EACH] == [USERS[0]] * EACH, "in the order of their coming one would have everything first"
    told = [f"{event.stage}: {event.text}" for event in av.controller().run(once=True)]
    assert not [line for line in told if line.startswith("error")], told

    states = {request.id: state for request, state in av.searches()}
    assert set(states) == set(of) and queue.entries(av.store) == []
    began = {}
    for search, state in states.items():
        assert (state.status, state.attempt, state.error) == (SearchStatus.FINISHED, 1, None)
        (trial,) = av.trials(search)
        assert trial.state is TrialState.COMPLETE and trial.number == 0
        assert av.model(str(state.model)).lineage.search == search
        began[search] = trial.created_at
    assert len(av.models()) == len(states), "a model of each, and no second one"

    left, had = Counter(of.values()), dict.fromkeys(USERS, 0.0)
    together: dict[str, float] = {}
    for search in sorted(began, key=began.__getitem__):
        least = min(had[user] for user in USERS if left[user])
        # Seconds are worth a little less as they age, by half in a day.
        assert had[of[search]] <= 1.02 * least, (search, of[search], had)
        left[of[search]] -= 1
        had[of[search]] += states[search].spent_s
        if all(left.values()):
            together = dict(had)
    longest, mean = max(state.spent_s for state in states.values()), sum(together.values()) / len(USERS)
    furthest = max(abs(seconds - mean) for seconds in together.values()) / mean
    seconds = ", ".join(f"{user} {each:.1f}" for user, each in together.items())
    said = f"seconds while all five waited: {seconds}; off the mean by {furthest:.1%}, a search is {longest / mean:.1%}"
    record_property("measured", said)
    print(f"\n{said}")
    assert furthest <= max(0.1, longest / mean), "within a tenth, or within a search that is longer"
