"""What runs on Ray Serve: an application for each deployment or pinned model, and one for the edge."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from autovision.serving.edge.edge import REPLICA, Edge
from autovision.serving.edge.places import server_folder
from autovision.serving.edge.plan import EdgePlan
from autovision.serving.scaling import (
    DOWN_AFTER_S,
    GONE_S,
    LOOK_BACK_S,
    NODES_S,
    TELL_S,
    UP_AFTER_S,
    Scaling,
)
from autovision.serving.server import Identity, ModelServer

APP = "autovision"
MOST_NODES = 1000


def app_of(name: str) -> str:
    """The application on Serve of a deployment or a pinned model."""
    return f"{APP}-{name}"


def application(server: tuple[Any, ...], scaling: Scaling, cpus: float) -> Any:
    """The Serve application of one target. Requests do not pass through Serve, so that its bounds never bind."""
    replicas: dict[str, Any] = {"num_replicas": scaling.least}
    if not scaling.fixed:
        replicas = {"autoscaling_config": _autoscaling(scaling)}
    deployment = serve.deployment(
        ModelServer,
        name=REPLICA,
        **replicas,
        max_constructor_retry_count=3,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=40,
        health_check_period_s=2,
        health_check_timeout_s=10,
        ray_actor_options={"num_cpus": cpus},
    )
    return deployment.bind(*server)


def _autoscaling(scaling: Scaling) -> AutoscalingConfig:
    return AutoscalingConfig(
        min_replicas=scaling.least,
        initial_replicas=max(1, scaling.least),
        max_replicas=scaling.most,
        # Deprecated; but what is to replace it is the environment of each replica's process.
        metrics_interval_s=TELL_S,
        look_back_period_s=LOOK_BACK_S,
        upscale_delay_s=UP_AFTER_S,
        downscale_delay_s=DOWN_AFTER_S,
        downscale_to_zero_delay_s=max(0.0, scaling.idle_s - LOOK_BACK_S),
        policy=AutoscalingPolicy(
            policy_function="autovision.serving.scaling:ScalingPolicy", policy_kwargs=asdict(scaling)
        ),
    )


def edge_application(plan: EdgePlan, nodes: int, *, grows: bool) -> Any:
    """The edge of every node.

    Args:
        nodes: how many there are.
        grows: whether others may join, or some of them go.
    """
    replicas: dict[str, Any] = {"num_replicas": nodes}
    if grows:
        replicas = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=1,
                initial_replicas=nodes,
                max_replicas=MOST_NODES,
                metrics_interval_s=TELL_S,
                look_back_period_s=NODES_S,
                upscale_delay_s=NODES_S,
                downscale_delay_s=GONE_S,
                policy=AutoscalingPolicy(policy_function="autovision.serving.scaling:OneOnEachNode"),
            )
        }
    deployment = serve.deployment(
        Edge,
        name="Edge",
        **replicas,
        max_replicas_per_node=1,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=40,
        health_check_period_s=1,
        health_check_timeout_s=10,
        ray_actor_options={"num_cpus": 0},
    )
    return deployment.bind(plan)


def identify(server: str, secret: str | None) -> Identity:
    """Called in a replica's process."""
    replica = str(serve.get_replica_context().replica_id.unique_id)
    node = str(ray.get_runtime_context().get_node_id())
    host = ray.util.get_node_ip_address() if secret is not None else None
    return Identity(replica, node, server_folder(server) / f"{replica}.sock", host, secret)
