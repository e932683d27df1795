"""Keeping the served models equal to those that the store wants: the champion, and the challenger of a rollout."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event, Thread

from autovision.errors import AutoVisionError
from autovision.records.base import now
from autovision.serving.arms import Arms, Wanted
from autovision.serving.predicting import Predictor, Served
from autovision.serving.problems import escaped_trace
from autovision.serving.schema import FollowStatus

logger = logging.getLogger(__name__)

UNLOADABLE_ATTEMPTS = 3
"""a challenger that fails to load so often in a row is told to be unloadable, which ends its rollout"""


@dataclass(frozen=True)
class Failure:
    """A model that would not load."""

    model: str
    attempts: int
    error: str
    retry_at: datetime


def model_to_load(
    wanted: Wanted, loaded: Mapping[str, object], failures: Mapping[str, Failure], at: datetime
) -> str | None:
    """Which model to load now, the champion before a challenger; None: nothing to do."""
    for model in wanted.models:
        failure = failures.get(model)
        if model not in loaded and (failure is None or at >= failure.retry_at):
            return model
    return None


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
    """Polls what is wanted, loads it, and tells what answers, on a thread of its own.

    `desired` reads what is wanted, `load` loads a model, `apply` makes arms answer. Neither a store that is away nor a
    model that will not load disturbs what is served, and a deployment that names no model leaves alone what answers. A
    champion that was replaced stays loaded for `keep_s` seconds: a rollback needs not wait for it.
    """

    def __init__(
        self,
        desired: Callable[[], Wanted],
        load: Callable[[str], Predictor],
        apply: Callable[[Arms], None],
        *,
        poll_s: float = 0.5,
        keep_s: float = 600.0,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._desired = desired
        self._load = load
        self._apply = apply
        self._poll_s = poll_s
        self._keep_s = keep_s
        self._clock = clock
        self._wanted = Wanted()
        self._arms = Arms()
        self._loaded: dict[str, Predictor] = {}
        self._replaced: dict[str, datetime] = {}
        """champions that were replaced, and when"""
        self._failures: dict[str, Failure] = {}
        self._status = FollowStatus()
        self._looked = Event()
        self._stop = Event()
        self._thread = Thread(target=self._run, name="follow", daemon=True)

    @property
    def status(self) -> FollowStatus:
        return self._status

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def looked(self) -> bool:
        """Whether it has looked once, and loaded what there was to load, or could not."""
        return self._looked.is_set()

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
            self._looked.set()
            self._stop.wait(self._poll_s)

    def step(self) -> None:
        """Look once, load what is missing, and change what answers if it is time to."""
        if not self._look():
            return
        self._settle()
        while not self._stop.is_set():
            model = model_to_load(self._wanted, self._loaded, self._failures, self._clock())
            if model is None:
                break
            self._try(model)
            # Loading takes seconds, in which the deployment may have changed. If that cannot be known, what was wanted
            # when it was last seen is better than what is known to be outdated.
            reachable = self._look()
            self._settle()
            if not reachable:
                return
        self._report()

    def _look(self) -> bool:
        """Read what is wanted; False, and reported, if that cannot be read."""
        try:
            self._wanted = self._desired()
        except Exception as error:  # noqa: BLE001 - reported in the status, and tried again
            self._report(unreachable=_reason(error, "the deployment cannot be read"))
            return False
        self._failures = {
            model: failure
            for model, failure in self._failures.items()
            if model in self._wanted.models and model not in self._loaded
        }
        return True

    def _try(self, model: str) -> None:
        """Load a model. Who is rolled back to meanwhile, and is loaded, does not wait for it."""
        self._report(loading=model)
        loading = _Loading(self._load, model)
        loading.start()
        loading.join(self._poll_s)
        while loading.is_alive():
            if self._stop.is_set():
                return
            if self._look():
                self._settle()
                self._report(loading=model)
            loading.join(self._poll_s)
        if loading.predictor is not None:
            self._loaded[model] = loading.predictor
        else:
            self._failures[model] = next_failure(
                self._failures.get(model),
                model,
                _reason(loading.error, f"model {model!r} does not load"),
                self._clock(),
            )

    def _settle(self) -> None:
        """Let answer what is wanted and loaded, and forget what neither answers nor may soon again."""
        arms = self._wanted_arms()
        before = self._arms.stable
        if before is not None and arms.stable is not None and _model_of(arms.stable) != _model_of(before):
            self._replaced[_model_of(before)] = self._clock()
        if arms != self._arms and not self._stop.is_set():
            self._arms = arms
            self._apply(arms)
        at = self._clock()
        self._replaced = {
            model: since
            for model, since in self._replaced.items()
            if at - since < timedelta(seconds=self._keep_s)
        }
        kept = {*self._wanted.models, *self._replaced, *([_model_of(arms.stable)] if arms.stable else [])}
        self._loaded = {model: predictor for model, predictor in self._loaded.items() if model in kept}

    def _wanted_arms(self) -> Arms:
        wanted, now_ = self._wanted, self._arms
        stable = self._served(wanted.champion, now_.stable) or now_.stable
        rollout = wanted.rollout
        if rollout is None or stable is None:
            return Arms(stable, captures=wanted.captures)
        challenger = self._served(rollout.model, now_.challenger)
        failure = self._failures.get(rollout.model)
        given_up = failure is not None and failure.attempts >= UNLOADABLE_ATTEMPTS
        unloadable = failure.error if failure is not None and given_up else None
        return Arms(stable, challenger, rollout, unloadable, wanted.captures)

    def _served(self, model: str | None, before: Served | None) -> Served | None:
        """A loaded model as one that answers: since before, if it did already."""
        predictor = self._loaded.get(model) if model is not None else None
        if predictor is None:
            return None
        return (
            before
            if before is not None and before.predictor is predictor
            else Served(predictor, self._clock())
        )

    def _report(self, *, loading: str | None = None, unreachable: str | None = None) -> None:
        wanted = self._wanted
        failure = self._failures.get(wanted.champion or "")
        challenger = wanted.rollout.model if wanted.rollout else None
        behind = self._failures.get(challenger or "")
        self._status = FollowStatus(
            desired=wanted.champion,
            loading=loading,
            failed=failure.model if failure else None,
            attempts=failure.attempts if failure else 0,
            error=unreachable or (failure.error if failure else None),
            retry_at=failure.retry_at if failure else None,
            challenger=challenger,
            challenger_error=behind.error if behind else None,
        )


class _Loading(Thread):
    """Loads one model."""

    def __init__(self, load: Callable[[str], Predictor], model: str) -> None:
        super().__init__(name="load", daemon=True)
        self._load, self._model = load, model
        self.predictor: Predictor | None = None
        self.error: Exception = RuntimeError("loading was broken off")

    def run(self) -> None:
        try:
            self.predictor = self._load(self._model)
        except Exception as error:  # noqa: BLE001 - reported in the status, and tried again
            self.error = error


def _model_of(served: Served) -> str:
    return served.predictor.model.id


def _reason(error: Exception, what: str) -> str:
    """One line for people; an unexpected error's trace goes to the log."""
    if not isinstance(error, AutoVisionError):
        logger.error("%s: %s", what, escaped_trace(error))
        return f"{what}: {type(error).__name__}: {error}"
    return f"{what}: {error}"
