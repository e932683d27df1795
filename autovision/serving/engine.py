"""One server without its HTTP: the model of the moment, the queue, the follower, the captures, the counts."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter

from autovision.errors import InvalidInput, near
from autovision.records.base import now
from autovision.records.deployments import Deployment, Label
from autovision.serving.batcher import Batcher
from autovision.serving.capture import Answered, CaptureSink
from autovision.serving.follower import Follower
from autovision.serving.metrics import STABLE, Metrics, confidence_of
from autovision.serving.predicting import Input, LoadPredictor, Predictor, Served
from autovision.serving.problems import (
    InvalidFeedback,
    NoDeployment,
    NoModel,
    QueueFull,
    UnknownLabel,
    shape_of,
)
from autovision.serving.schema import Answer, Feedback, FeedbackReceipt, Health, ServerInfo
from autovision.store import keys, labels, records
from autovision.store.protocol import KeyNotFound, Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineConfig:
    """What to serve. Exactly one of `deployment` and `model` is given."""

    deployment: str | None = None
    """follow this deployment's champion"""
    model: str | None = None
    """serve this model whatever any deployment says; nothing is captured, no label is taken"""
    capture: bool = True
    max_body_bytes: int = 32 * 2**20
    max_batch: int = 16
    max_waiting: int = 128
    """requests in the queue; more are refused with 503"""
    poll_s: float = 0.5
    """how often the deployment is looked at"""

    def __post_init__(self) -> None:
        if (self.deployment is None) == (self.model is None):
            raise InvalidInput(
                f"serve either a deployment or a model, not deployment {self.deployment!r} "
                f"and model {self.model!r}"
            )


