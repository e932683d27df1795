"""Windows: which captured requests a drift report speaks of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

from autovision.errors import InvalidInput
from autovision.records.deployments import Capture


def counts(capture: Capture, model: str, *, after: datetime | None, until: datetime | None) -> bool:
    """Whether a request may be part of a window: answered by the model in that time, with an embedding of numbers."""
    return (
        capture.model == model
        and (after is None or capture.received_at > after)
        and (until is None or capture.received_at <= until)
        and len(capture.embedding) > 0
        and all(map(math.isfinite, capture.embedding))
    )


def latest_window(
    captures: Iterable[Capture],
    size: int,
    model: str,
    *,
    after: datetime | None = None,
    until: datetime | None = None,
) -> list[Capture] | None:
    """The last `size` requests that `model` answered, the earliest first; None if there are fewer.

    `after` is when the last request of the previous report arrived: only later ones count, so that
    windows do not overlap and each has its own chance of a false alarm. `until` is now: what a server
    with a clock that is ahead received counts when that time has come; otherwise nothing that others
    receive before it would count any more. A request that was captured twice counts once. Requests
    without an embedding cannot be compared and do not count.
    """
    if size < 2:
        raise InvalidInput(f"a window of {size} requests cannot be judged; choose 2 or more")
    usable: dict[str, Capture] = {}
    for capture in captures:
        if counts(capture, model, after=after, until=until):
            usable[capture.request_id] = capture
        # All that came while nobody looked would fill the memory: embeddings are large.
        if len(usable) > 2 * size:
            usable = {each.request_id: each for each in _latest(usable.values(), size)}
    return None if len(usable) < size else _latest(usable.values(), size)


def _latest(captures: Iterable[Capture], size: int) -> list[Capture]:
    return sorted(captures, key=lambda capture: (capture.received_at, capture.request_id))[-size:]
