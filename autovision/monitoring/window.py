"""Windows: which captured requests a drift report speaks of."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from autovision.errors import InvalidInput
from autovision.records.deployments import Capture


def latest_window(
    captures: Iterable[Capture], size: int, model: str, *, after: datetime | None = None
) -> list[Capture] | None:
    """The last `size` requests that `model` answered, the earliest first; None if there are fewer.

    `after` is when the last request of the previous report arrived: only later ones count, so that
    windows do not overlap and each has its own chance of a false alarm. A request that was captured
    twice counts once. Requests without an embedding cannot be compared and do not count.
    """
    if size < 2:
        raise InvalidInput(f"a window of {size} requests cannot be judged; choose 2 or more")
    usable = {
        capture.request_id: capture
        for capture in captures
        if capture.model == model and capture.embedding and (after is None or capture.received_at > after)
    }
    if len(usable) < size:
        return None
    return sorted(usable.values(), key=lambda capture: (capture.received_at, capture.request_id))[-size:]
