"""Asking the engine about several images at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from autovision.serving.capture import Answered
from autovision.serving.engine import Engine
from autovision.serving.predicting import Input
from autovision.serving.problems import EmptyBody, Refusal
from autovision.store import keys


@dataclass(frozen=True)
class Asking:
    """What the images of one request have in common."""

    metadata: Mapping[str, str]
    received_at: datetime
    begun: float
    """`perf_counter()` when the request came in"""
    key: str | None = None
    """of the caller; None: it has none, and the images go to the same side of a rollout all the same"""


async def ask_all(
    engine: Engine, images: Sequence[Input], asking: Asking, *, champion: bool = False
) -> list[Answered | Exception]:
    """What is answered about each image, in order; an image that cannot be answered gives its error.

    They wait in the queue like images of as many requests. Raises `QueueFull` if there is no room for all of
    them, and any other refusal that speaks of the server and not of an image, as it would be the same for all.

    Args:
        champion: whether the champion has to answer, also during a rollout.
    """
    engine.admit(len(images))
    side = asking.key or keys.timestamped_id(asking.received_at)

    async def ask(image: Input) -> Answered:
        if isinstance(image, bytes) and not image:
            raise EmptyBody("the file is empty; send the bytes of one image")
        return await engine.ask(
            image, asking.metadata, asking.received_at, asking.begun, side, champion=champion
        )

    results = await asyncio.gather(*map(ask, images), return_exceptions=True)
    answers: list[Answered | Exception] = []
    for result in results:
        # `Retry-After` is what tells apart what passes from what is wrong with an image.
        if isinstance(result, Refusal) and result.retry_after_s is not None:
            raise result
        if isinstance(result, BaseException) and not isinstance(result, Exception):
            raise result
        answers.append(result)
    return answers
