"""Which Ray Job is due for which search, and that none is submitted twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from autovision.errors import InvalidInput
from autovision.records.searches import SearchRequest, SearchState, SearchStatus
from autovision.search import requests
from autovision.search.ray_jobs import Job, JobFleet, job_id, plans
from autovision.store import LocalStore, MemoryStore, lease
from tests.unit.service.conftest import NOON

URI = "file:///store"


def state(search: str, attempt: int = 0) -> SearchState:
    return SearchState(search=search, attempt=attempt, created_at=NOON, updated_at=NOON)


def ident(search: str, attempt: int = 1, number: int = 1) -> str:
    return job_id(URI, search, attempt, number)


def submitted(waiting: list[SearchState], jobs: list[Job], most: int = 2) -> list[str | None]:
    return [each.submit for each in plans(URI, waiting, jobs, most)]


def test_each_search_gets_a_job_of_its_attempt_in_the_order_of_the_queue_while_there_is_room() -> None:
    waiting = [state("a"), state("b", attempt=2), state("c")]
    assert submitted(waiting, []) == [ident("a"), ident("b", 3)]
    assert submitted(waiting, [Job(ident("a"), "PENDING")]) == [ident("b", 3)]
    assert submitted(waiting, [Job(ident("a"), "RUNNING"), Job(ident("x"), "RUNNING")]) == []
    assert ident("a") != job_id("file:///other", "a", 1, 1)


@pytest.mark.parametrize(
    "ended",
    [
        Job(ident("a"), "FAILED", 1),
        Job(ident("a"), "STOPPED"),
        Job(ident("a"), "SUCCEEDED", 0),
        Job(ident("a"), "FAILED", 75),
    ],
)
def test_a_search_that_still_waits_after_its_job_gets_another_one(ended: Job) -> None:
    assert submitted([state("a")], [ended]) == [ident("a", 1, 2)]


def test_a_search_that_no_job_can_begin_is_given_up() -> None:
    lost = [Job(ident("a", 1, n), "FAILED", 1, "killed") for n in (1, 2, 3)]
    (plan,) = plans(URI, [state("a")], lost, 2)
    assert plan.submit is None and plan.fault is not None and "killed" in plan.fault
    # An attempt that had begun counts from the beginning, and what was not its fault not at all.
    assert submitted([state("a", attempt=1)], lost) == [ident("a", 2, 1)]
    stopped = [Job(ident("a", 1, n), "FAILED", code) for n, code in enumerate((130, 4, 75, 0, 130), 1)]
    assert submitted([state("a")], stopped) == [ident("a", 1, 6)]


@dataclass
class Ray:
    """What a job server does with jobs, of which none is run."""

    known: dict[str, Job] = field(default_factory=dict)
    entrypoints: list[str] = field(default_factory=list)

    def jobs(self) -> list[Job]:
        return list(self.known.values())

    def submit(self, job_id: str, entrypoint: str) -> bool:
        if job_id in self.known:
            return False
        self.known[job_id] = Job(job_id, "PENDING")
        self.entrypoints.append(entrypoint)
        return True


def test_the_queue_goes_to_the_cluster_once(tmp_path: Path) -> None:
    store, cluster = LocalStore(tmp_path / "a store"), Ray()
    ids = []
    for seed in range(3):
        request = SearchRequest(
            dataset="pets", dataset_version=1, dataset_digest="d", space={}, budget_s=5, seed=seed
        )
        requests.submit(store, request)
        ids.append(request.id)
    fleets = [JobFleet(store, cluster, most=3), JobFleet(store, cluster, most=3)]
    assert len(list(fleets[0].turn())) == 3
    assert list(fleets[0].turn()) == list(fleets[1].turn()) == []
    assert len(cluster.known) == 3 and all(
        f"'{store.uri}'" in each or store.uri in each for each in cluster.entrypoints
    )
    assert cluster.entrypoints[0].startswith("python -m autovision.search.job ")
    # One is taken up, one is lost again and again, one is stopped.
    held = lease.acquire(store, f"search-{ids[0]}", "test", 60)
    assert held is not None
    requests.request_stop(store, ids[2])
    for _ in range(3):
        for name, found in list(cluster.known.items()):
            if ids[1] in name and found.status == "PENDING":
                cluster.known[name] = found._replace(status="FAILED", exit_code=-9, message="no memory")
        told = list(fleets[1].turn())
    assert "no memory" in told[0]
    after = requests.get(store, ids[1])[1]
    assert after.status is SearchStatus.FAILED and after.error is not None and "no memory" in after.error
    assert len(cluster.known) == 5


def test_a_store_that_no_job_can_read_is_refused() -> None:
    with pytest.raises(InvalidInput, match="s3://"):
        JobFleet(MemoryStore(), Ray())
