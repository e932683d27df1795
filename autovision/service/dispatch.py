"""Giving the searches of the queue to a Ray cluster, for as long as the service runs. One of many services does it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from autovision.errors import AutoVisionError, StoreUnavailable
from autovision.search.ray_jobs import JobFleet, RayCluster
from autovision.serving.problems import escaped_trace
from autovision.store import lease
from autovision.store.lease import HeldLease
from autovision.store.protocol import Store

logger = logging.getLogger(__name__)

LEASE = "jobs"
_LEASE_S = 30.0
_EVERY_S = 2.0


class Dispatcher:
    """Turns a fleet of jobs on a thread of its own, while it has the lease.

    Args:
        tell: gets what was done, and what goes wrong, once.
    """

    def __init__(
        self, store: Store, fleet: JobFleet, tell: Callable[[str], None], every_s: float = _EVERY_S
    ) -> None:
        self._store, self._fleet, self._tell, self._every_s = store, fleet, tell, every_s
        self._over = threading.Event()
        self._held: HeldLease | None = None
        self._fault: str | None = None
        self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)

    def __enter__(self) -> Dispatcher:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(_LEASE_S)

    def _run(self) -> None:
        while not self._over.is_set():
            self._turn()
            self._over.wait(self._every_s)
        if self._held is not None:
            try:
                self._held.release()
            except StoreUnavailable:
                logger.warning("the lease %r could not be given back; it ends by itself", LEASE)

    def _turn(self) -> None:
        try:
            if self._held is None or not self._held.held:
                holder = f"{socket.gethostname()}:{os.getpid()}"
                found = lease.acquire(self._store, LEASE, holder, _LEASE_S)
                self._held = None if found is None else found.keep_alive()
            if self._held is not None:
                for line in self._fleet.turn():
                    self._tell(line)
                    self._held.ensure_held()
            self._fault = None
        except AutoVisionError as error:
            if str(error) != self._fault:
                self._fault = str(error)
                self._tell(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the next turn may do
            logger.error("searches could not be given to the cluster: %s", escaped_trace(error))


@contextmanager
def dispatching(store: Store, address: str | None, most: int, tell: Callable[[str], None]) -> Iterator[None]:
    """Searches of the queue go to the Ray cluster at `address` for the length of a block; None: they stay queued."""
    if address is None:
        yield
        return
    with Dispatcher(store, JobFleet(store, RayCluster(address, store), most), tell):
        yield
