"""Requests wait here and are predicted off the event loop, first come, first served.

    in lanes    where single images are computed as quickly as batches, as on processors: a worker for each, that takes
                one image, or a few under load, and answers it without waiting for the others
    in batches  elsewhere: a worker takes whatever waits, up to `max_batch`, as soon as it is free

Either way an idle server answers a lone request at once, and what is taken grows with the load by itself: no timer,
nothing to tune. Which of the two it is the predictor says, from what was measured.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from time import perf_counter
from typing import cast

from autovision.errors import InvalidImage
from autovision.records.models import ModelVersion
from autovision.serving.predicting import Input, LanePredictor, Prediction, Predictor
from autovision.serving.problems import NoModel, QueueFull, ShuttingDown
from autovision.serving.turns import Turns

_Predict = Callable[[Sequence[Input]], Sequence[Prediction | InvalidImage]]


@dataclass(frozen=True)
class Predicted:
    """A prediction and the model that gave it."""

    model: ModelVersion
    prediction: Prediction
    took_s: float = 0.0
    """that its batch was predicted for"""


@dataclass(frozen=True)
class Work:
    """What a batcher has done since it was made: sums, of which differences tell how busy it is."""

    images: int = 0
    busy_s: float = 0.0
    """during which it predicted: as long as all lanes would have taken for the same"""
    waited_s: float = 0.0
    """of all images together, from their coming in until a worker took them"""

    def __add__(self, other: Work) -> Work:
        return Work(self.images + other.images, self.busy_s + other.busy_s, self.waited_s + other.waited_s)


@dataclass(frozen=True, eq=False)
class _Waiting:
    since: float
    image: Input
    future: asyncio.Future[Predicted]
    loop: asyncio.AbstractEventLoop


class Batcher:
    """Batches images for the predictor of the moment.

    `current` gives that predictor; it is asked once what images are taken for, so a batch never mixes two models and
    one that has begun ends on the model it began with.

    Args:
        workers: lanes at most.
        turns: shared with other batchers of the process, of which one computes at a time.
        yields: whether no caller waits for what is predicted now; then it is one image at a time, when nobody else
            wants to compute.
    """

    def __init__(
        self,
        current: Callable[[], Predictor | None],
        *,
        max_batch: int = 16,
        max_waiting: int = 128,
        workers: int = 1,
        observe_batch: Callable[[str, int], None] = lambda model, size: None,
        turns: Turns | None = None,
        yields: Callable[[], bool] = lambda: False,
    ) -> None:
        self._current = current
        self._observe_batch = observe_batch
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._turns = turns or Turns()
        self._yields = yields
        self._queue: deque[_Waiting] = deque()
        self._changed = Condition()
        self._closed = False
        self._at_work = 0
        """workers that have images, or are about to take some"""
        self._work = Work()
        self._workers = [
            Thread(target=self._run, name=f"predict-{number}", daemon=True) for number in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    @property
    def waiting(self) -> int:
        """Images that no worker has taken yet."""
        return len(self._queue)

    @property
    def work(self) -> Work:
        return self._work

    @property
    def full(self) -> bool:
        return len(self._queue) >= self._max_waiting

    @property
    def alive(self) -> bool:
        """Whether all workers run."""
        return all(worker.is_alive() for worker in self._workers)

    async def predict(self, image: Input) -> Predicted:
        """The prediction for one image.

        Raises `InvalidImage` if it cannot be decoded, `QueueFull`, `ShuttingDown`, `NoModel`, and what the
        predictor raised if it failed on this image.
        """
        loop = asyncio.get_running_loop()
        job = _Waiting(perf_counter(), image, loop.create_future(), loop)
        with self._changed:
            if self._closed:
                raise ShuttingDown
            if self.full:
                raise QueueFull
            self._queue.append(job)
            if self._at_work < self._lanes(self._current()):
                self._changed.notify()
        return await job.future

    def close(self, timeout_s: float = 5.0) -> None:
        """Finish what waits, then stop the workers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join(timeout_s)

    def _lanes(self, predictor: Predictor | None) -> int:
        """How many workers may be at work with it."""
        lanes: int = getattr(predictor, "lanes", 1)
        return min(lanes, len(self._workers))

    def _sizes(self, predictor: Predictor | None, lanes: int) -> tuple[int, int]:
        """Images of a call while some wait, and while many do."""
        if lanes == 1:
            return self._max_batch, self._max_batch
        in_lanes = cast(LanePredictor, predictor)
        return min(self._max_batch, in_lanes.few), min(self._max_batch, in_lanes.most)

    def _begin(self) -> bool:
        """Wait until there is something to do; False when closed and done."""
        with self._changed:
            while not (self._queue and self._at_work < self._lanes(self._current())):
                if self._closed and not self._queue:
                    return False
                self._changed.wait()
            self._at_work += 1
            return True

    def _end(self) -> None:
        with self._changed:
            self._at_work -= 1
            if self._closed:
                self._changed.notify_all()

    def _take(self, few: int, most: int, lanes: int) -> list[_Waiting]:
        """A lane takes its share of what waits, but few, unless all lanes have as many as they take at most."""
        with self._changed:
            waiting = len(self._queue)
            share = -(-waiting // lanes)
            number = most if waiting >= most * lanes else min(few, share)
            taken = [self._queue.popleft() for _ in range(number)]
        # Callers that went away in the meantime cost nothing.
        return [job for job in taken if not job.future.cancelled()]

    def _run(self) -> None:
        while self._begin():
            try:
                self._predict()
            finally:
                self._end()

    def _predict(self) -> None:
        """What waits, or a lane's share of it. Nothing of it stays in memory while the worker waits for more."""
        yields, places = self._yields(), None if self._lanes(self._current()) == 1 else 1
        # What comes while others compute is in the batch, too.
        with self._turns.mine(yields=yields, places=places) as turn:
            predictor = self._current()
            lanes = self._lanes(predictor)
            few, most = self._sizes(predictor, lanes)
            if not (batch := self._take(1, 1, 1) if yields else self._take(few, most, lanes)):
                return
            begun = perf_counter()
            results = self._results(predictor, batch, lanes, _never if yields else turn.widen)
            self._count(batch, begun, 1 if turn.wide else lanes)
        _deliver(batch, results)

    def _count(self, batch: Sequence[_Waiting], begun: float, lanes: int) -> None:
        waited_s, busy_s = sum(begun - job.since for job in batch), (perf_counter() - begun) / lanes
        with self._changed:
            self._work += Work(len(batch), busy_s, waited_s)

    def _results(
        self, predictor: Predictor | None, batch: Sequence[_Waiting], lanes: int, widen: Callable[[], bool]
    ) -> list[Predicted | Exception]:
        if predictor is None:
            return [NoModel() for _ in batch]
        self._observe_batch(predictor.model.id, len(batch))
        predict: _Predict = predictor.predict
        if lanes > 1:
            predict = functools.partial(cast(LanePredictor, predictor).predict_in_lane, widen=widen)
        return predict_isolated(predictor.model, predict, [job.image for job in batch])


def _never() -> bool:
    return False


def predict_isolated(
    model: ModelVersion,
    predict: _Predict,
    images: Sequence[Input],
) -> list[Predicted | Exception]:
    """One result per image. If the model fails on several at once, each is tried alone, so that one image that breaks
    it fails alone."""
    begun = perf_counter()
    try:
        results = predict(images)
    except Exception as error:  # noqa: BLE001 - goes to the callers, who wait for it
        if len(images) == 1:
            return [error]
        return [result for image in images for result in predict_isolated(model, predict, [image])]
    if len(results) != len(images):
        return [RuntimeError(f"{len(results)} predictions for {len(images)} images") for _ in images]
    took_s = perf_counter() - begun
    return [
        result if isinstance(result, InvalidImage) else Predicted(model, result, took_s) for result in results
    ]


def _deliver(batch: Sequence[_Waiting], results: Sequence[Predicted | Exception]) -> None:
    """Wake the callers, with one call into each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Waiting, Predicted | Exception]]] = {}
    for job, result in zip(batch, results, strict=True):
        by_loop.setdefault(job.loop, []).append((job, result))
    for loop, answers in by_loop.items():
        # A loop that closed meanwhile has no one left who waits.
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, answers)


def _settle(answers: Sequence[tuple[_Waiting, Predicted | Exception]]) -> None:
    for job, result in answers:
        if job.future.done():
            continue
        if isinstance(result, Exception):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
