"""Waiting until a server answers, and why it does not."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import ray
from ray import serve

from autovision.errors import AutoVisionError
from autovision.serving.client import Client
from autovision.serving.schema import Health

LOAD_ATTEMPTS = 2
"""so often a model may fail to load before `start` gives up"""


class ServerStartFailed(AutoVisionError):
    """The server did not start; the message holds the reason that its replica gave."""

    exit_code = 7


def wait_ready(url: str, cert: Path | None, expects_model: bool, deadline: float, apps: list[str]) -> None:
    """Until /v1/health says ready, or a replica says anything at all where no model is expected."""
    begun, health = monotonic(), None
    trusted = None if cert is None else exactly(cert)
    with Client(url, timeout_s=5.0, retry_for_s=0.0, tls=trusted) as client:
        while True:
            failed = _deploy_failure(apps)
            with suppress(AutoVisionError):
                health = client.health()
            if health is not None and (health.status != "waiting" or (not expects_model and health.replica)):
                return
            if health is not None and health.following.attempts >= LOAD_ATTEMPTS:
                raise ServerStartFailed(f"the server cannot load its model: {health.following.error}")
            if failed:
                raise ServerStartFailed(f"Ray Serve could not start the server: {failed}")
            if monotonic() > deadline:
                raise ServerStartFailed(
                    f"the server at {url} is not ready after {monotonic() - begun:.0f} s: {_why(health, apps)}"
                )
            sleep(0.1)


def _why(health: Health | None, apps: Sequence[str]) -> str:
    """What is known about a server that is not ready."""
    if health is not None and health.replica:
        following = health.following
        if following.error:
            return following.error
        return f"model {following.loading or following.desired!r} is still being loaded; allow it more time"
    running = serve.status().applications
    parts = [
        part.message or f"{name} is {part.status.value.lower()}"
        for app in apps
        if app in running
        for name, part in running[app].deployments.items()
        if part.status != "HEALTHY"
    ]
    free = ray.available_resources().get("CPU", 0)
    return f"{'; '.join(parts) or 'its model is still being loaded'} ({free:g} CPUs are free in Ray)"


def _deploy_failure(apps: Sequence[str]) -> str | None:
    """Serve's message if it gave up on an application."""
    running = serve.status().applications
    for status in (running[app] for app in apps if app in running):
        if status.status == "DEPLOY_FAILED":
            parts = [part.message for part in status.deployments.values() if part.message]
            return "; ".join(parts) or status.message
    return None


def exactly(cert: Path) -> ssl.SSLContext:
    """Trust in this certificate alone, under whatever name: here it is asked for by this machine's address."""
    context = ssl.create_default_context(cafile=cert)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
