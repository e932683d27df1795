"""Serving on a cluster whose nodes come and go: several raylets on this machine, whose edges share the port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from autovision import runtime
from autovision.serving import deploy
from autovision.serving.client import Client
from autovision.serving.scaling import Scaling
from autovision.store.protocol import Store
from tests.integration.shades import load, png, promote, shades_store, under_load, until


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    runtime.connect(cluster.address)
    yield cluster
    runtime.disconnect()
    cluster.shutdown()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return shades_store(tmp_path / "store")


def proxies() -> list[int]:
    """The processes of HAProxy that run below this one's raylets."""
    found = []
    for process in psutil.process_iter(["name"]):
        with suppress(psutil.Error):
            if process.info["name"] == "haproxy":
                found.append(process.pid)
    return found


def replicas(url: str) -> set[str]:
    with Client(url) as client:
        return {client.info().replica for _ in range(12)}


def test_every_node_that_joins_gets_an_edge_and_one_that_is_lost_takes_no_request_with_it(
    cluster: Cluster, store: Store
) -> None:
    promote(store, "shades", "shades-1")
    before = set(proxies())
    assert not runtime.is_embedded()
    scaling = Scaling(least=2, most=2)
    # Two replicas of a CPU each: the second one waits for a node.
    second: Any = None

    def join() -> None:
        nonlocal second
        second = cluster.add_node(num_cpus=1)
        until(lambda: len(set(proxies()) - before) == 2, "an edge on the new node", timeout_s=60)
        until(lambda: len(replicas(server.url)) == 2, "a replica on the new node", timeout_s=60)

    def lose() -> None:
        cluster.remove_node(second, allow_graceful=False)
        until(lambda: len(set(proxies()) - before) == 1, "the end of its edge", timeout_s=60)
        until(lambda: len(replicas(server.url)) == 1, "the end of its replica", timeout_s=60)

    with deploy.start(store.uri, deployment="shades", port=0, load=load, scaling=scaling) as server:
        answers = under_load(server.url, join)
        assert len({answer.model for _, answer in answers}) == 1
        with Client(server.url) as client:
            assert client.predict(png(255)).label == "bright"
        lose()
        with Client(server.url) as client:
            assert client.predict(png(0)).label == "dark"
        until(lambda: sum(node["Alive"] for node in ray.nodes()) == 1, "one node")
