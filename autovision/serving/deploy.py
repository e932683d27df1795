"""Starting and stopping the server on Ray Serve. Ray must be initialised already."""

from __future__ import annotations

import logging
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Self

import ray
from ray import serve
from ray.serve.config import BackpressureConfig, ProxyLocation
from ray.serve.schema import LoggingConfig

from autovision.errors import AutoVisionError, Conflict, InvalidInput, NotFound, near
from autovision.records.deployments import Deployment
from autovision.serving.client import Client, is_loopback
from autovision.serving.engine import EngineConfig
from autovision.serving.limits import Limits
from autovision.serving.ports import claim_port
from autovision.serving.predicting import LoadPredictor
from autovision.serving.schema import Health
from autovision.serving.server import CompiledLoader, ModelServer
from autovision.store import keys, open_store, records
from autovision.store.protocol import KeyNotFound, Store

APP = "autovision"
ONGOING_BEYOND_QUEUE = 64
"""requests that a replica holds besides its queue, so that /v1/health is answered while the queue is full"""
LOAD_ATTEMPTS = 2
"""so often a model may fail to load before `start` gives up"""


class ServerStartFailed(AutoVisionError):
    """The server did not start; the message holds the reason that its replica gave."""

    exit_code = 7


@dataclass(frozen=True)
class Tls:
    """A certificate, with those that vouch for it, and its key: PEM files that every node with a proxy must have."""

    cert: Path
    key: Path

    def check(self) -> None:
        """Raises `InvalidInput` for files that cannot be read or do not belong together."""
        try:
            # Without a password given, OpenSSL would ask for that of an encrypted key on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.cert, self.key, password="")
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(
                f"TLS with certificate {str(self.cert)!r} and key {str(self.key)!r} is not possible ({error}); "
                "give two PEM files that belong together, the key without a password"
            ) from None


@dataclass(frozen=True)
class ServerHandle:
    """A running server; a context manager that stops it."""

    url: str

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Wait until all replicas have stored what they captured; False if some could not in time."""
        handle = serve.get_app_handle(APP)
        return all(handle.broadcast("flush", timeout_s).results(timeout_s=timeout_s + 10))

    def stop(self) -> None:
        """Answer what is under way, store what is captured, stop Serve. Ray goes on."""
        serve.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def start(
    store_uri: str,
    *,
    deployment: str | None = None,
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 1,
    capture: bool = True,
    cpus: float = 1.0,
    threads: int | None = None,
    runtime: str = "auto",
    ready_timeout_s: float = 120.0,
    load: LoadPredictor | None = None,
    tls: Tls | None = None,
    require_token: bool | None = None,
    limits: Limits | None = None,
) -> ServerHandle:
    """Serve a deployment's champion, following its changes, or one pinned `model`; returns when it answers.

    A deployment that names no model yet is served too: its server answers 503 until the first promotion.

    Args:
        host, port: where every node's proxy listens; port 0: any free one.
        cpus: CPUs that each replica reserves in Ray (a reservation, not a limit).
        threads: CPU threads of each replica's inference; None: as many as there are cores.
        runtime: what runs the network; auto: the fastest that agrees with PyTorch.
        load: loads a model; None: `autovision.registry.runtimes`.
        tls: None: plain HTTP.
        require_token: whether a token is needed where the store has none, too; None: unless `host` is this
            machine's own loopback.

    Raises:
        InvalidInput: a port in use, a certificate that cannot be used, or neither or both of deployment and model.
        NotFound: no such deployment or model.
        Conflict: a server runs in this Ray already.
        ServerStartFailed: it did not answer in time, with the replica's reason.
    """
    config = EngineConfig(deployment=deployment, model=model, capture=capture)
    if replicas < 1:
        raise InvalidInput(f"{replicas} replicas cannot answer; use 1 or more")
    expects_model = _check_target(open_store(store_uri), config)
    if tls is not None:
        tls.check()
    if require_token is None:
        require_token = not is_loopback(host)
    port = claim_port(host, port)
    if serve.status().proxies:
        raise Conflict("a server already runs in this Ray cluster; stop it before another is started")
    url = _url(host, port, tls)
    application = _application(
        (store_uri, config, load or CompiledLoader(threads, runtime), _replica_name, limits, require_token),
        config,
        replicas,
        cpus,
    )
    logging_config = LoggingConfig(log_level="WARNING", enable_access_log=False)
    # Serve tells of every step on stderr, which belongs to the command line here.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        serve.start(
            proxy_location=ProxyLocation.EveryNode,
            http_options={"host": host, "port": port, **_tls_options(tls)},
            logging_config=logging_config,
        )
        target = serve.RunTarget(application, name=APP, route_prefix="/", logging_config=logging_config)
        serve.run_many([target], wait_for_applications_running=False)
        _wait_ready(url, tls, expects_model, ready_timeout_s)
    except BaseException:
        # Ctrl-C included: nothing half-started stays behind.
        serve.shutdown()
        raise
    return ServerHandle(url)


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


def _tls_options(tls: Tls | None) -> dict[str, str]:
    """Of Serve's proxies."""
    return {} if tls is None else {"ssl_keyfile": str(tls.key), "ssl_certfile": str(tls.cert)}


def _application(server: tuple[Any, ...], config: EngineConfig, replicas: int, cpus: float) -> Any:
    """The Serve application. The engine's own queue refuses first, as a problem with `Retry-After`;
    Serve's bounds behind it only protect the proxy."""
    deployment = serve.deployment(
        serve.ingress()(ModelServer),
        name="ModelServer",
        num_replicas=replicas,
        max_ongoing_requests=config.max_waiting + config.max_batch + ONGOING_BEYOND_QUEUE,
        max_queued_requests=config.max_waiting,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        max_surge_percent=100,
        max_constructor_retry_count=3,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=20,
        health_check_period_s=2,
        health_check_timeout_s=10,
        ray_actor_options={"num_cpus": cpus},
    )
    return deployment.bind(*server)


def _replica_name() -> str:
    return str(serve.get_replica_context().replica_id.unique_id)


def _wait_ready(url: str, tls: Tls | None, expects_model: bool, timeout_s: float) -> None:
    """Until /v1/health says ready, or says anything at all where no model is expected."""
    deadline = monotonic() + timeout_s
    health: Health | None = None
    trusted = None if tls is None else _exactly(tls.cert)
    with Client(url, timeout_s=5.0, retry_for_s=0.0, tls=trusted) as client:
        while True:
            failed = _deploy_failure()
            with suppress(AutoVisionError):
                health = client.health()
            if health is not None and (health.status == "ready" or not expects_model):
                return
            if health is not None and health.following.attempts >= LOAD_ATTEMPTS:
                raise ServerStartFailed(f"the server cannot load its model: {health.following.error}")
            if failed:
                raise ServerStartFailed(f"Ray Serve could not start the server: {failed}")
            if monotonic() > deadline:
                raise ServerStartFailed(
                    f"the server at {url} is not ready after {timeout_s:g} s: {_why(health)}"
                )
            sleep(0.1)


def _why(health: Health | None) -> str:
    """What is known about a server that is not ready."""
    if health is not None:
        following = health.following
        if following.error:
            return following.error
        return f"model {following.loading or following.desired!r} is still being loaded; allow it more time"
    status = serve.status().applications.get(APP)
    if status is None:
        return "Ray Serve knows nothing of it; look at Ray's logs"
    parts = [part.message for part in status.deployments.values() if part.message]
    free = ray.available_resources().get("CPU", 0)
    return f"{'; '.join(parts) or status.message or status.status} ({free:g} CPUs are free in Ray)"


def _deploy_failure() -> str | None:
    """Serve's message if it gave up on the application."""
    status = serve.status().applications.get(APP)
    if status is None or status.status != "DEPLOY_FAILED":
        return None
    return "; ".join(part.message for part in status.deployments.values() if part.message) or status.message


def _exactly(cert: Path) -> ssl.SSLContext:
    """Trust in this certificate alone, under whatever name: here it is asked for by this machine's address."""
    context = ssl.create_default_context(cafile=cert)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _url(host: str, port: int, tls: Tls | None) -> str:
    """Where a client on this machine reaches it."""
    scheme = "http" if tls is None else "https"
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"
