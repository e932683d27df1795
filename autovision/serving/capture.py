"""Remembering what was asked and answered, without ever holding up an answer.

Requests go into a bounded queue; a thread writes them in batches: the images first, then the rows that
name them, so that no row ever points at a missing image. What is still in the queue when a process is
killed is lost (at most about `every_s`, unless the store is away); a graceful stop stores it.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Condition, Thread
from time import monotonic, sleep

from autovision.errors import Conflict, StoreUnavailable
from autovision.records.base import now
from autovision.records.deployments import Capture, ShadowAnswer
from autovision.serving.predicting import Prediction
from autovision.serving.problems import escaped_trace
from autovision.serving.schema import CaptureStatus
from autovision.store import captures, put_many_immutable
from autovision.store.protocol import Store

logger = logging.getLogger(__name__)

_PASSING = (StoreUnavailable, Conflict, OSError)
"""errors that time heals; anything else would come back with the same batch"""


@dataclass(frozen=True)
class Answered:
    """A request with its answer, as the request path hands it over: nothing is computed there."""

    request_id: str
    model: str
    received_at: datetime
    latency_ms: float
    image: bytes
    """empty of pixels, which are not captured"""
    prediction: Prediction
    metadata: Mapping[str, str]
    pixels: bool = True
    """whether the image is stored, too"""
    shadow: tuple[str, Prediction] | None = None
    """the challenger that was shown the image, too, and what it said"""

    def to_capture(self, deployment: str) -> Capture:
        return Capture(
            request_id=self.request_id,
            deployment=deployment,
            model=self.model,
            received_at=self.received_at,
            latency_ms=self.latency_ms,
            image=hashlib.sha256(self.image).hexdigest(),
            image_bytes=len(self.image),
            pixels=self.pixels,
            label=self.prediction.label,
            probabilities=dict(self.prediction.probabilities),
            embedding=tuple(self.prediction.embedding.tolist()),
            metadata=dict(self.metadata),
            shadow=self.shadow and _shadow_answer(*self.shadow),
        )


def _shadow_answer(model: str, prediction: Prediction) -> ShadowAnswer:
    return ShadowAnswer(model=model, label=prediction.label, probabilities=dict(prediction.probabilities))


@dataclass(frozen=True)
class CaptureLimits:
    """How much is held, and how it is written."""

    max_items: int = 4096
    max_bytes: int = 256 * 2**20
    """images that are held in memory"""
    batch: int = 64
    """requests per write; a smaller batch is written after `every_s`"""
    every_s: float = 1.0
    retry_first_s: float = 0.5
    retry_most_s: float = 30.0
    poison_attempts: int = 3
    """after so many attempts a batch that fails for another reason than the store's absence is dropped"""


class CaptureSink:
    """A bounded queue and the thread that empties it into the store."""

    def __init__(
        self,
        store: Store,
        deployment: str,
        *,
        limits: CaptureLimits | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._store = store
        self._deployment = deployment
        self._limits = limits or CaptureLimits()
        self._clock = clock
        self._queue: deque[Answered] = deque()
        self._held_bytes = 0
        self._changed = Condition()
        self._status = CaptureStatus()
        self._flushing = 0
        self._closed = False
        self._thread = Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    @property
    def status(self) -> CaptureStatus:
        return self._status

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def offer(self, item: Answered) -> bool:
        """Take a request if there is room, at once; False (and counted) if it is dropped."""
        with self._changed:
            full = (
                self._status.pending >= self._limits.max_items
                or self._held_bytes + len(item.image) > self._limits.max_bytes
            )
            if full or self._closed:
                self._count(dropped=1)
                return False
            self._queue.append(item)
            self._held_bytes += len(item.image)
            self._count(accepted=1, pending=1)
            # The thread wakes for the first of a batch, to begin its second, and for a whole batch.
            if len(self._queue) in (1, self._limits.batch):
                self._changed.notify_all()
            return True

    def flush(self, timeout_s: float) -> bool:
        """Write what is held without waiting for a batch to fill. True if all of it is stored in time."""
        deadline = monotonic() + timeout_s
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            try:
                while self._status.pending and (left := deadline - monotonic()) > 0:
                    self._changed.wait(left)
            finally:
                self._flushing -= 1
            return not self._status.pending

    def close(self, timeout_s: float = 10.0) -> bool:
        """Take nothing more, write what is held, stop. True if nothing is left behind."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        left = self._status.pending
        if left:
            logger.error(
                "%d captured requests of %s are lost: %s", left, self._deployment, self._status.error
            )
        return not left

    def _count(self, *, accepted: int = 0, stored: int = 0, pending: int = 0, dropped: int = 0) -> None:
        """Under the lock. A new status replaces the old one, so that readers need no lock."""
        status = self._status
        self._status = status.model_copy(
            update={
                "accepted": status.accepted + accepted,
                "stored": status.stored + stored,
                "pending": status.pending + pending,
                "dropped": status.dropped + dropped,
            }
        )

    def _run(self) -> None:
        while batch := self._take():
            stored = self._write(batch)
            self._settle(batch, stored=stored)

    def _take(self) -> list[Answered]:
        """The next batch: full, or a second old, or wanted now. Empty when closed and done."""
        limits = self._limits
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            deadline = monotonic() + limits.every_s
            while (
                len(self._queue) < limits.batch
                and not self._flushing
                and not self._closed
                and (left := deadline - monotonic()) > 0
            ):
                self._changed.wait(left)
            return [self._queue.popleft() for _ in range(min(limits.batch, len(self._queue)))]

    def _settle(self, batch: Sequence[Answered], *, stored: bool) -> None:
        with self._changed:
            self._held_bytes -= sum(len(item.image) for item in batch)
            self._count(
                pending=-len(batch), **({"stored": len(batch)} if stored else {"dropped": len(batch)})
            )
            if stored:
                latest = max(item.received_at for item in batch)
                self._status = self._status.model_copy(update={"captured_through": latest, "error": None})
            self._changed.notify_all()

    def _write(self, batch: Sequence[Answered]) -> bool:
        """Store a batch, trying again while the store is away. False if it can never be stored."""
        attempt = 0
        at = self._clock()
        while True:
            attempt += 1
            try:
                self._store_batch(batch, at)
            except Exception as error:  # noqa: BLE001 - reported in the status, and tried again
                if not self._fails(error, attempt):
                    return False
            else:
                return True

    def _fails(self, error: Exception, attempt: int) -> bool:
        """Record a failed attempt and wait; False to give the batch up."""
        limits = self._limits
        reason = f"captures cannot be stored: {type(error).__name__}: {error}"
        logger.warning("attempt %d: %s", attempt, escaped_trace(error))
        pause_s = min(limits.retry_most_s, limits.retry_first_s * 2.0 ** min(attempt - 1, 16))
        with self._changed:
            self._status = self._status.model_copy(update={"error": reason})
            if not isinstance(error, _PASSING) and attempt >= limits.poison_attempts:
                return False
            closed = self._changed.wait_for(lambda: self._closed, pause_s)
        if closed:
            sleep(min(pause_s, limits.retry_first_s))
        return True

    def _store_batch(self, batch: Sequence[Answered], at: datetime) -> None:
        records = [item.to_capture(self._deployment) for item in batch]
        images = (
            (captures.image_key(record), item.image)
            for record, item in zip(records, batch, strict=True)
            if item.pixels
        )
        put_many_immutable(self._store, images)
        captures.append(self._store, self._deployment, records, at=at)
