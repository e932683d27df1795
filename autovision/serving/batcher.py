"""Requests wait here and are predicted together, off the event loop.

A worker takes whatever waits, up to `max_batch`, as soon as it is free. An idle server so answers a lone
request at once, and under load the batches grow by themselves: no timer, nothing to tune.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from time import perf_counter

from autovision.errors import InvalidImage
from autovision.records.models import ModelVersion
from autovision.serving.predicting import Input, Prediction, Predictor
from autovision.serving.problems import NoModel, QueueFull, ShuttingDown
from autovision.serving.turns import Turns


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
    """during which a worker predicted"""
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

    `current` gives that predictor; it is asked once per batch, so a batch never mixes two models and
    one that has begun ends on the model it began with.

    Args:
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
        observe_batch: Callable[[int], None] = lambda size: None,
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
            self._changed.notify()
        return await job.future

    def close(self, timeout_s: float = 5.0) -> None:
        """Finish what waits, then stop the workers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join(timeout_s)

    def _wait(self) -> bool:
        """Until something waits; False when closed and done."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            return bool(self._queue)

    def _take(self, most: int) -> list[_Waiting]:
        with self._changed:
            taken = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
        # Callers that went away in the meantime cost nothing.
        return [job for job in taken if not job.future.cancelled()]

    def _run(self) -> None:
        while self._wait():
            yields = self._yields()
            # What comes while others compute is in the batch, too.
            with self._turns.mine(yields=yields):
                if batch := self._take(1 if yields else self._max_batch):
                    begun = perf_counter()
                    results = self._results(batch)
                    self._count(batch, begun)
            if batch:
                _deliver(batch, results)
                # Or the worker would keep a replaced model and the last images in memory while it waits.
                del results
            del batch

    def _count(self, batch: Sequence[_Waiting], begun: float) -> None:
        waited_s, busy_s = sum(begun - job.since for job in batch), perf_counter() - begun
        with self._changed:
            self._work += Work(len(batch), busy_s, waited_s)

    def _results(self, batch: Sequence[_Waiting]) -> list[Predicted | Exception]:
        predictor = self._current()
        if predictor is None:
            return [NoModel() for _ in batch]
        self._observe_batch(len(batch))
        return predict_isolated(predictor, [job.image for job in batch])


def predict_isolated(predictor: Predictor, images: Sequence[Input]) -> list[Predicted | Exception]:
    """One result per image. If the predictor fails on several at once, each is tried alone, so that one
    image that breaks the model fails alone."""
    begun = perf_counter()
    try:
        results = predictor.predict(images)
    except Exception as error:  # noqa: BLE001 - goes to the callers, who wait for it
        if len(images) == 1:
            return [error]
        return [result for image in images for result in predict_isolated(predictor, [image])]
    if len(results) != len(images):
        return [RuntimeError(f"{len(results)} predictions for {len(images)} images") for _ in images]
    took_s = perf_counter() - begun
    return [
        result if isinstance(result, InvalidImage) else Predicted(predictor.model, result, took_s)
        for result in results
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
