"""Searches as Ray Jobs: one for each attempt, under an id that follows from the search and the attempt.

A job's id is submitted once on a cluster, whoever submits it, however often: two services that see the same search
start one job. What a job says of itself proves nothing: a search that still wants to run gets the next one.
Nothing but the store's URI and the search's id travels; the cluster's nodes have the code.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from autovision.errors import AutoVisionError, InvalidInput
from autovision.records.searches import SearchState, SearchStatus
from autovision.search import job, requests
from autovision.search.sharing import queue
from autovision.store.protocol import Store

MOST_LOSSES = 3
_GOING = ("PENDING", "RUNNING")
_NO_LOSS = (0, 4, job.NOT_CONNECTED, 130)
"""exit codes that say nothing against a search: done, somebody else runs it, no connection to Ray, stopped"""
_MARK = "autovision_store"


class JobsUnavailable(AutoVisionError):
    """The Ray cluster's job server cannot be reached; check --address, and that Ray's dashboard runs there."""


class Job(NamedTuple):
    """A job of this store's, as the cluster tells it."""

    id: str
    status: str
    """`PENDING`, `RUNNING`, `STOPPED`, `SUCCEEDED` or `FAILED`"""
    exit_code: int | None = None
    message: str = ""


class Cluster(Protocol):
    """The jobs of one store on a cluster."""

    def jobs(self) -> list[Job]: ...

    def submit(self, job_id: str, entrypoint: str) -> bool:
        """Whether the job was submitted just now; False: somebody else was faster."""


class RayCluster:
    """The job server of a Ray cluster.

    Args:
        address: as Ray's own `JobSubmissionClient` takes it.
    """

    def __init__(self, address: str, store: Store) -> None:
        self._address = address
        self._mark = store_digest(store.uri)
        self._client: Any = None

    def jobs(self) -> list[Job]:
        return [
            Job(
                each.submission_id,
                str(getattr(each.status, "value", each.status)),
                each.driver_exit_code,
                each.message or "",
            )
            for each in self._asked(lambda client: client.list_jobs())
            if each.submission_id and (each.metadata or {}).get(_MARK) == self._mark
        ]

    def submit(self, job_id: str, entrypoint: str) -> bool:
        known = {each.id for each in self.jobs()}
        if job_id in known:
            return False
        self._asked(
            lambda client: client.submit_job(
                entrypoint=entrypoint, submission_id=job_id, metadata={_MARK: self._mark}
            )
        )
        return True

    def _asked(self, ask: Any) -> Any:
        import requests as http
        from ray.job_submission import JobSubmissionClient

        try:
            if self._client is None:
                self._client = JobSubmissionClient(self._address)
            return ask(self._client)
        except (RuntimeError, ConnectionError, http.RequestException) as error:
            raise JobsUnavailable(
                f"Ray's job server at {self._address} did not do as it was asked: {_line(error)}; check --address, "
                "and that Ray's dashboard runs there"
            ) from error


class Plan(NamedTuple):
    """What is to be done for one search.

    Attributes:
        submit: id of the job to submit; None: none, now.
        fault: why it is given up; None: it is not.
    """

    search: str
    submit: str | None = None
    fault: str | None = None


def store_digest(uri: str) -> str:
    """Tells stores on one cluster apart."""
    return hashlib.sha256(uri.encode()).hexdigest()[:8]


def job_id(store_uri: str, search: str, attempt: int, number: int) -> str:
    """The id of a job: of a search's attempt, counted from 1, the `number`th that was needed."""
    return f"autovision-{store_digest(store_uri)}-{search}-{attempt}-{number}"


def plans(store_uri: str, waiting: Iterable[SearchState], jobs: Iterable[Job], most: int) -> Iterator[Plan]:
    """What is to be done for searches that no process has taken up. Pure.

    Args:
        waiting: in the order of the queue.
        jobs: all of the store's on the cluster.
        most: jobs that may be on their way or run at once.
    """
    by_id: Mapping[str, Job] = {each.id: each for each in jobs}
    free = most - sum(each.status in _GOING for each in by_id.values())
    for state in waiting:
        number, losses = 1, 0
        latest: Job | None = None
        while (found := by_id.get(job_id(store_uri, state.search, state.attempt + 1, number))) is not None:
            latest = found
            losses += found.status not in _GOING and found.exit_code not in _NO_LOSS
            number += 1
        if latest is not None and latest.status in _GOING:
            continue
        if losses >= MOST_LOSSES:
            assert latest is not None, "there were some"
            yield Plan(
                state.search,
                fault=f"{losses} Ray Jobs in a row ended without beginning it, the last one {latest.id}: "
                f"{latest.status}, {latest.message[:300]}",
            )
        elif free > 0:
            free -= 1
            yield Plan(state.search, submit=job_id(store_uri, state.search, state.attempt + 1, number))


class JobFleet:
    """Gives each search of a store's queue a Ray Job.

    Args:
        most: jobs at once. Jobs wait for their turn on the cluster by themselves, each in a process.
    """

    def __init__(self, store: Store, cluster: Cluster, most: int = 4) -> None:
        if store.uri.startswith("memory:"):
            raise InvalidInput(
                f"the store {store.uri} lives in this process, where no job can read it; use s3://, or a folder that "
                "all nodes share"
            )
        self._store, self._cluster, self._most = store, cluster, most

    def turn(self) -> Iterator[str]:
        """Look once: submit what is due. Tells what it did. Raises `JobsUnavailable`."""
        waiting = [state for _, state in queue.waiting(self._store)]
        if not waiting:
            return
        for plan in plans(self._store.uri, waiting, self._cluster.jobs(), self._most):
            if plan.fault is not None:
                requests.set_state(self._store, plan.search, status=SearchStatus.FAILED, error=plan.fault)
                yield f"search {plan.search}: {plan.fault}"
            elif plan.submit is not None and self._cluster.submit(plan.submit, self._entrypoint(plan.search)):
                yield f"search {plan.search} is Ray Job {plan.submit}"

    def _entrypoint(self, search: str) -> str:
        return shlex.join(["python", "-m", job.__name__, self._store.uri, search])


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
