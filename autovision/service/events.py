"""A search as it goes, as server-sent events, from the store alone: any server can go on where another one ended.

    trial      a trial that has ended: a TrialResult
    progress   how far the search has come, whenever that changed
    end        the same when nobody works on the search any more; nothing follows

An event's id says how many trials were told, and which: `<n>-<digest>`. Whoever comes back with it
(`Last-Event-ID`) is told what came since; where the order of the ledger changed meanwhile (clocks of workers
differ), all trials are told once more, so that none is ever left out.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from autovision.records.searches import SearchRequest, SearchState, SearchStatus
from autovision.records.trials import TrialResult
from autovision.search import requests
from autovision.search.following import elapsed_s
from autovision.search.select import Tally
from autovision.service.context import Limits, Room
from autovision.service.schema import Progress
from autovision.store import keys, records
from autovision.store.protocol import Store

_ID = re.compile(r"(\d{1,9})-([0-9a-f]{12})(-end)?")
_NOTHING = "0" * 12
_LEAST_S = 5.0
"""between two events that differ in seconds alone"""
HEARTBEAT = b": still here\n\n"


@dataclass(frozen=True)
class Event:
    """One event."""

    kind: str
    id: str
    data: str
    """JSON on one line"""

    def encoded(self) -> bytes:
        return f"id: {self.id}\nevent: {self.kind}\ndata: {self.data}\n\n".encode()


class Follower:
    """Looks at one search again and again, and tells what is new.

    Args:
        last: id of the last event that was told before; None, or one that is none: nothing was.
    """

    def __init__(self, store: Store, search: str, last: str | None = None) -> None:
        self._store, self._search = store, search
        match = _ID.fullmatch(last or "")
        self._told_before = (int(match[1]), match[2]) if match else (0, _NOTHING)
        self._knows_end = bool(match and match[3])
        self._request, state = requests.get(store, search)
        self._tally = Tally(self._request.metric)
        self._known: set[str] = set()
        self._count, self._digest = 0, _NOTHING
        self._first = True
        self._said: Progress | None = None
        self._said_at = 0.0
        self._least_s = 0.0
        self._searched_s = 0.0
        """the latest second of the search that any trial's curve tells"""
        self.ended = False
        self.nothing_new = self._knows_end and is_over(state)
        """whether the end was told, and nothing happened since"""

    def look(self) -> list[Event]:
        """What is new. Once `ended`, nothing more comes."""
        # First the state: whatever trial ended before the search did, is in the ledger by then.
        _, state = requests.get(self._store, self._search)
        new = list(self._new_trials())
        skipped = self._skipped(new) if self._first else 0
        self._first = False
        events = []
        for number, trial in enumerate(new):
            self._add(trial)
            if number >= skipped:
                events.append(Event("trial", self._id, trial.model_dump_json()))
        self.ended = is_over(state)
        progress = self._progress(state)
        if self.ended:
            events.append(Event("end", f"{self._id}-end", progress.model_dump_json()))
        elif self._is_news(progress):
            self._said, self._said_at = progress, time.monotonic()
            events.append(Event("progress", self._id, progress.model_dump_json()))
        return events

    @property
    def _id(self) -> str:
        return f"{self._count}-{self._digest}"

    def _new_trials(self) -> Iterator[TrialResult]:
        """Those that ended since the last look, in the order in which they did."""
        unknown = [
            key
            for key in self._store.list(keys.trials(self._search))
            if key.endswith(".json") and key not in self._known
        ]
        found = records.read_many(self._store, unknown, TrialResult)
        self._known.update(found)
        yield from sorted(found.values(), key=lambda each: (each.created_at, each.trial))

    def _skipped(self, trials: list[TrialResult]) -> int:
        """How many of them were told before."""
        count, digest = self._told_before
        seen = _NOTHING
        for trial in trials[:count]:
            seen = _chained(seen, trial.trial)
        return count if count <= len(trials) and seen == digest else 0

    def _add(self, trial: TrialResult) -> None:
        self._count += 1
        self._digest = _chained(self._digest, trial.trial)
        self._tally.add(trial)
        self._searched_s = max([self._searched_s, *(point.search_s for point in trial.curve)])

    def _progress(self, state: SearchState) -> Progress:
        self._least_s = elapsed_s(state, max(self._least_s, self._searched_s))
        return progress_of(self._request, state, self._tally, self._least_s)

    def _is_news(self, progress: Progress) -> bool:
        if self._said is None or time.monotonic() - self._said_at >= _LEAST_S:
            return progress != self._said
        return progress != self._said.with_(elapsed_s=progress.elapsed_s)


def progress_of(request: SearchRequest, state: SearchState, tally: Tally, elapsed_s: float) -> Progress:
    """How far a search has come."""
    return Progress(
        search=request.id,
        status=str(state.status),
        elapsed_s=round(elapsed_s, 3),
        budget_s=requests.granted_s(request, state),
        model=state.model,
        error=state.error,
        **{name: value for name, value in tally.counts().items() if name in Progress.model_fields},
    )


def is_over(state: SearchState) -> bool:
    """Whether nobody works on a search, nor will by itself."""
    return state.status not in (SearchStatus.QUEUED, SearchStatus.RUNNING)


class EventStream(StreamingResponse):
    """Events as an answer, which takes a place among all streams for as long as it lasts.

    Raises `Busy` and `TooManyStreams` before it begins.
    """

    def __init__(self, parts: AsyncIterator[bytes], room: Room, caller: str) -> None:
        super().__init__(parts, media_type="text/event-stream")
        self._room, self._caller = room, caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._room.stream(self._caller):
            await super().__call__(scope, receive, send)


async def stream(follower: Follower, limits: Limits, goes_on: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Events as they travel, until the search ends, the stream's time is over, or `goes_on` says no."""
    until = time.monotonic() + limits.stream_s
    heard = time.monotonic()
    while True:
        events = await run_in_threadpool(follower.look)
        for event in events:
            yield event.encoded()
        if follower.ended or time.monotonic() >= until or not goes_on():
            return
        if events:
            heard = time.monotonic()
        elif time.monotonic() - heard >= limits.heartbeat_s:
            heard = time.monotonic()
            yield HEARTBEAT
        await asyncio.sleep(limits.poll_s)


def _chained(digest: str, trial: str) -> str:
    return hashlib.sha256(f"{digest} {trial}".encode()).hexdigest()[:12]
