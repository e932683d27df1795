"""One server without its HTTP: the models of the moment, the queues, the follower, the captures, the counts.

The challenger of a rollout has a queue of its own. As a canary it answers its share of the callers, and where it fails
or takes too long the champion answers after all: no caller pays for it. As a shadow it is shown what was answered,
while the champion has nothing to do.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import perf_counter
from typing import NamedTuple

from autovision.errors import AutoVisionError, InvalidImage, InvalidInput, near
from autovision.records.base import now
from autovision.records.datasets import labels_of
from autovision.records.deployments import Deployment, Label
from autovision.serving.arms import Arms, Wanted, wanted_of
from autovision.serving.batcher import Batcher, Predicted, Work
from autovision.serving.capture import Answered, CaptureSink
from autovision.serving.follower import Follower
from autovision.serving.metrics import CANARY, SHADOW, STABLE, Metrics, confidence_of
from autovision.serving.predicting import Input, LoadPredictor, Predictor, Served
from autovision.serving.problems import (
    DeadlineExceeded,
    InvalidFeedback,
    NoDeployment,
    NoModel,
    QueueFull,
    Refusal,
    ShuttingDown,
    UnknownLabel,
    escaped_trace,
    shape_of,
)
from autovision.serving.schema import Answer, Feedback, FeedbackReceipt, Health, ServerInfo
from autovision.serving.tally import Tally, TallyWriter
from autovision.serving.turns import Turns
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
    lanes: int | None = None
    """images that are computed at once, at most, where that is quicker than batches; None: as many as the process may
    use processors"""
    max_waiting: int = 128
    """requests in the queue; more are refused with 503"""
    poll_s: float = 0.5
    """how often the deployment is looked at"""
    keep_s: float = 600.0
    """how long a champion that was replaced stays loaded, so that a rollback takes effect at once"""
    patience_s: float = 5.0
    """that a challenger gets for an answer, before the champion gives it"""
    max_shadow_waiting: int = 8
    """copies in the challenger's queue; those for which there is no room are left out, and counted"""
    tally_s: float = 1.0
    """how often what a rollout does is written down"""

    def __post_init__(self) -> None:
        if (self.deployment is None) == (self.model is None):
            raise InvalidInput(
                f"serve either a deployment or a model, not deployment {self.deployment!r} "
                f"and model {self.model!r}"
            )


class _Now(NamedTuple):
    """What answers, and where it is counted during a rollout."""

    arms: Arms
    tally: Tally | None


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
        self._now = _Now(Arms(), None)
        self._swaps = 0
        self._requests = 0
        self._answered = 0
        self._errors: Counter[str] = Counter()
        self.metrics = Metrics(replica, self.info)
        lanes = config.lanes or len(os.sched_getaffinity(0))
        turns = Turns(lanes)
        self._stable = Batcher(
            lambda: _predictor(self._now.arms.stable),
            max_batch=config.max_batch,
            max_waiting=config.max_waiting,
            workers=lanes,
            observe_batch=functools.partial(self.metrics.observe_batch, STABLE),
            turns=turns,
        )
        self._challenger = Batcher(
            lambda: _predictor(self._now.arms.challenger),
            max_batch=config.max_batch,
            max_waiting=config.max_waiting,
            workers=lanes,
            observe_batch=self._observe_challengers_batch,
            turns=turns,
            yields=lambda: self._now.arms.is_shadow,
        )
        self._tallies = (
            TallyWriter(store, config.deployment, replica, every_s=config.tally_s, clock=clock)
            if config.deployment is not None
            else None
        )
        self._follower = Follower(
            self._wanted,
            lambda model: load(store, model),
            self._apply,
            poll_s=config.poll_s,
            keep_s=config.keep_s,
            clock=clock,
        )
        captures = config.capture and config.deployment is not None
        self._sink = CaptureSink(store, config.deployment or "", clock=clock) if captures else None
        # Its own threads: labels that wait for a slow store must not hold up anything else.
        self._labelling = ThreadPoolExecutor(4, thread_name_prefix="label")
        self._copies: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._follower.start()

    async def drain(self, timeout_s: float = 5.0) -> None:
        """Wait for what the challenger is shown, so that it is captured; before `close`, on the loop that answers."""
        if self._copies:
            await asyncio.wait(self._copies, timeout=timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Answer what waits, store what is captured, stop all threads."""
        self._follower.close(timeout_s=1.0)
        self._stable.close(timeout_s)
        self._challenger.close(timeout_s)
        self._labelling.shutdown(wait=True)
        if self._tallies is not None:
            self._tallies.close()
        if self._sink is not None:
            self._sink.close(timeout_s)

    def check(self) -> None:
        """Raises RuntimeError if a thread died: the process must be replaced then."""
        parts = {
            "batcher": self._stable.alive and self._challenger.alive,
            "follower": self._follower.alive,
        }
        if self._tallies is not None:
            parts["tally"] = self._tallies.alive
        if self._sink is not None:
            parts["capture"] = self._sink.alive
        if dead := [name for name, alive in parts.items() if not alive]:
            raise RuntimeError(f"threads died: {', '.join(dead)}")

    @property
    def served(self) -> Served | None:
        """The champion, loaded; None: no model is loaded yet."""
        return self._now.arms.stable

    def work(self) -> Work:
        """What has been done so far, for both arms."""
        return self._stable.work + self._challenger.work

    @property
    def settled(self) -> bool:
        """Whether a model answers, or none is there that could be waited for."""
        return self._now.arms.stable is not None or self._follower.looked

    def refusal(self, images: int = 1) -> Refusal | None:
        """Why reading a body, or asking about so many images, would be in vain; None: it would not be."""
        if self._now.arms.stable is None:
            return NoModel(self._follower.status.error or _waiting_reason(self.config.deployment))
        if self._stable.waiting + images > self.config.max_waiting:
            return QueueFull()
        return None

    def admit(self, images: int = 1) -> None:
        """Raises `NoModel` or `QueueFull` where so many images are refused, which are counted so."""
        if (refusal := self.refusal(images)) is not None:
            for _ in range(images):
                self._observe_failed(refusal, STABLE, self._now.arms.stable, perf_counter())
            raise refusal

    async def answer(
        self,
        image: bytes,
        metadata: Mapping[str, str],
        received_at: datetime,
        begun: float,
        key: str | None = None,
    ) -> Answer:
        """The answer for an image, captured if capturing is on.

        Args:
            begun: `perf_counter()` when the request came in.
            key: of the caller, who is answered by the same model as long as it is there; None: any of both answers.

        Raises what `Batcher.predict` raises.
        """
        return answer_of(await self.ask(image, metadata, received_at, begun, key))

    async def ask(
        self,
        image: Input,
        metadata: Mapping[str, str],
        received_at: datetime,
        begun: float,
        key: str | None = None,
        *,
        champion: bool = False,
    ) -> Answered:
        """Like `answer`, with all that the model said. Pixels are answered, and neither captured nor shown to a shadow.

        Args:
            champion: whether the champion has to answer, whatever the key.
        """
        request_id = keys.timestamped_id(received_at)
        moment, side = self._now, key or request_id
        # Pixels are preprocessed as the champion wants them, whose metadata callers have read.
        champion = champion or not (isinstance(image, bytes) or moment.arms.preprocess_alike)
        arm = CANARY if not champion and moment.arms.is_canary(side) else STABLE
        try:
            predicted = await self._by_challenger(image, moment.tally, arm) if arm == CANARY else None
            if predicted is None:
                arm = STABLE
                predicted = await self._by_champion(image, moment.tally)
        except (Exception, asyncio.CancelledError) as error:
            asked = moment.arms.challenger if arm == CANARY else moment.arms.stable
            # What cancels is the time that the request has.
            fault = error if isinstance(error, Exception) else DeadlineExceeded()
            self._observe_failed(fault, arm, asked, begun)
            raise
        prediction, model, took_s = predicted.prediction, predicted.model.id, perf_counter() - begun
        self.metrics.observe(arm=arm, model=model, latency_s=took_s, confidence=confidence_of(prediction))
        encoded = image if isinstance(image, bytes) else b""
        pixels, latency_ms = moment.arms.captures.pixels, took_s * 1000
        answered = Answered(request_id, model, received_at, latency_ms, encoded, prediction, metadata, pixels)
        sink = self._sink if encoded and moment.arms.is_captured(request_id) else None
        if encoded and moment.arms.is_shadowed(side):
            self._copy(answered, moment.tally, sink)
        elif sink is not None:
            sink.offer(answered)
        self._answered += 1
        return answered

    def _observe_failed(self, error: Exception, arm: str, asked: Served | None, begun: float) -> None:
        model = asked.predictor.model.id if asked is not None else ""
        kind = shape_of(error).kind
        self.metrics.observe(arm=arm, model=model, kind=kind, latency_s=perf_counter() - begun)

    def _observe_challengers_batch(self, model: str, size: int) -> None:
        self.metrics.observe_batch(SHADOW if self._now.arms.is_shadow else CANARY, model, size)

    async def _by_champion(self, image: Input, tally: Tally | None) -> Predicted:
        begun = perf_counter()
        try:
            predicted = await self._stable.predict(image)
        except (AutoVisionError, asyncio.CancelledError):
            raise  # the image's fault, or the caller's, or that of too many others
        except Exception:
            if tally is not None:
                tally.failed(challenger=False)
            raise
        if tally is not None:
            tally.answered(challenger=False, seconds=perf_counter() - begun)
        return predicted

    async def _by_challenger(self, image: Input, tally: Tally | None, arm: str) -> Predicted | None:
        """The challenger's answer; None: it is not to be had, so that the champion has to answer.

        Raises `InvalidImage`, and whatever else would be the same with the champion.
        """
        begun = perf_counter()
        try:
            async with asyncio.timeout(self.config.patience_s):
                predicted = await self._challenger.predict(image)
        except (InvalidImage, ShuttingDown):
            raise
        except NoModel:
            return None  # its rollout ended a moment ago
        except Exception as error:  # noqa: BLE001 - counted; the champion answers
            self._observe_failed(error, arm, self._now.arms.challenger, begun)
            if tally is not None:
                tally.failed(challenger=True)
            logger.warning("the challenger failed on a request: %s", escaped_trace(error))
            return None
        if tally is not None:
            # Nobody waits for a shadow, which lets others go first: that is not its model's time.
            seconds = predicted.took_s if arm == SHADOW else perf_counter() - begun
            tally.answered(challenger=True, seconds=seconds)
        return predicted

    def _copy(self, answered: Answered, tally: Tally | None, sink: CaptureSink | None) -> None:
        """Show the challenger what was answered; nobody waits for it."""
        if self._challenger.waiting >= self.config.max_shadow_waiting:
            if tally is not None:
                tally.dropped()
            if sink is not None:
                sink.offer(answered)
            return
        task = asyncio.get_running_loop().create_task(self._compare(answered, tally, sink))
        # A loop keeps only weak references to its tasks.
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)

    async def _compare(self, answered: Answered, tally: Tally | None, sink: CaptureSink | None) -> None:
        """Compare what the challenger says with what was answered, and capture both."""
        try:
            shadow = await self._by_challenger(answered.image, tally, SHADOW)
        except AutoVisionError:
            shadow = None
        if shadow is not None:
            said = shadow.prediction
            self.metrics.observe(
                arm=SHADOW,
                model=shadow.model.id,
                latency_s=shadow.took_s,
                confidence=confidence_of(said),
            )
            if tally is not None:
                tally.compared(agreed=set(labels_of(said.label)) == set(labels_of(answered.prediction.label)))
            answered = replace(answered, shadow=(shadow.model.id, said))
        if sink is not None:
            sink.offer(answered)

    async def label(self, feedback: Sequence[Feedback]) -> FeedbackReceipt:
        """Store labels; they are durable when this returns.

        Raises `UnknownLabel` or `InvalidFeedback` (then none is stored), `NoDeployment`, `NoModel`,
        `StoreUnavailable`.
        """
        deployment = self.config.deployment
        if deployment is None:
            raise NoDeployment
        stable, challenger = self._now.arms.stable, self._now.arms.challenger
        if stable is None:
            raise NoModel
        model = stable.predictor.model
        # A challenger may have answered with a class that the champion does not know.
        more = challenger.predictor.model.classes if challenger is not None else ()
        classes = tuple(dict.fromkeys((*model.classes, *more)))
        check_labels(feedback, classes, multi_label=model.multi_label)
        at = self._clock()
        # Of two words of one annotator in a list the last one counts.
        rows = [
            Label(**item.model_dump(), received_at=at + timedelta(microseconds=number))
            for number, item in enumerate(feedback)
        ]
        loop = asyncio.get_running_loop()
        new = await loop.run_in_executor(
            self._labelling, lambda: sum(labels.add_many(self._store, deployment, rows))
        )
        return FeedbackReceipt(accepted=len(rows), new=new)

    def count_request(self, images: int = 1) -> None:
        self._requests += images

    def count_error(self, error: Exception) -> None:
        self._errors[shape_of(error).kind] += 1

    def health(self) -> Health:
        stable = self._now.arms.stable
        return Health(
            status="ready" if stable else "waiting",
            model=stable.predictor.model.id if stable else None,
            following=self._follower.status,
            replica=self._replica,
        )

    def info(self) -> ServerInfo:
        arms = self._now.arms
        stable, challenger = arms.stable, arms.challenger
        step = arms.rollout.step if arms.rollout and challenger else None
        for_challenger = self._challenger.waiting
        return ServerInfo(
            model=stable.predictor.model.id if stable else None,
            classes=stable.predictor.model.classes if stable else (),
            since=stable.since if stable else None,
            challenger=challenger.predictor.model.id if challenger else None,
            stage=step.stage if step else None,
            share=step.share if step else None,
            deployment=self.config.deployment,
            replica=self._replica,
            started_at=self._started_at,
            swaps=self._swaps,
            requests=self._requests,
            answered=self._answered,
            errors=dict(self._errors),
            waiting=self._stable.waiting + for_challenger,
            waiting_for_challenger=for_challenger,
            following=self._follower.status,
            captures=self._sink.status if self._sink else None,
        )

    def flush(self, timeout_s: float) -> bool:
        """Store what is captured now. True if nothing is pending any more."""
        return self._sink is None or self._sink.flush(timeout_s)

    def _apply(self, arms: Arms) -> None:
        before, tally = self._now.arms.stable, None
        if arms.rollout is not None and self._tallies is not None:
            tally = self._tallies.of(arms.rollout.id)
            tally.unloadable(arms.unloadable)
        # One assignment: a request reads it once, so it sees the old arms or the new ones, never a mix.
        self._now = _Now(arms, tally)
        if arms.stable is not None and arms.stable is not before:
            self._swaps += before is not None
            logger.info("model %s answers", arms.stable.predictor.model.id)

    def _wanted(self) -> Wanted:
        if self.config.model is not None:
            return Wanted(self.config.model)
        assert self.config.deployment is not None
        try:
            return wanted_of(records.read(self._store, keys.deployment(self.config.deployment), Deployment))
        except KeyNotFound:
            # Distinct from an outage: nobody made this deployment yet, so there is nothing to serve.
            return Wanted()


def _predictor(served: Served | None) -> Predictor | None:
    return served.predictor if served else None


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
