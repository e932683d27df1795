"""What people say of captured requests, and of images of a data set. Every word is kept, also one that was changed.

A label may come before its request is captured; the two are joined when they are used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from autovision.records.base import digest_of
from autovision.records.deployments import Label
from autovision.store import keys, records
from autovision.store.protocol import AlreadyExists, Store

_STAMPED = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}-")


def add(store: Store, deployment: str, label: Label) -> bool:
    """Store a label; True if it is news.

    It is none if it repeats the annotator's latest word on the request (whenever it was received), or if the
    very same label is stored already. A change of mind is news, and so is changing it back.
    Raises `InvalidInput` for a request id that cannot be part of a key.
    """
    keys.check_request_id(label.request_id)
    return _add(store, keys.labels(deployment, label.request_id), label)


def add_many(store: Store, deployment: str, given: Sequence[Label], *, workers: int = 16) -> list[bool]:
    """`add` of each, those of one request one after the other, else `workers` at a time: a write mostly waits.

    Raises like `add`; what was stored before an error stays.
    """
    by_request: dict[str, list[int]] = {}
    for number, label in enumerate(given):
        by_request.setdefault(label.request_id, []).append(number)
    news = [False] * len(given)

    def store_all(numbers: Sequence[int]) -> None:
        for number in numbers:
            news[number] = add(store, deployment, given[number])

    with ThreadPoolExecutor(workers, thread_name_prefix="labels") as pool:
        list(pool.map(store_all, by_request.values()))
    return news


def correct(store: Store, dataset: str, label: Label) -> bool:
    """Store what somebody says of an image of a data set, whose digest is the request id; True if it is news."""
    return _add(store, keys.corrections(dataset, label.request_id), label)


def _add(store: Store, place: str, label: Label) -> bool:
    stored = records.read_all(store, place, Label)
    own = [other for other in stored if other.annotator == label.annotator]
    latest = max(own, key=_by_time, default=None)
    if label in own or (latest is not None and _content(latest) == _content(label)):
        return False
    # The name depends on what it follows: two who add the same at once meet, and a word said again does not.
    follows = None if latest is None else digest_of(latest.model_dump(mode="json"))
    key = keys.label(place, digest_of([_content(label), follows]))
    try:
        records.create(store, key, label)
    except AlreadyExists:
        return False
    return True


def read(store: Store, deployment: str) -> list[Label]:
    """All labels of a deployment in the order in which they were received."""
    return sorted(records.read_all(store, keys.labels(deployment), Label), key=_by_time)


def corrections(store: Store, dataset: str) -> list[Label]:
    """What was said of images of a data set, of any of its versions, in the order in which it was received."""
    return sorted(records.read_all(store, keys.corrections(dataset), Label), key=_by_time)


def read_since(store: Store, deployment: str, at: datetime) -> list[Label]:
    """The labels of requests that came in since, in the order in which the labels were received.

    The others are not even read: a request's id begins with its time. One of an id that somebody else made is left out.
    """
    prefix, stamp = keys.labels(deployment), keys.stamp(at)
    wanted = (
        key
        for key in store.list(prefix)
        if _STAMPED.match(request := key.removeprefix(prefix)) and request >= stamp
    )
    return sorted(records.read_many(store, wanted, Label).values(), key=_by_time)


def _content(label: Label) -> dict[str, object]:
    return label.model_dump(mode="json", exclude={"received_at"})


def _by_time(label: Label) -> tuple[object, ...]:
    """Orders by time, and by the rest where times are equal, so that no result depends on the listing."""
    return label.received_at, label.request_id, label.annotator, label.label, label.confidence
