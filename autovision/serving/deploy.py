"""Starting and stopping the server on Ray Serve. Ray must be initialised already."""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Self

import ray
from ray import serve
from ray.serve.config import ProxyLocation
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.schema import LoggingConfig

from autovision import runtime as ray_runtime
from autovision.errors import Conflict, InvalidInput, NotFound, near
from autovision.records.deployments import Deployment
from autovision.serving.applications import APP, app_of, application, edge_application, identify
from autovision.serving.client import is_loopback
from autovision.serving.edge.edge import REPLICA
from autovision.serving.edge.plan import RESERVED, EdgePlan, Target
from autovision.serving.engine import EngineConfig
from autovision.serving.limits import Limits
from autovision.serving.ports import claim_port
from autovision.serving.predicting import LoadPredictor
from autovision.serving.readiness import wait_ready
from autovision.serving.scaling import Scaling
from autovision.serving.server import CompiledLoader
from autovision.serving.tls import Tls
from autovision.store import keys, open_store, records
from autovision.store.protocol import KeyNotFound, Store


@dataclass(frozen=True)
class ServerHandle:
    """A running server; a context manager that stops it.

    Attributes:
        urls: where each deployment, or pinned model, answers; `url` is the server's own.
    """

    url: str
    urls: Mapping[str, str]
    edge: str
    """its application on Serve"""

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Wait until all replicas have stored what they captured; False if some could not in time."""
        stored = []
        for name in self.urls:
            handle = serve.get_deployment_handle(REPLICA, app_of(name))
            with suppress(DeploymentUnavailableError):  # it sleeps
                stored += handle.broadcast("flush", timeout_s).results(timeout_s=timeout_s + 10)
        return all(stored)

    def stop(self) -> None:
        """Answer what is under way, store what is captured. Serve stops if it serves nothing else; Ray goes on."""
        _stop([self.edge, *(app_of(name) for name in self.urls)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def start(
    store_uri: str,
    *,
    deployment: str | Sequence[str] = (),
    model: str | Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
    scaling: Scaling | None = None,
    capture: bool = True,
    cpus: float = 1.0,
    threads: int | None = None,
    runtime: str = "auto",
    ready_timeout_s: float = 120.0,
    load: LoadPredictor | None = None,
    tls: Tls | None = None,
    require_token: bool | None = None,
    limits: Limits | None = None,
    again: bool = False,
) -> ServerHandle:
    """Serve champions of deployments, following their changes, and pinned models; returns when they answer.

    A deployment that names no model yet is served too: it answers 503 until the first promotion.

    Args:
        deployment, model: one or several. Where there is but one, paths need not begin with its name.
        host, port: where every node's edge listens; port 0: any free one.
        scaling: of each; None: one replica.
        cpus: CPUs that each replica reserves in Ray (a reservation, not a limit).
        threads: CPU threads of each replica's inference; None: as many as there are cores.
        runtime: what runs the network; auto: the fastest that agrees with PyTorch.
        load: loads a model; None: `autovision.registry.runtimes`.
        tls: None: plain HTTP.
        require_token: whether a token is needed where the store has none, too; None: unless `host` is this
            machine's own loopback.
        again: whether an earlier process did the same: what is left of it in the cluster goes on as it is if all of
            it is there, and is stopped first if a part is missing.

    Raises:
        InvalidInput: a port in use, a certificate that cannot be used, or nothing to serve.
        NotFound: no such deployment or model.
        Conflict: one of them is served in this Ray already.
        ServerStartFailed: they did not answer in time, with a replica's reason.
    """
    scaling, limits = scaling or Scaling(), limits or Limits()
    configs = _configs(deployment, model, capture, limits)
    expects = {_name(config): _check_target(open_store(store_uri), config) for config in configs}
    if tls is not None:
        tls.check()
    if require_token is None:
        require_token = not is_loopback(host)
    if not again:
        port = claim_port(host, port)
        _check_free(expects)
    elif (handle := _left(host, port, tls, list(expects))) is not None:
        _wait_ready(handle, tls, expects, ready_timeout_s)
        return handle
    else:
        port = _claim_again(host, port, ready_timeout_s)
    server = secrets.token_hex(6)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    # Of an embedded Ray there is one node for good: nothing listens on the network but what was asked for.
    grows = len(nodes) > 1 or not ray_runtime.is_embedded()
    secret = secrets.token_urlsafe(24) if grows else None
    targets = tuple(Target(name, app_of(name), sleeps=scaling.least == 0) for name in expects)
    plan = EdgePlan(
        server,
        store_uri,
        host,
        port,
        targets,
        cert=None if tls is None else tls.cert.absolute(),
        key=None if tls is None else tls.key.absolute(),
        secret=secret,
        require_token=require_token,
        limits=limits,
    )
    edge = f"{APP}-edge-{port}"
    handle = ServerHandle(*_urls(host, port, tls, list(expects)), edge)
    identity = functools.partial(identify, server, secret)
    logging_config = LoggingConfig(log_level="WARNING", enable_access_log=False)
    # Serve tells of every step on stderr, which belongs to the command line here.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    apps = {}
    for config in configs:
        # Each gets a loader of its own: one remembers whether it has loaded anything.
        loader = load or CompiledLoader(threads, runtime)
        arguments = (store_uri, config, loader, identity, limits, require_token)
        apps[app_of(_name(config))] = application(arguments, scaling, cpus)
    apps[edge] = edge_application(plan, len(nodes), grows=grows)
    try:
        # No proxy of Serve's: each node has an edge, and replicas listen by themselves.
        serve.start(proxy_location=ProxyLocation.Disabled, logging_config=logging_config)
        run = [
            serve.RunTarget(application, name=name, route_prefix=None, logging_config=logging_config)
            for name, application in apps.items()
        ]
        serve.run_many(run, wait_for_applications_running=False)
    except BaseException:
        # Ctrl-C included: nothing half-started stays behind.
        handle.stop()
        raise
    _wait_ready(handle, tls, expects, ready_timeout_s)
    return handle


def _wait_ready(handle: ServerHandle, tls: Tls | None, expects: Mapping[str, bool], timeout_s: float) -> None:
    """Return when all answer; whatever keeps one from it, or Ctrl-C, leaves nothing behind."""
    deadline, cert = monotonic() + timeout_s, None if tls is None else tls.cert.absolute()
    try:
        for name, url in handle.urls.items():
            wait_ready(url, cert, expects[name], deadline, [app_of(name), handle.edge])
    except BaseException:
        handle.stop()
        raise


def _left(host: str, port: int, tls: Tls | None, names: Sequence[str]) -> ServerHandle | None:
    """What an earlier process of the same server left, if it is whole; else what is left of it is stopped."""
    handle = ServerHandle(*_urls(host, port, tls, names), f"{APP}-edge-{port}")
    ours = [handle.edge, *map(app_of, names)]
    running = serve.status().applications
    if all(each in running for each in ours):
        return handle
    _stop([each for each in ours if each in running])
    return None


def _claim_again(host: str, port: int, patience_s: float) -> int:
    """A port that an edge of before may hold for a moment yet. Raises `InvalidInput` if somebody keeps it."""
    deadline = monotonic() + patience_s
    while True:
        try:
            return claim_port(host, port)
        except InvalidInput:
            if monotonic() > deadline:
                raise
        sleep(0.5)


def _configs(
    deployment: str | Sequence[str], model: str | Sequence[str], capture: bool, limits: Limits
) -> list[EngineConfig]:
    """Raises `InvalidInput` for nothing, for a name that is given twice, and for one that would hide routes."""
    deployments = [deployment] if isinstance(deployment, str) else list(deployment)
    models = [model] if isinstance(model, str) else list(model)
    names = deployments + models
    if not names:
        raise InvalidInput("nothing to serve; name a deployment or a model")
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidInput(f"{sorted(twice)[0]!r} is given twice; name each once")
    if len(names) > 1 and (hidden := RESERVED.intersection(names)):
        raise InvalidInput(
            f"{sorted(hidden)[0]!r} begins paths of the server itself; serve it alone, or under another name"
        )
    more: dict[str, Any] = {
        "capture": capture, "max_body_bytes": limits.max_body_bytes, "max_waiting": limits.max_waiting
    }  # fmt: skip
    return [
        *(EngineConfig(deployment=name, **more) for name in deployments),
        *(EngineConfig(model=name, **more) for name in models),
    ]


def _name(config: EngineConfig) -> str:
    name = config.deployment or config.model
    assert name is not None
    return name


def _check_free(names: Iterable[str]) -> None:
    running = serve.status().applications
    for name in names:
        if app_of(name) in running:
            raise Conflict(
                f"{name!r} already runs in this Ray cluster; stop its server before another is started"
            )


def _check_target(store: Store, config: EngineConfig) -> bool:
    """Whether a model is there to be loaded. Raises `NotFound` for what does not exist."""
    if config.model is not None:
        if not store.exists(keys.model(config.model)):
            known = _names(store, keys.MODELS)
            raise NotFound(
                f"no model {config.model!r} in {store.uri}{near(config.model, known)}; "
                "`autovision model list` shows them"
            )
        return True
    assert config.deployment is not None
    try:
        return records.read(store, keys.deployment(config.deployment), Deployment).model is not None
    except KeyNotFound:
        known = _names(store, keys.DEPLOYMENTS)
        raise NotFound(
            f"no deployment {config.deployment!r} in {store.uri}{near(config.deployment, known)}; "
            "promote a model first, or serve a model by its id"
        ) from None


def _names(store: Store, prefix: str) -> set[str]:
    return {key.removeprefix(prefix).split("/")[0] for key in store.list(prefix)}


def _stop(apps: Sequence[str]) -> None:
    """Stop applications one after the other, the edge first; and Serve, if nothing else runs on it."""
    for app in apps:
        with suppress(RayServeException):
            serve.delete(app)
    if not serve.status().applications:
        serve.shutdown()


def _urls(host: str, port: int, tls: Tls | None, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The server's URL, and that of each target."""
    url = _url(host, port, tls)
    return url, {name: url if len(names) == 1 else f"{url}/{name}" for name in names}


def _url(host: str, port: int, tls: Tls | None) -> str:
    """Where a client on this machine reaches it."""
    scheme = "http" if tls is None else "https"
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"
