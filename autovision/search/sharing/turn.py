"""A search among others on its cluster: it waits for its turn, and then keeps to its share.

A search that a person runs beside a controller waits for those of the queue that come before it, too, which have no
process yet; for no longer than the controller would take to start one, so that nothing waits for ever.

Each process writes what it asks for into the store (`LiveSearch`) and reads what the others ask for; each works out
the same shares from that. Nobody assigns them, so that nobody is missed when he is killed.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Self

from autovision.errors import AutoVisionError, Interrupted, StoreUnavailable
from autovision.records.base import now
from autovision.records.searches import ClusterView, LiveSearch, SearchRequest, SearchStatus
from autovision.search import requests
from autovision.search.sharing import cluster, preflight
from autovision.search.sharing.cluster import ClusterAway
from autovision.search.sharing.queue import claim_of, in_queue, live
from autovision.search.sharing.shares import UNLIMITED, Claim, shares, turns
from autovision.store import keys, lease, records
from autovision.store.lease import LeaseLost
from autovision.store.protocol import KeyNotFound, Store

log = logging.getLogger(__name__)

_POLL_S = 1.0
_LOOK_S = 5.0
"""between two looks at the cluster's nodes"""
_TAKING_UP_S = 30.0
"""that a search leaves a place to one of the queue that comes before it: a controller looks every few seconds, and a
process has its lease some seconds after it was started"""
_ADMISSION_S = 10.0
"""lease on letting searches begin, so that two which look at once do not both take the last place"""

Demand = Callable[[], tuple[int, int | None]]
"""trials at work; and how many there is a use for, None: as many as there is room for"""


