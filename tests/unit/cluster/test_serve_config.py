"""What the serving cluster is told to run: the file for `serve deploy`, and the same for KubeRay."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from autovision.serving import declared
from autovision.serving.applications import app_of

CLUSTER = Path(__file__).parents[3] / "cluster"
OVERLAYS = ("base", "overlays/small", "overlays/gpu", "overlays/spot")
SECRET = "a-secret-of-more-than-24-letters"

Built = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment, as manifests give it."""
    monkeypatch.setenv("AUTOVISION_STORE", "s3://bucket/prefix")
    monkeypatch.setenv(declared.SECRET, SECRET)


def service(built: Built, overlay: str) -> dict[str, Any]:
    [found] = [each["spec"] for each in built(overlay) if each["kind"] == "RayService"]
    return found


def built_applications(config: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Name -> arguments and application, as Serve builds them from a file."""
    made = {}
    for application in ServeDeploySchema.model_validate(config).applications:
        module, name = application.import_path.split(":")
        builder = getattr(import_module(module), name)
        arguments = {
            declared.deployment: declared.DeploymentArguments,
            declared.edge: declared.EdgeArguments,
        }[builder].model_validate(application.args)
        made[application.name] = arguments, builder(arguments)
    return made


def test_kuberay_is_told_what_the_file_says(built: Built) -> None:
    file = yaml.safe_load((CLUSTER / "serve.yaml").read_text(encoding="utf-8"))
    assert yaml.safe_load(service(built, "base")["serveConfigV2"]) == file


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_applications_fit_together_and_onto_the_nodes(built: Built, overlay: str) -> None:
    spec = service(built, overlay)
    config = yaml.safe_load(spec["serveConfigV2"])
    assert ServeDeploySchema.model_validate(config).proxy_location == "Disabled"
    made = built_applications(config)
    edges = [arguments for arguments, _ in made.values() if isinstance(arguments, declared.EdgeArguments)]
    targets = [
        arguments for arguments, _ in made.values() if isinstance(arguments, declared.DeploymentArguments)
    ]
    [edge] = edges
    assert {app_of(name) for name in edge.deployments} == set(made) - {f"autovision-edge-{edge.port}"}
    for target in targets:
        assert app_of(target.deployment or target.model) in made
        assert (target.server, target.require_token) == (edge.server, edge.require_token)
    [group] = spec["rayClusterConfig"]["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == edge.nodes
    [overridden] = config["applications"][-1]["deployments"]
    assert overridden["num_replicas"] == edge.nodes
    assert (
        yaml.safe_load(yaml.safe_load(group["rayStartParams"]["resources"]))
        == overridden["ray_actor_options"]["resources"]
    )
    [container] = group["template"]["spec"]["containers"]
    cpus = edge.nodes * int(container["resources"]["limits"]["cpu"])
    assert sum(target.cpus * (target.max_replicas or target.replicas) for target in targets) <= cpus
    assert {"name": "serve", "containerPort": edge.port} in container["ports"]
    assert edge.host == "0.0.0.0"
    assert edge.require_token
