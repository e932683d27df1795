"""What people say of captured requests, and of images of a data set. Every word is kept, also one that was changed.

A label may come before its request is captured; the two are joined when they are used. Of two words of an annotator the
one that was said later stands, whichever came first, so that what is delivered late or again undoes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from enum import Enum

from autovision.records.base import digest_of
from autovision.records.deployments import Label
from autovision.store import keys, records
from autovision.store.protocol import AlreadyExists, Store

_STAMPED = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}-")


class News(Enum):
    """What became of a word; true if it is one."""

    STORED = "stored"
    KNOWN = "known"
    """it repeats what its annotator says already; it is kept if it says that it was said later"""
    OUTDATED = "outdated"
    """its annotator has said otherwise since, which stands; it is kept if it was not there"""

    def __bool__(self) -> bool:
        return self is News.STORED


def add(store: Store, deployment: str, label: Label) -> bool:
    """Store a label; True if it is news.

    It is none if it repeats the annotator's latest word on the request (whenever it was received), or if the
    very same label is stored already. A change of mind is news, and so is changing it back.
    Raises `InvalidInput` for a request id that cannot be part of a key.
    """
    return bool(take_over(store, deployment, label))


def add_many(store: Store, deployment: str, given: Sequence[Label], *, workers: int = 16) -> list[bool]:
    """`add` of each, those of one request one after the other, else `workers` at a time: a write mostly waits.

    Raises like `add`; what was stored before an error stays.
    """
    return [bool(news) for news in take_over_many(store, deployment, given, workers=workers)]


def take_over(store: Store, deployment: str, label: Label, *, began: datetime | None = None) -> News:
    """`add`, and what became of it: for labels that were collected elsewhere, and may come again.

    A label that says when it was said is put where it belongs among the words of its annotator, also one that repeats
    the latest: what was said in between may come after it. Of one that does not nobody knows how old it is.

    Args:
        began: when the whole of which it is part was begun to be stored. What its annotator said of the request before,
            word for word, is then no change of mind: it is the old word again. None: it is said now.
    """
    keys.check_request_id(label.request_id)
    return _add(store, keys.labels(deployment, label.request_id), label, began)


def take_over_many(
    store: Store,
    deployment: str,
    given: Sequence[Label],
    *,
    began: datetime | None = None,
    workers: int = 16,
) -> list[News]:
    """`take_over` of each, as `add_many` does it."""
    by_request: dict[str, list[int]] = {}
    for number, label in enumerate(given):
        by_request.setdefault(label.request_id, []).append(number)
    news = [News.KNOWN] * len(given)

    def store_all(numbers: Sequence[int]) -> None:
        for number in numbers:
            news[number] = take_over(store, deployment, given[number], began=began)

    with ThreadPoolExecutor(workers, thread_name_prefix="labels") as pool:
        list(pool.map(store_all, by_request.values()))
    return news


def correct(store: Store, dataset: str, label: Label, *, began: datetime | None = None) -> News:
    """Store what somebody says of an image of a data set, whose digest is the request id; see `take_over`."""
    return _add(store, keys.corrections(dataset, label.request_id), label, began)


def _add(store: Store, place: str, label: Label, began: datetime | None) -> News:
    stored = records.read_all(store, place, Label)
    own = sorted((other for other in stored if other.annotator == label.annotator), key=_by_saying)
    latest = own[-1] if own else None
    repeats = latest is not None and _content(latest) == _content(label)
    if label in own or (repeats and not _is_said_again(own, label)):
        return News.KNOWN
    if not repeats and _is_there(own, label, began):
        return News.OUTDATED
    # The name depends on what it follows: two who add the same at once meet, and a word said again does not.
    follows = None if latest is None else digest_of(latest.model_dump(mode="json"))
    word = label.model_dump(mode="json", exclude={"received_at"})
    try:
        records.create(store, keys.label(place, digest_of([word, follows])), label)
    except AlreadyExists:
        return News.KNOWN
    if repeats:
        return News.KNOWN
    late = label.said_at is not None and latest is not None and label.when < latest.when
    return News.OUTDATED if late else News.STORED


def _is_said_again(own: Sequence[Label], label: Label) -> bool:
    """Whether a word that repeats the latest one was said later still: what was said in between may be yet to come."""
    if label.said_at is None or label.when <= own[-1].when:
        return False
    return all(other.said_at != label.said_at for other in own if _content(other) == _content(label))


def _is_there(own: Sequence[Label], label: Label, began: datetime | None) -> bool:
    """Whether a word that is not the latest one is among those before it.

    Args:
        own: words of its annotator, in the order in which they were said.
    """
    same = [other for other in own if _content(other) == _content(label)]
    if label.said_at is None:
        return began is not None and any(other.received_at < began for other in same)
    stood = [other for other in own if other.when <= label.when][-1:]
    # Of a time that lies ahead `when` is the time of receipt, another one with each delivery.
    return any(other in stood or other.when == label.when or other.said_at == label.said_at for other in same)


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


def count(store: Store, deployment: str) -> int:
    """How many labels there are: their keys are listed."""
    return sum(1 for _ in store.list(keys.labels(deployment)))


def _content(label: Label) -> dict[str, object]:
    return label.model_dump(mode="json", exclude={"received_at", "said_at"})


def _by_time(label: Label) -> tuple[object, ...]:
    """Orders by time, and by the rest where times are equal, so that no result depends on the listing."""
    return label.received_at, label.request_id, label.annotator, label.label, label.confidence


def _by_saying(label: Label) -> tuple[object, ...]:
    return label.when, *_by_time(label)
