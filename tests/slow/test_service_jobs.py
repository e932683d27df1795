"""From a client to a model on a Ray cluster: the API service gives each search to Ray as a job.

It takes a minute or two of two cores.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from autovision import AutoVision
from autovision.records.searches import SearchStatus
from autovision.search import requests
from autovision.search.ray_jobs import RayCluster, job_id
from autovision.service.app import build_app
from autovision.service.client import ServiceClient
from autovision.service.dispatch import dispatching
from autovision.service.schema import Progress, SearchDeclaration
from autovision.service.server import ServiceServer
from tests.integration.conftest import Tiny, draw


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Ray of this process's own with a job server; its URL."""
    root = Path(__file__).parents[2]
    # What a job runs is the `python` of its node: here that of these tests.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    context = ray.init(
        # Not one that somebody else has started on this machine.
        address="local",
        num_cpus=2,
        include_dashboard=True,
        dashboard_port=0,
        object_store_memory=100 << 20,
        log_to_driver=False,
    )
    try:
        yield f"http://{context.dashboard_url}"
    finally:
        ray.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_a_search_that_a_client_submits_becomes_a_model_by_a_ray_job(dashboard: str, tmp_path: Path) -> None:
    av, told = AutoVision(tmp_path / "store"), []
    for number in range(140):
        name = ("red", "blue")[number % 2]
        draw(tmp_path / "images" / name / f"{number}.png", number % 2, number)
    av.import_dataset(tmp_path / "images", "colours", seed=0)
    with (
        ServiceServer(build_app(av.store), "127.0.0.1", 0) as server,
        dispatching(av.store, dashboard, 2, told.append),
        # Another service on the same store: one of the two gives searches to Ray.
        dispatching(av.store, dashboard, 2, told.append),
        ServiceClient(server.url) as client,
    ):
        declared = SearchDeclaration(dataset="colours", space=Tiny().to_json(), budget_s=60, max_trials=2)
        search = client.submit(declared).search
        *_, last = client.follow(search)
    assert isinstance(last, Progress) and (last.status, last.error) == ("finished", None), told
    state = requests.get(av.store, search)[1]
    assert state.status is SearchStatus.FINISHED and state.model is not None and state.attempt == 1
    jobs = RayCluster(dashboard, av.store).jobs()
    assert [each.id for each in jobs] == [job_id(av.store.uri, search, 1, 1)], jobs
    assert sum("is Ray Job" in line for line in told) == 1
