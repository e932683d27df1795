from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as built_by_serve

from autovision.errors import InvalidInput
from autovision.serving.declared import SECRET, DeploymentArguments, EdgeArguments, deployment, edge
from autovision.serving.edge.plan import EdgePlan

GOOD = "0123456789-abcdefghijklmn_"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOVISION_STORE", "s3://bucket/prefix")
    monkeypatch.delenv(SECRET, raising=False)


def bound(application: Any) -> tuple[Any, Any]:
    """Arguments and deployment of a Serve application's only node."""
    node = application._bound_deployment
    return node.init_args, node


def plan_of(**arguments: Any) -> EdgePlan:
    (plan,), _ = bound(edge(EdgeArguments(**arguments)))
    assert isinstance(plan, EdgePlan)
    return plan


def test_the_store_is_that_of_the_node_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_of(deployments=("pets",)).store_uri == "s3://bucket/prefix"
    assert plan_of(deployments=("pets",), store="/shared/store").store_uri == "/shared/store"
    monkeypatch.delenv("AUTOVISION_STORE")
    with pytest.raises(ValidationError, match="store"):
        EdgeArguments(deployments=("pets",))


def test_ray_serve_builds_from_what_a_file_says() -> None:
    """It hands a mapping over as it has read it, where it does not see which model the builder's argument is."""
    application = built_by_serve(edge, {"deployments": ["pets"], "nodes": 1})
    assert bound(application)[0][0].targets[0].app == "autovision-pets"
    (store, config, *_), _ = bound(built_by_serve(deployment, {"deployment": "pets", "cpus": 0.5}))
    assert (store, config.deployment) == ("s3://bucket/prefix", "pets")
    with pytest.raises(ValidationError, match="replica_count"):
        built_by_serve(deployment, {"deployment": "pets", "replica_count": 2})


def test_an_edge_is_on_loopback_and_asks_for_a_token_unless_it_is_told_otherwise() -> None:
    plan = plan_of(deployments=("pets", "scenes"), sleeping=("scenes",))
    assert (plan.host, plan.port, plan.require_token, plan.secret) == ("127.0.0.1", 8000, True, None)
    assert [(each.app, each.sleeps) for each in plan.targets] == [
        ("autovision-pets", False),
        ("autovision-scenes", True),
    ]


def test_edges_of_several_nodes_want_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    several = EdgeArguments(deployments=("pets",), nodes=2)
    with pytest.raises(InvalidInput, match=SECRET):
        edge(several)
    monkeypatch.setenv(SECRET, GOOD)
    (plan,), node = bound(edge(several))
    assert plan.secret == GOOD
    assert node.num_replicas == 2
    # As the replicas have it.
    (*_, identify, _, _), _ = bound(deployment(DeploymentArguments(deployment="pets")))
    assert identify.args == (plan.server, GOOD)


@pytest.mark.parametrize("secret", ["short", "has a space in it and is long", f"{GOOD}\n    stats enable"])
def test_a_secret_that_haproxy_would_not_take_is_refused(
    monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv(SECRET, secret)
    with pytest.raises(InvalidInput, match="openssl rand") as refused:
        edge(EdgeArguments(deployments=("pets",)))
    assert secret not in str(refused.value)


def test_a_deployment_scales_as_it_is_told() -> None:
    arguments = DeploymentArguments(
        deployment="pets", replicas=2, max_replicas=6, cpus=2.5, limits={"max_images": 8}
    )
    (store, config, loader, _, limits, require_token), node = bound(deployment(arguments))
    assert (store, config.deployment, config.capture, require_token) == (
        "s3://bucket/prefix",
        "pets",
        True,
        True,
    )
    assert limits.max_images == 8
    assert loader._threads == 2
    scaling = node._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 6)
    assert node.ray_actor_options["num_cpus"] == 2.5


def test_a_pinned_model_captures_nothing() -> None:
    (_, config, *_), _ = bound(deployment(DeploymentArguments(model="pets-m-1")))
    assert (config.model, config.capture) == ("pets-m-1", False)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({}, "either a deployment or a model"),
        ({"deployment": "a", "model": "b"}, "either a deployment or a model"),
        ({"deployment": "a", "replica": 2}, "replica"),
        ({"deployment": "a", "cpus": 0}, "cpus"),
        ({"deployment": "a", "server": "../elsewhere"}, "server"),
    ],
)
def test_what_a_deployment_cannot_be_told(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        DeploymentArguments(**arguments)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"replicas": 3, "max_replicas": 2}, "fewer"),
        ({"runtime": "tensorflow"}, "no runtime"),
        ({"limits": {"max_image": 1}}, "max_images"),
    ],
)
def test_what_a_deployment_cannot_be(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        deployment(DeploymentArguments(deployment="pets", **arguments))


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"deployments": ()}, "deployments"),
        ({"deployments": ("a",), "sleeping": ("b",)}, "'b' is to sleep"),
        ({"deployments": ("a",), "tls_cert": "cert.pem"}, "belong together"),
        ({"deployments": ("a",), "port": 0}, "port"),
        ({"deployments": ("a",), "hosts": "0.0.0.0"}, "hosts"),
    ],
)
def test_what_an_edge_cannot_be_told(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        EdgeArguments(**arguments)
