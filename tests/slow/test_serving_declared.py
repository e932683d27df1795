"""The server as a configuration file declares it, on real Ray Serve, with a model that was really searched for."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from autovision import AutoVision, runtime
from autovision.records.tokens import Scope
from autovision.serving.declared import SECRET
from autovision.space import Float, Space

FILE = Path(__file__).parents[2] / "cluster" / "serve.yaml"


class Tiny(Space):
    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    lr = Float(1e-3, 1e-1, log=True)
    epochs = 9
    batch_size = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders with 70 images each: one redder, the other bluer."""
    random = np.random.default_rng(0)
    for number in range(140):
        pixels = random.integers(60, 160, (72, 72, 3)).astype(np.uint8)
        pixels[..., 2 * (number % 2)] += 70
        path = tmp_path / "images" / ("red", "blue")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "images"


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """`cluster/serve.yaml` for one node with little to do, on a free port of loopback."""
    monkeypatch.delenv(SECRET, raising=False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    deployment, edge = config["applications"]
    deployment["args"] |= {"replicas": 1, "max_replicas": 1, "cpus": 0.5}
    edge["args"] |= {"host": "127.0.0.1", "port": port, "nodes": 1}
    [overridden] = edge["deployments"]
    overridden |= {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0}}
    return config


@pytest.fixture
def apply() -> Iterator[Any]:
    """Gives Serve a configuration as its REST API does."""

    def deploy(config: dict[str, Any]) -> None:
        serve.start(proxy_location="Disabled")
        client = _get_global_client()
        assert client is not None
        client.deploy_apps(ServeDeploySchema.model_validate(config))

    with runtime.connected():
        yield deploy
        serve.shutdown()


def until(url: str, status: int, **options: Any) -> httpx.Response:
    """The first answer with this status; however slow the machine is, the test's own time limit is the end."""
    while True:
        try:
            answer = httpx.get(url, trust_env=False, **options)
            if answer.status_code == status:
                return answer
        except httpx.TransportError:
            pass
        time.sleep(0.2)


def test_a_declared_server_waits_for_a_model_and_then_answers(
    apply: Any, config: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    av = AutoVision(tmp_path / "store")
    av.import_dataset(folder, "pets")
    search = av.search("pets", space=Tiny(), budget_s=120, max_trials=1)
    assert search.model is not None
    for application in config["applications"]:
        application["args"]["store"] = av.store.uri
    apply(config)
    url = f"http://127.0.0.1:{config['applications'][1]['args']['port']}"
    until(f"{url}/v1/health", 503)  # there is no such deployment yet, and nothing breaks of it
    av.promote(search.model, "pets", force=True)
    until(f"{url}/v1/health", 200)

    image = next((folder / "red").glob("*.png")).read_bytes()
    assert httpx.post(f"{url}/v1/predict", content=image, trust_env=False).status_code == 401
    made = av.create_token("line-1", [Scope.PREDICT, Scope.ADMIN])
    headers = {"authorization": f"Bearer {made.secret}"}
    until(f"{url}/v1/model", 200, headers=headers)
    answer = httpx.post(f"{url}/v1/predict", content=image, headers=headers, trust_env=False, timeout=60)
    assert answer.json()["model"] == search.model
    metrics = httpx.get(f"{url}/metrics", headers=headers, trust_env=False).text
    assert 'autovision_replicas{deployment="pets"} 1.0' in metrics
