"""A service over a store in memory, asked over HTTP, with the store's tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.testclient import TestClient

from autovision.records.datasets import DatasetVersion
from autovision.records.tokens import Scope
from autovision.service.app import Service, build_app
from autovision.service.context import Limits
from autovision.service.server import ServiceServer
from autovision.serving.auth import TokenBook
from autovision.store import MemoryStore, keys, records, tokens

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALL = tuple(Scope)


def version(name: str, number: int = 1) -> DatasetVersion:
    """A version of a data set, without its images: nobody looks at them before a search runs."""
    counts = {split: {"cat": n, "dog": n} for split, n in (("train", 50), ("validation", 20), ("test", 20))}
    return DatasetVersion(
        name=name,
        version=number,
        digest=f"{number:064x}",
        manifest_key=keys.dataset_manifest(name, f"{number:064x}"),
        classes=("cat", "dog"),
        positive_class="cat",
        counts=counts,
        n=180,
        seed=0,
        parent=None,
        problems=(),
        problem_counts={},
        created_at=NOON,
    )


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    for number in (1, 2):
        records.create(made, keys.dataset_version("pets", number), version("pets", number))
    records.create(made, keys.dataset_version("cars", 1), version("cars"))
    return made


@dataclass
class World:
    """A store, its service, and whoever asks it."""

    store: Any
    service: Service
    http: TestClient
    secrets: list[str] = field(default_factory=list)

    def token(self, *scopes: Scope, name: str = "ann", **options: Any) -> dict[str, str]:
        """Headers with a new token, which the service knows."""
        made = tokens.create(self.store, name, scopes or ALL, datetime.now(UTC), **options)
        self.secrets.append(made.secret)
        book = self.service.context.book
        assert book is not None
        until(lambda: made.token.id in (book._known or {}))
        return {"authorization": f"Bearer {made.secret}"}

    def submit(self, headers: dict[str, str] | None = None, **declared: Any) -> Any:
        return self.http.post("/api/v1/searches", json={"dataset": "pets", **declared}, headers=headers)


def until(true: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until it is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


QUICK = Limits(poll_s=0.01, heartbeat_s=0.05)


def made(store: Any, *, required: bool = True, limits: Limits = QUICK) -> Service:
    return build_app(store, book=TokenBook(store, required=required, refresh_s=0.005), limits=limits)


@pytest.fixture
def world(store: MemoryStore) -> Iterator[World]:
    """A service that asks for tokens."""
    service = made(store)
    with TestClient(service) as http:
        yield World(store, service, http)


@pytest.fixture
def open_world(store: MemoryStore) -> Iterator[World]:
    """A service without tokens, as on a loopback."""
    service = made(store, required=False)
    with TestClient(service) as http:
        yield World(store, service, http)


@pytest.fixture
def server(store: MemoryStore) -> Iterator[ServiceServer]:
    """A real server on loopback, open until there is a token."""
    with ServiceServer(made(store, required=False), "127.0.0.1", 0) as running:
        yield running


def check_problem(response: Any, status: int, kind: str) -> dict[str, Any]:
    """An error that says what it is, and nothing of the inside."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"urn:autovision:problem:{kind}", problem
    assert problem["status"] == status and problem["detail"] and "Traceback" not in response.text
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem
