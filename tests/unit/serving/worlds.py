"""Servers to ask over real HTTP: an engine behind uvicorn on loopback, and a store in memory that can be taken away."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from autovision.errors import StoreUnavailable
from autovision.records.deployments import Deployment
from autovision.records.rollouts import Rollout, RolloutPolicy
from autovision.serving.app import build_app
from autovision.serving.engine import Engine, EngineConfig
from autovision.store import MemoryStore, keys, records

EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Breakable(MemoryStore):
    """A store that can be taken away."""

    away = False

    def get(self, key: str) -> Any:
        self._check()
        return super().get(key)

    def put_new(self, key: str, data: bytes) -> str:
        self._check()
        return super().put_new(key, data)

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("the disk is gone; bring it back")


class World:
    """A server that follows the deployment `shades`."""

    def __init__(self, make_predictor: Any, clock: Any, **config: Any) -> None:
        self.store = Breakable()
        self.predictors = {
            "m1": make_predictor("m1", 0.5),
            "m2": make_predictor("m2", 0.99),
        }
        record = Deployment(
            name="shades", dataset="shades", model=None, space={}, created_at=clock.at, updated_at=clock.at
        )
        records.create(self.store, keys.deployment("shades"), record)
        config = {"deployment": "shades", "poll_s": 0.01, "max_body_bytes": 2**20} | config
        self.engine = Engine(EngineConfig(**config), self.store, lambda store, model: self.predictors[model])

    def promote(self, model: str, *, wait: bool = True) -> None:
        records.update(
            self.store, keys.deployment("shades"), Deployment, lambda record: record.with_(model=model)
        )
        if wait:
            until(lambda: self.engine.info().model == model)

    def begin(self, model: str, policy: RolloutPolicy, at: int = 0) -> None:
        """A rollout of a challenger that is in a step of a policy."""
        rollout = Rollout(
            id=f"r{at}",
            model=model,
            steps=policy.steps(),
            at=at,
            false_alarm=0.01,
            error_margin=0.01,
            latency_ratio=2,
            began_at=EPOCH,
            step_began_at=EPOCH,
        )
        records.update(
            self.store, keys.deployment("shades"), Deployment, lambda record: record.with_(rollout=rollout)
        )
        until(lambda: self.engine.info().challenger == model)


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def running(engine: Engine, options: dict[str, Any] | None = None, **app: Any) -> Iterator[str]:
    """The URL of a server; `options` are uvicorn's, the others `build_app`'s."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(build_app(engine, **app), log_level="critical", lifespan="on", **(options or {}))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        until(lambda: server.started)
        scheme = "https" if config.is_ssl else "http"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def address(url: str) -> tuple[str, int]:
    """For a plain socket."""
    parsed = httpx.URL(url)
    assert parsed.port is not None
    return parsed.host, parsed.port


def check_problem(response: httpx.Response, status: int, kind: str, detail: str = "") -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["type"], body["status"]) == (f"urn:autovision:problem:{kind}", status)
    assert body["title"] and detail in body["detail"]


def self_signed(folder: Path) -> tuple[Path, Path]:
    """The PEM files of a certificate for `localhost` and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    today = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return files
