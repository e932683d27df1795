"""Keeping the served model equal to the one that the store wants."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event, Thread

from autovision.errors import AutoVisionError
from autovision.records.base import now
from autovision.serving.predicting import Predictor
from autovision.serving.problems import escaped_trace
from autovision.serving.schema import FollowStatus

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A model that would not load."""

    model: str
    attempts: int
    error: str
    retry_at: datetime


def model_to_load(
    desired: str | None, served: str | None, failure: Failure | None, at: datetime
) -> str | None:
    """Which model to load now; None: nothing to do.

    A deployment that names no model leaves what is served alone: a server never stops answering by itself.
    """
    if desired is None or desired == served:
        return None
    if failure is not None and failure.model == desired and at < failure.retry_at:
        return None
    return desired


def next_failure(
    before: Failure | None,
    model: str,
    error: str,
    at: datetime,
    *,
    first_s: float = 1.0,
    most_s: float = 60.0,
) -> Failure:
    """The failure after another attempt: the pause doubles from `first_s` to `most_s` seconds."""
    attempts = before.attempts + 1 if before is not None and before.model == model else 1
    pause_s = min(most_s, first_s * 2.0 ** min(attempts - 1, 16))
    return Failure(model, attempts, error, at + timedelta(seconds=pause_s))


class Follower:
    """Polls what is wanted and swaps it in, on a thread of its own.

    `desired` reads the wanted model's id (None: none yet), `load` loads a model, `swap` makes a loaded one
    answer. Neither a store that is away nor a model that will not load disturbs what is served.
    """

    def __init__(
        self,
        desired: Callable[[], str | None],
        load: Callable[[str], Predictor],
        swap: Callable[[Predictor], None],
        *,
        poll_s: float = 0.5,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._desired = desired
        self._load = load
        self._swap = swap
        self._poll_s = poll_s
        self._clock = clock
        self._served: str | None = None
        self._failure: Failure | None = None
        self._status = FollowStatus()
        self._stop = Event()
        self._thread = Thread(target=self._run, name="follow", daemon=True)

    @property
    def status(self) -> FollowStatus:
        return self._status

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop following. A load that is under way is not waited for longer than `timeout_s`."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.step()
            self._stop.wait(self._poll_s)

    def step(self) -> None:
        """Look once, and load and swap if it is time to."""
        try:
            desired = self._desired()
        except Exception as error:  # noqa: BLE001 - reported in the status, and tried again
            self._report(self._status.desired, unreachable=_reason(error, "the deployment cannot be read"))
            return
        model = model_to_load(desired, self._served, self._failure, self._clock())
        if model is not None:
            self._try(model)
        elif desired == self._served:
            self._failure = None
        self._report(desired)

    def _try(self, model: str) -> None:
        self._report(model, loading=model)
        try:
            predictor = self._load(model)
        except Exception as error:  # noqa: BLE001 - reported in the status, and tried again
            self._failure = next_failure(
                self._failure, model, _reason(error, f"model {model!r} does not load"), self._clock()
            )
            return
        self._failure = None
        if not self._stop.is_set() and self._still_wanted(model):
            self._swap(predictor)
            self._served = model

    def _still_wanted(self, model: str) -> bool:
        """Loading takes seconds, in which the deployment may have been rolled back."""
        try:
            return self._desired() == model
        except Exception as error:  # noqa: BLE001 - the next poll reports it
            # What was wanted when it was last seen is better than a model that is known to be outdated.
            logger.warning("the deployment cannot be read: %s", escaped_trace(error))
            return True

    def _report(
        self, desired: str | None, *, loading: str | None = None, unreachable: str | None = None
    ) -> None:
        failure = self._failure
        self._status = FollowStatus(
            desired=desired,
            loading=loading,
            failed=failure.model if failure else None,
            attempts=failure.attempts if failure else 0,
            error=unreachable or (failure.error if failure else None),
            retry_at=failure.retry_at if failure else None,
        )


def _reason(error: Exception, what: str) -> str:
    """One line for people; an unexpected error's trace goes to the log."""
    if not isinstance(error, AutoVisionError):
        logger.error("%s: %s", what, escaped_trace(error))
        return f"{what}: {type(error).__name__}: {error}"
    return f"{what}: {error}"
