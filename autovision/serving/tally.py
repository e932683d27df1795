"""Counting what both arms do during a rollout, and writing the counts where whoever decides will read them.

Each replica has a record of its own, which it alone writes, anew and as a whole: nothing is counted twice, whatever is
retried, and what a replica counted before it was killed stays.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event, Lock, Thread

from autovision.records.base import now
from autovision.records.rollouts import LATENCY_EDGES_S, ArmCounts, ReplicaCounts
from autovision.serving.problems import escaped_trace
from autovision.store import keys, records
from autovision.store.protocol import Store

logger = logging.getLogger(__name__)


@dataclass
class _Arm:
    answered: int = 0
    failed: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_EDGES_S) + 1))

    def counts(self) -> ArmCounts:
        return ArmCounts(answered=self.answered, failed=self.failed, latency=tuple(self.latency))


class Tally:
    """Counts of one rollout on one replica. Thread-safe."""

    def __init__(self, rollout: str, replica: str) -> None:
        self.rollout = rollout
        self._replica = replica
        self._lock = Lock()
        self._arms = {False: _Arm(), True: _Arm()}
        self._compared = self._agreed = self._dropped = 0
        self._unloadable: str | None = None
        self.changed = True
        """since it was last written; the first is written at once, so that it is seen who takes part"""

    def answered(self, *, challenger: bool, seconds: float) -> None:
        """An arm answered, after so many seconds in its queue and its model; of a shadow, in its model alone."""
        with self._lock:
            arm = self._arms[challenger]
            arm.answered += 1
            arm.latency[bisect_left(LATENCY_EDGES_S, seconds)] += 1
            self.changed = True

    def failed(self, *, challenger: bool) -> None:
        with self._lock:
            self._arms[challenger].failed += 1
            self.changed = True

    def compared(self, *, agreed: bool) -> None:
        """Champion and shadow answered the same request."""
        with self._lock:
            self._compared += 1
            self._agreed += agreed
            self.changed = True

    def dropped(self) -> None:
        """There was no room for a copy."""
        with self._lock:
            self._dropped += 1
            self.changed = True

    def unloadable(self, why: str | None) -> None:
        """The challenger cannot be loaded here, or can after all."""
        with self._lock:
            self.changed = self.changed or why != self._unloadable
            self._unloadable = why

    def record(self, at: datetime) -> ReplicaCounts:
        """What was counted so far; it counts as written."""
        with self._lock:
            self.changed = False
            return ReplicaCounts(
                rollout=self.rollout,
                replica=self._replica,
                stable=self._arms[False].counts(),
                challenger=self._arms[True].counts(),
                compared=self._compared,
                agreed=self._agreed,
                dropped=self._dropped,
                unloadable=self._unloadable,
                at=at,
            )


class TallyWriter:
    """Writes the tally of the moment every `every_s` seconds, on a thread of its own."""

    def __init__(
        self,
        store: Store,
        deployment: str,
        replica: str,
        *,
        every_s: float = 1.0,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._store = store
        self._deployment = deployment
        self._replica = replica
        self._every_s = every_s
        self._clock = clock
        self._tally: Tally | None = None
        self._stop = Event()
        self._thread = Thread(target=self._run, name="tally", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def of(self, rollout: str) -> Tally:
        """The tally of a rollout: the one there is, or a new one. What was counted in another is written before."""
        before = self._tally
        if before is not None and before.rollout == rollout:
            return before
        if before is not None:
            self.write()
        self._tally = Tally(rollout, self._replica)
        return self._tally

    def write(self) -> None:
        """Write the counts if there is anything new; a store that is away is asked again later."""
        tally = self._tally
        if tally is None or not tally.changed:
            return
        key = keys.replica_counts(self._deployment, tally.rollout, self._replica)
        try:
            counts = tally.record(self._clock())
            _, fresh = records.create_or_read(self._store, key, counts)
            if not fresh:
                records.update(self._store, key, ReplicaCounts, lambda before: counts)
        except Exception as error:  # noqa: BLE001 - nothing here may end the thread; the counts are written later
            tally.changed = True
            logger.warning("what a rollout does cannot be written: %s", escaped_trace(error))

    def close(self, timeout_s: float = 5.0) -> None:
        self._stop.set()
        self._thread.join(timeout_s)
        self.write()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.write()