class Engine:
    """Answers images with the model that the store wants. `start` before use, `close` after."""

    def __init__(
        self,
        config: EngineConfig,
        store: Store,
        load: LoadPredictor,
        *,
        replica: str = "local",
        clock: Callable[[], datetime] = now,
    ) -> None:
        self.config = config
        self._store = store
        self._clock = clock
        self._replica = replica
        self._started_at = clock()
        self._served: Served | None = None
        self._swaps = 0
        self._requests = 0
        self._answered = 0
        self._errors: Counter[str] = Counter()
        self.metrics = Metrics(replica, self.info)
        self._batcher = Batcher(
            self._predictor,
            max_batch=config.max_batch,
            max_waiting=config.max_waiting,
            observe_batch=self.metrics.observe_batch,
        )
        self._follower = Follower(
            self._desired, lambda model: load(store, model), self._swap, poll_s=config.poll_s, clock=clock
        )
        captures = config.capture and config.deployment is not None
        self._sink = CaptureSink(store, config.deployment or "", clock=clock) if captures else None
        # Its own threads: labels that wait for a slow store must not hold up anything else.
        self._labelling = ThreadPoolExecutor(4, thread_name_prefix="label")

    def start(self) -> None:
        self._follower.start()

    def close(self, timeout_s: float = 10.0) -> None:
        """Answer what waits, store what is captured, stop all threads."""
        self._follower.close(timeout_s=1.0)
        self._batcher.close(timeout_s)
        self._labelling.shutdown(wait=True)
        if self._sink is not None:
            self._sink.close(timeout_s)

    def check(self) -> None:
        """Raises RuntimeError if a thread died: the process must be replaced then."""
        parts = {"batcher": self._batcher.alive, "follower": self._follower.alive}
        if self._sink is not None:
            parts["capture"] = self._sink.alive
        if dead := [name for name, alive in parts.items() if not alive]:
            raise RuntimeError(f"threads died: {', '.join(dead)}")

    @property
    def served(self) -> Served | None:
        """The predictor of the moment; None: no model is loaded yet."""
        return self._served

    def admit(self, images: int = 1) -> None:
        """Raises `NoModel` or `QueueFull` where reading the body, or asking about so many, would be in vain."""
        if self._served is None:
            raise NoModel(self._follower.status.error or _waiting_reason(self.config.deployment))
        if self._batcher.waiting + images > self.config.max_waiting:
            raise QueueFull

    async def answer(
        self, image: bytes, metadata: Mapping[str, str], received_at: datetime, begun: float
    ) -> Answer:
        """The answer for an image, captured if capturing is on.

        `begun` is `perf_counter()` when the request came in. Raises what `Batcher.predict` raises.
        """
        return answer_of(await self.ask(image, metadata, received_at, begun))

    async def ask(
        self, image: Input, metadata: Mapping[str, str], received_at: datetime, begun: float
    ) -> Answered:
        """Like `answer`, with all that the model said. Pixels are answered and not captured: they are no image."""
        try:
            predicted = await self._batcher.predict(image)
        except Exception as error:
            asked = self._served.predictor.model.id if self._served else ""
            kind, took_s = shape_of(error).kind, perf_counter() - begun
            self.metrics.observe(arm=STABLE, model=asked, kind=kind, latency_s=took_s)
            raise
        prediction, model, took_s = predicted.prediction, predicted.model.id, perf_counter() - begun
        request_id = keys.timestamped_id(received_at)
        encoded = image if isinstance(image, bytes) else b""
        answered = Answered(request_id, model, received_at, took_s * 1000, encoded, prediction, metadata)
        if self._sink is not None and encoded:
            self._sink.offer(answered)
        self._answered += 1
        confidence = confidence_of(prediction)
        self.metrics.observe(arm=STABLE, model=model, latency_s=took_s, confidence=confidence)
        return answered

    async def label(self, feedback: Sequence[Feedback]) -> FeedbackReceipt:
        """Store labels; they are durable when this returns.

        Raises `UnknownLabel` or `InvalidFeedback` (then none is stored), `NoDeployment`, `NoModel`,
        `StoreUnavailable`.
        """
        deployment = self.config.deployment
        if deployment is None:
            raise NoDeployment
        if self._served is None:
            raise NoModel
        model = self._served.predictor.model
        check_labels(feedback, model.classes, multi_label=model.multi_label)
        at = self._clock()
        rows = [Label(**item.model_dump(), received_at=at) for item in feedback]
        loop = asyncio.get_running_loop()
        new = await loop.run_in_executor(
            self._labelling, lambda: sum(labels.add(self._store, deployment, row) for row in rows)
        )
        return FeedbackReceipt(accepted=len(rows), new=new)

    def count_request(self, images: int = 1) -> None:
        self._requests += images

    def count_error(self, error: Exception) -> None:
        self._errors[shape_of(error).kind] += 1

    def health(self) -> Health:
        served = self._served
        return Health(
            status="ready" if served else "waiting",
            model=served.predictor.model.id if served else None,
            following=self._follower.status,
        )

    def info(self) -> ServerInfo:
        served = self._served
        return ServerInfo(
            model=served.predictor.model.id if served else None,
            classes=served.predictor.model.classes if served else (),
            since=served.since if served else None,
            deployment=self.config.deployment,
            replica=self._replica,
            started_at=self._started_at,
            swaps=self._swaps,
            requests=self._requests,
            answered=self._answered,
            errors=dict(self._errors),
            waiting=self._batcher.waiting,
            following=self._follower.status,
            captures=self._sink.status if self._sink else None,
        )

    def flush(self, timeout_s: float) -> bool:
        """Store what is captured now. True if nothing is pending any more."""
        return self._sink is None or self._sink.flush(timeout_s)

    def _predictor(self) -> Predictor | None:
        served = self._served
        return served.predictor if served else None

    def _swap(self, predictor: Predictor) -> None:
        replaced = self._served is not None
        # One assignment: a batch reads it once, so it sees the old model or the new one, never a mix.
        self._served = Served(predictor, self._clock())
        self._swaps += replaced
        logger.info("model %s answers", predictor.model.id)

    def _desired(self) -> str | None:
        if self.config.model is not None:
            return self.config.model
        assert self.config.deployment is not None
        try:
            return records.read(self._store, keys.deployment(self.config.deployment), Deployment).model
        except KeyNotFound:
            # Distinct from an outage: nobody made this deployment yet, so there is nothing to serve.
            return None


def answer_of(answered: Answered) -> Answer:
    """What the caller gets to know."""
    return Answer.model_construct(
        model=answered.model,
        label=answered.prediction.label,
        probabilities=dict(answered.prediction.probabilities),
        request_id=answered.request_id,
    )


def check_labels(feedback: Sequence[Feedback], classes: Sequence[str], *, multi_label: bool) -> None:
    """Raises `UnknownLabel` for the first label that is no class, `InvalidFeedback` for one of the other kind."""
    for item in feedback:
        if isinstance(item.label, str) == multi_label:
            needed = "any number of classes; send labels, a list" if multi_label else "one class; send label"
            raise InvalidFeedback(f"the image of request {item.request_id} may have {needed}")
        for label in item.labels:
            if label not in classes:
                names = ", ".join(repr(name) for name in classes)
                raise UnknownLabel(
                    f"label {label!r} of request {item.request_id} is none of the model's classes: {names}"
                    f"{near(label, classes)}"
                )


def _waiting_reason(deployment: str | None) -> str:
    if deployment is None:
        return "the model is being loaded; try again in a moment"
    return (
        f"deployment {deployment!r} has no loaded model yet; it answers as soon as its first model "
        "is promoted and loaded: try again later"
    )
