"""The server as a configuration file of Ray Serve's declares it, for `serve deploy` and KubeRay's RayService.

`autovision serve` starts the same applications from a process that stays; here whoever applies the file keeps them in
order. Each application's `import_path` names one of the two builders, whose `args` are checked before anything starts.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from autovision.errors import InvalidInput
from autovision.records.runtimes import AUTO, check_choice
from autovision.serving.applications import app_of, application, edge_application, identify
from autovision.serving.edge.plan import EdgePlan, Target
from autovision.serving.engine import EngineConfig
from autovision.serving.limits import Limits
from autovision.serving.scaling import scaling_of
from autovision.serving.server import CompiledLoader

SECRET = "AUTOVISION_EDGE_SECRET"
"""in the environment of every node where there are several: what edges say to replicas on other nodes"""
SERVER = "declared"
"""names the folder of sockets on each node"""


def _store_of_the_node() -> str:
    return os.environ.get("AUTOVISION_STORE", "")


class _Arguments(BaseModel):
    """What both builders are told. A name that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    store: str = Field(default_factory=_store_of_the_node, min_length=1)
    """URI of the store; without it what `AUTOVISION_STORE` says on the nodes"""
    server: str = Field(default=SERVER, pattern=r"^[a-z0-9-]{1,16}$")
    """the same in all applications of one server; another one where several are on the same nodes"""
    require_token: bool = True
    limits: dict[str, float] = {}
    """of each replica, by name; see `autovision.serving.limits.Limits`"""

    def checked_limits(self) -> Limits:
        return Limits.parse(f"{name}={number:g}" for name, number in self.limits.items())


class DeploymentArguments(_Arguments):
    """Of one deployment, or of a model that is served for good; exactly one is named."""

    deployment: str | None = None
    model: str | None = None
    replicas: int = 1
    max_replicas: int | None = None
    """None: always as many as `replicas`"""
    wait_ms: float = 100.0
    """images that wait longer on the average call for a replica"""
    idle_s: float | None = None
    """None: some replica is always there; else the edge has to name it among `sleeping`"""
    cpus: float = Field(default=1.0, gt=0)
    """that each replica reserves, and computes with"""
    runtime: str = AUTO
    capture: bool = True

    @model_validator(mode="after")
    def _names_one(self) -> DeploymentArguments:
        if (self.deployment is None) == (self.model is None):
            raise ValueError("name either a deployment or a model")
        return self


class EdgeArguments(_Arguments):
    """Of the edges, one on each node."""

    deployments: Annotated[tuple[str, ...], Field(min_length=1)]
    """names of deployments, or ids of models, as their applications have them: `autovision-NAME`"""
    sleeping: tuple[str, ...] = ()
    """those with an `idle_s`"""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    nodes: int = Field(default=1, ge=1)
    """how many edges there are"""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    """PEM files that every node has"""

    @model_validator(mode="after")
    def _belongs_together(self) -> EdgeArguments:
        if unknown := set(self.sleeping) - set(self.deployments):
            raise ValueError(f"{sorted(unknown)[0]!r} is to sleep, but is not among the deployments")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together; give both, or none for plain HTTP")
        return self


def deployment(arguments: Mapping[str, Any] | DeploymentArguments) -> Any:
    """The application of one deployment or model; to be called `autovision-NAME`.

    Args:
        arguments: as Ray Serve has read them from the file, or checked already.

    Raises:
        ValidationError: arguments that there are not, or that do not go together.
        InvalidInput: numbers of replicas that are no range, an unknown runtime or an unknown limit.
    """
    arguments = DeploymentArguments.model_validate(arguments)
    limits = arguments.checked_limits()
    check_choice(arguments.runtime)
    config = EngineConfig(
        deployment=arguments.deployment,
        model=arguments.model,
        capture=arguments.capture and arguments.deployment is not None,
        max_body_bytes=limits.max_body_bytes,
        max_waiting=limits.max_waiting,
    )
    scaling = scaling_of(arguments.replicas, arguments.max_replicas, arguments.wait_ms, arguments.idle_s)
    # A container sees all cores of its node; more threads than it has CPUs would wait for each other.
    loader = CompiledLoader(max(1, int(arguments.cpus)), arguments.runtime)
    identity = functools.partial(identify, arguments.server, _secret())
    server = (arguments.store, config, loader, identity, limits, arguments.require_token)
    return application(server, scaling, arguments.cpus)


def edge(arguments: Mapping[str, Any] | EdgeArguments) -> Any:
    """The application of the edges.

    Args:
        arguments: as Ray Serve has read them from the file, or checked already.

    Raises:
        ValidationError: arguments that there are not, or that do not go together.
        InvalidInput: several nodes without a secret, or an unknown limit.
    """
    arguments = EdgeArguments.model_validate(arguments)
    secret = _secret()
    if arguments.nodes > 1 and secret is None:
        raise InvalidInput(
            f"{arguments.nodes} edges reach replicas over the network, and have to say a secret there; set {SECRET} "
            "on every node, in Kubernetes from a Secret"
        )
    plan = EdgePlan(
        arguments.server,
        arguments.store,
        arguments.host,
        arguments.port,
        tuple(
            Target(name, app_of(name), sleeps=name in arguments.sleeping) for name in arguments.deployments
        ),
        cert=arguments.tls_cert,
        key=arguments.tls_key,
        secret=secret,
        require_token=arguments.require_token,
        limits=arguments.checked_limits(),
    )
    return edge_application(plan, arguments.nodes, grows=False)


def _secret() -> str | None:
    """Raises `InvalidInput` for one that can be guessed, or that HAProxy's configuration would not take."""
    secret = os.environ.get("AUTOVISION_EDGE_SECRET")
    if secret is not None and not re.fullmatch(r"[A-Za-z0-9_-]{24,}", secret):
        raise InvalidInput(
            f"{SECRET} has to be at least 24 letters, digits, - and _; make one with `openssl rand -hex 24`"
        )
    return secret
