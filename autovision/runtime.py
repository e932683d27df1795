"""Connecting to Ray: the only place that calls `ray.init`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from autovision.errors import AutoVisionError

_QUIET = {
    # Tune would write CSV, JSON and TensorBoard files of every trial; the ledger in the store is the record.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Interrupts are handled by the search itself, which stops its trials and keeps what they have.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
}

_LOOK_S = 0.2

# Read when gRPC is loaded, which `import ray` does: it would tell on stderr of every fork in this process.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


class RayUnavailable(AutoVisionError):
    """Ray cannot be reached; check RAY_ADDRESS, and that the cluster's head runs."""

    exit_code = 7


def connect(address: str | None = None) -> None:
    """Connect to the Ray cluster at `address` (or `RAY_ADDRESS`), or start an embedded one; once per process.

    Raises `RayUnavailable`.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if address is None:
        # Trials exchange records through the store, so the object store of an embedded Ray stays small.
        settings |= {"include_dashboard": False, "object_store_memory": _object_store_bytes()}
    at = f"at {address}" if address else "of this machine"
    # Ray puts its own handler in the place of whatever the caller does on SIGTERM.
    main = threading.current_thread() is threading.main_thread()
    on_terminate = signal.getsignal(signal.SIGTERM) if main else None
    try:
        ray.init(address=address or "local", namespace="autovision", runtime_env=_environment(), **settings)
    except Exception as error:
        said = " ".join(str(error).split())[:300].rstrip(".")
        remedy = (
            "check the address, that its head runs, and that a node of it runs on this machine"
            if address
            else "this machine may be too busy, or short of memory; try again"
        )
        raise RayUnavailable(f"Ray {at} cannot be used: {said}; {remedy}") from error
    # What Ray prints of its own processes goes to stdout, where `--json` has to stand alone; its log files keep it.
    ray._private.worker._worker_logs_enabled = False
    if on_terminate is not None:
        signal.signal(signal.SIGTERM, on_terminate)


def is_embedded() -> bool:
    """Whether this process is connected to a Ray that it started itself, which has one node for good."""
    import ray

    node = ray._private.worker._global_node
    return ray.is_initialized() and node is not None and bool(node.head)


@contextlib.contextmanager
def when_lost(act: Callable[[], None]) -> Iterator[None]:
    """During a block: once an embedded Ray has ended without this process, do this, on a thread of its own.

    Whoever asks such a Ray for anything waits for a minute, and is ended by Ray then.
    """
    import ray

    node, over = ray._private.worker._global_node, threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_S):
            if any(kind in ("gcs_server", "raylet") for kind, _ in node.dead_processes()):
                # One of them may wait for the other, which is gone.
                node.kill_all_processes(check_alive=False, allow_graceful=False)
                act()
                return

    if is_embedded():
        threading.Thread(target=watch, name="own-ray", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def disconnect() -> None:
    """Leave the cluster; an embedded Ray ends."""
    import ray

    if ray.is_initialized():
        ray.shutdown()


@contextlib.contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Connected for the length of a block; a connection that was there before stays."""
    import ray

    mine = not ray.is_initialized()
    connect(address)
    try:
        yield
    finally:
        if mine:
            disconnect()


def _object_store_bytes() -> int:
    shared = psutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0
    return max(80 << 20, min(512 << 20, shared // 4 or 128 << 20))


def _environment() -> dict[str, Any]:
    """Environment variables that workers on other nodes need as this process has them.

    Credentials are not among them: Ray keeps and shows what it is told here. Nodes have their own, or a role.
    """
    names = (
        "AUTOVISION_WEIGHTS",
        "AUTOVISION_STORE",
        "AUTOVISION_STORE_CACHE",
        "AUTOVISION_FEATURE_BUDGET",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
    )
    return {"env_vars": {name: os.environ[name] for name in names if name in os.environ}}