class Turn:
    """The place of one search among those on its cluster; a context manager for as long as its lease is held.

    Args:
        submitted_at: when it came into the queue.
        look: what the cluster has.
        behind_queue: whether to wait for those that a controller has in its queue before this one. Not for those that
            the controller has taken up itself: they may be what keeps it from the others.
        held: whether the lease still is: once it is lost, the search's record is that of whoever took it up.
    """

    def __init__(
        self,
        store: Store,
        request: SearchRequest,
        submitted_at: datetime,
        look: Callable[[], ClusterView] = cluster.here,
        behind_queue: bool = False,
        held: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store, self._request, self._look, self._held = store, request, look, held
        self._behind_queue = behind_queue
        self._left_since: float | None = None
        """since when a place is left to one of the queue"""
        self._view = look()
        self._looked = time.monotonic()
        self._noted = False
        self._mine = LiveSearch(
            search=request.id,
            cluster=self._view.name,
            priority=request.priority,
            workers=request.workers_per_trial,
            wants=request.max_trials,
            submitted_at=submitted_at,
        )
        self._share = UNLIMITED
        self._demand: Demand = lambda: (0, request.max_trials)
        self._over = threading.Event()
        self._keeper: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._write()  # at once: it is no longer among those without a process, which others wait for as well
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._keeper is not None:
            self._keeper.join()
        if self._held():
            self._store.delete(keys.live_search(self._request.id))

    # ------------------------------------------------------------------------------------------- the queue

    def wait(self, should_stop: Callable[[], bool], tell: Callable[[str], None]) -> None:
        """Return when it is this search's turn. `tell` gets the reason to wait, whenever it is another one.

        Raises:
            InvalidInput: it can never fit into the cluster.
            LeaseLost: its lease was lost meanwhile.
            Interrupted: it was stopped while it waited.
        """
        said = None
        while True:
            if not self._held():
                raise lost(self._request.id)
            if self._stopped():
                raise stopped_before_its_turn(self._request.id)
            preflight.check(self._request, self._look_again())
            reason = self._reason()
            if reason is None:
                reason = self._begin()
            if reason is None:
                break
            if reason != said:
                said = reason
                tell(f"waits for its turn on {self._view.name}: {reason}")
            if should_stop() and self._held():
                requests.set_state(self._store, self._request.id, status=SearchStatus.STOPPED)
                raise stopped_before_its_turn(self._request.id)
            time.sleep(_POLL_S)
        self.refresh()
        self._keeper = threading.Thread(target=self._keep, name=f"share-{self._request.id}", daemon=True)
        self._keeper.start()

    def _begin(self) -> str | None:
        """Begin, unless somebody else took the place in between; the reason to wait then."""
        holder = f"{socket.gethostname()}:{os.getpid()}"
        while (held := lease.acquire(self._store, f"turn-{self._view.name}", holder, _ADMISSION_S)) is None:
            time.sleep(random.uniform(0.02, 0.2))
        with held:
            if (reason := self._reason()) is None:
                self._mine = self._mine.with_(begun_at=now())
                self._write()
        return reason

    def _reason(self) -> str | None:
        places, others = preflight.places(self._view), [claim_of(each) for each in self._others()]
        mine = claim_of(self._mine)
        reason = turns(places, [*others, mine])[mine.search]
        queued = self._queued() if reason is None else {}
        mine = queued.pop(mine.search, mine)
        if (
            reason is not None
            or (reason := turns(places, [*others, *queued.values(), mine])[mine.search]) is None
        ):
            self._left_since = None
            return reason
        if self._left_since is None:
            self._left_since = time.monotonic()
        return reason if time.monotonic() - self._left_since < _TAKING_UP_S else None

    def _queued(self) -> dict[str, Claim]:
        """This search, and those without a process that a controller will start on this cluster, as the store tells."""
        if not (self._behind_queue and lease.is_held(self._store, "controller")):
            return {}
        if any(view.name != self._view.name for view in cluster.all_known(self._store)):
            return {}  # the controller may be of that one
        return {
            request.id: claim
            for request, _, claim in in_queue(self._store, own=self._request.id)
            if request.id == self._request.id or not preflight.faults(request, self._view)
        }

    def _stopped(self) -> bool:
        return requests.get(self._store, self._request.id)[1].status is SearchStatus.STOPPED

    # ------------------------------------------------------------------------------------------- the share

    def share(self) -> int:
        """Trials that it may run at once, as of a second ago; at least one.

        Where the cluster has become too small for all that have begun, a search without a share keeps one trial
        waiting in Ray's queue, which holds nothing.
        """
        return self._share

    def follow(self, demand: Demand) -> None:
        """What the search wants from now on."""
        self._demand = demand

    def finishing(self) -> None:
        """It runs no more trials: others may have its places."""
        self.follow(lambda: (0, 0))
        self._guarded_refresh()

    def refresh(self) -> None:
        """Work the share out, and let others know of this search. Raises `StoreUnavailable`."""
        running, wants = self._demand()
        others = self._others()
        mine = self._mine.with_(running=running, wants=wants)
        given = shares(preflight.places(self._look_again()), map(claim_of, [*others, mine]))[mine.search]
        alone = all(each.begun_at is None for each in others)
        self._share = UNLIMITED if alone else max(1, given)
        mine = mine.with_(share=given)
        if mine != self._mine:
            self._mine = mine
            self._write()

    def _keep(self) -> None:
        while not self._over.wait(_POLL_S):
            self._guarded_refresh()

    def _guarded_refresh(self) -> None:
        try:
            self.refresh()
        except StoreUnavailable as error:
            log.warning("the share of search %s is that of before: %s", self._request.id, error)
        except AutoVisionError:
            # A record of somebody else that cannot be read is his to report; the next look may find it well.
            log.warning("the share of search %s is that of before", self._request.id, exc_info=True)

    def _others(self) -> list[LiveSearch]:
        return [
            each
            for each in live(self._store)
            if each.cluster == self._view.name and each.search != self._request.id
        ]

    def _look_again(self) -> ClusterView:
        if not self._noted or time.monotonic() - self._looked > _LOOK_S:
            if self._noted:
                self._looked = time.monotonic()
                try:
                    self._view = self._look().with_(name=self._view.name)
                except ClusterAway as away:
                    log.warning("the nodes of search %s are those of before: %s", self._request.id, away)
                    return self._view
            # Of a thousand nodes it is a quarter of a megabyte to read.
            cluster.note(self._store, self._view)
            self._noted = True
        return self._view

    def _write(self) -> None:
        if not self._held():
            return
        key = keys.live_search(self._request.id)
        while True:
            try:
                records.update(self._store, key, LiveSearch, lambda _: self._mine)
                return
            except KeyNotFound:
                if records.create_or_read(self._store, key, self._mine)[1]:
                    return


def stopped_before_its_turn(search: str) -> Interrupted:
    """What is raised of a search that was stopped while it had a process and had not begun."""
    return Interrupted(
        f"search {search} was stopped before its turn; `autovision search resume {search}` puts it into the queue again"
    )


def lost(search: str) -> LeaseLost:
    """What is raised of a search whose process was held up for longer than its lease: it writes no more about it."""
    return LeaseLost(
        f"the lease on search {search} was lost: this process, or its store, stood still for too long, and another one "
        f"may run the search by now; what was done is kept, `autovision search watch {search}` follows it, and "
        f"`autovision search resume {search}` goes on with it if nobody runs it"
    )
