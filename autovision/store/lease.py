"""Leases: who alone may act, until when (Gray and Cheriton 1989, with the fencing tokens of Kleppmann 2016).

A lease is a record that changes by compare-and-swap. A holder acts only while `held` is true, and renews in
time; one that was paused for longer finds `held` false when it wakes up. What it writes elsewhere can carry
`token`, which is higher for every later holder, so that a late write is recognised. Clocks of machines that
share a store have to agree to well within the time to live.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from autovision.errors import Conflict, InvalidInput, StoreUnavailable
from autovision.records.base import now
from autovision.records.leases import Lease
from autovision.store import keys, records
from autovision.store.protocol import AlreadyExists, ETagMismatch, KeyNotFound, Store

log = logging.getLogger(__name__)


class LeaseLost(Conflict):
    """The lease has run out or passed to another holder; stop what it protected and acquire it again."""


def acquire(
    store: Store, name: str, holder: str, ttl_s: float, clock: Callable[[], datetime] = now
) -> HeldLease | None:
    """The lease `name` for `ttl_s` seconds if nobody holds it, else None.

    `holder` is for people to read and should be unique to the process: a lease that is held is given to
    nobody, not even to a holder of the same name. The token is one higher than that of the holder before.
    Raises `InvalidInput` for a `ttl_s` that is not above zero.
    """
    if not ttl_s > 0:
        raise InvalidInput(f"the lease {name!r} has a time to live of {ttl_s} s; give one above 0")
    key = keys.lease(name)
    at = clock()
    expires_at = at + timedelta(seconds=ttl_s)
    try:
        current, etag = records.read_versioned(store, key, Lease)
    except KeyNotFound:
        lease = Lease(
            name=name, holder=holder, token=1, acquisition=secrets.token_hex(8), expires_at=expires_at
        )
        try:
            etag = records.create(store, key, lease)
        except AlreadyExists:
            return None
    else:
        if at < current.expires_at:
            return None
        lease = current.with_(
            holder=holder,
            token=current.token + 1,
            acquisition=secrets.token_hex(8),
            expires_at=expires_at,
        )
        try:
            etag = store.put_if(key, lease.to_json(), etag)
        except (ETagMismatch, KeyNotFound):
            return None
    return HeldLease(store, lease, etag, ttl_s, clock)


def is_held(store: Store, name: str, clock: Callable[[], datetime] = now) -> bool:
    """Whether anybody holds the lease `name`."""
    try:
        return clock() < records.read(store, keys.lease(name), Lease).expires_at
    except KeyNotFound:
        return False


class HeldLease:
    """A lease that was acquired; as a context manager it is released at the end. Thread-safe."""

    def __init__(
        self, store: Store, lease: Lease, etag: str, ttl_s: float, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._key = keys.lease(lease.name)
        self._lease = lease
        self._etag = etag
        self._ttl_s = ttl_s
        self._clock = clock
        self._over = False
        self._unreached = False
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._renewer: threading.Thread | None = None

    @property
    def token(self) -> int:
        """The fencing token: higher than that of every earlier holder."""
        return self._lease.token

    @property
    def lease(self) -> Lease:
        """The record as last written here."""
        return self._lease

    @property
    def held(self) -> bool:
        """Whether the lease is still this holder's, by the clock and by what `renew` last saw."""
        return not self._over and self._clock() < self._lease.expires_at

    @property
    def unreached(self) -> bool:
        """Whether the store could not be reached when the lease was to be renewed last."""
        return self._unreached

    def ensure_held(self) -> None:
        """Raises `LeaseLost` unless `held`; to be called before each act that the lease protects."""
        if not self.held:
            raise LeaseLost(
                f"the lease {self._lease.name!r} (token {self.token}) is no longer held by "
                f"{self._lease.holder!r}; stop what it protected and acquire it again"
            )

    def renew(self) -> bool:
        """Hold it for the time to live from now; False if it has run out or passed to another holder.

        A lease that has run out is not revived, even if nobody took it. Raises `StoreUnavailable`; the lease
        is held until its old end then.
        """
        with self._lock:
            if not self.held:
                self._over = True
                return False
            expires_at = self._clock() + timedelta(seconds=self._ttl_s)
            try:
                self._over = not self._write(self._lease.with_(expires_at=expires_at))
            except StoreUnavailable:
                self._unreached = True
                raise
            self._unreached = False
            return not self._over

    def release(self) -> None:
        """Let the next holder have it at once. Does nothing if it is lost; raises `StoreUnavailable`."""
        self._stop.set()
        if self._renewer is not None and self._renewer is not threading.current_thread():
            self._renewer.join()
        with self._lock:
            if not self.held:
                self._over = True
                return
            self._over = True
            self._write(self._lease.with_(expires_at=self._clock()))

    def keep_alive(self) -> Self:
        """Renew in a background thread, three times per time to live, until released or lost."""
        with self._lock:
            if self._renewer is None and not self._over:
                self._renewer = threading.Thread(
                    target=self._renew_until_stopped, name=f"lease-{self._lease.name}", daemon=True
                )
                self._renewer.start()
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _write(self, lease: Lease) -> bool:
        """Replace the record if it is still ours; whether it was."""
        try:
            try:
                etag = self._store.put_if(self._key, lease.to_json(), self._etag)
            except ETagMismatch:
                # A write of ours may have arrived without its answer: it differs in its end alone.
                current, etag = records.read_versioned(self._store, self._key, Lease)
                if current.with_(expires_at=lease.expires_at) != lease:
                    return False
                etag = self._store.put_if(self._key, lease.to_json(), etag)
        except (ETagMismatch, KeyNotFound):
            return False
        self._lease, self._etag = lease, etag
        return True

    def _renew_until_stopped(self) -> None:
        while not self._stop.wait(self._ttl_s / 3):
            try:
                if not self.renew():
                    log.warning("lease %s (token %d) was lost", self._lease.name, self.token)
                    return
            except StoreUnavailable as error:
                # It may come back before the lease runs out; if not, `renew` says so at the next turn.
                log.warning("lease %s could not be renewed: %s", self._lease.name, error)
