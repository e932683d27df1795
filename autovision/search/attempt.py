"""One process's try at a search: since when it runs, who may stop it, what it tells and writes of itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from autovision.dataset import catalog
from autovision.model.version import read_version
from autovision.records.searches import SearchRequest, SearchState
from autovision.records.trials import TrialResult
from autovision.search import requests
from autovision.search.estimates import prices
from autovision.search.extending import caught_up
from autovision.search.progress import ProgressEvent
from autovision.search.select import best_trial, counts
from autovision.search.sharing.turn import lost
from autovision.store.lease import HeldLease
from autovision.store.protocol import Store

_POLL_S = 1.0


@dataclass
class StopSignal:
    """Whether a search should stop: a person asked for it in the store, or here, or the lease is lost."""

    store: Store
    search: str
    held: HeldLease
    local: Callable[[], bool]
    asked: bool = False
    _looked: float = 0.0

    def __call__(self) -> bool:
        if self.local() or self.lost:
            self.asked = True
        elif time.monotonic() - self._looked > _POLL_S:
            self._looked = time.monotonic()
            self.asked = self.asked or requests.stop_asked(requests.get(self.store, self.search)[1])
        return self.asked

    @property
    def lost(self) -> bool:
        """Whether another process may run the search by now: nothing may be written about it any more."""
        return not self.held.held


@dataclass
class Attempt:
    """From when a process has claimed a search until the search's record says how that ended.

    Attributes:
        before: the search as it was when this attempt began.
        started: seconds since the epoch.
    """

    store: Store
    request: SearchRequest
    before: SearchState
    stop: StopSignal
    on_progress: Callable[[ProgressEvent], None]
    started: float = field(default_factory=time.time)

    def begins(self) -> None:
        """Its seconds count from here on; those of attempts before it that were killed have, too."""
        self.started = time.time()
        self.before = caught_up(self.store, self.before.with_(**charged(self.request)))

    @property
    def number(self) -> int:
        """Counted from 1."""
        return self.before.attempt + 1

    @property
    def granted_s(self) -> float:
        """The budget in seconds, of all attempts together."""
        return requests.granted_s(self.request, self.before)

    def left(self) -> tuple[float, str | None]:
        """Seconds that this attempt may take, and what to say if it is money that ends it."""
        left = self.granted_s - self.before.spent_s
        most = requests.granted_cost(self.request, self.before)
        if most is None or not self.before.per_hour:
            return left, None
        affordable = 3600 * (most - (self.before.cost or 0.0)) / self.before.per_hour
        if affordable >= left:
            return left, None
        return affordable, f"it may cost {prices.money(most, self.before.currency)}, and no more"

    def classes(self) -> int:
        """Of its data set."""
        return len(catalog.get(self.store, f"{self.request.dataset}@{self.request.dataset_version}").classes)

    def trials(self) -> list[TrialResult]:
        """The ledger, as it is in the store."""
        return requests.trials(self.store, self.request.id)

    def tell(self, message: str, ledger: Sequence[TrialResult] = ()) -> None:
        """Whoever watches."""
        event = ProgressEvent(
            elapsed_s=self.before.spent_s + time.time() - self.started,
            budget_s=self.granted_s,
            finishing_s=self.granted_s,  # no trials run before the first and after the last
            message=message,
            **counts(ledger, self.request.metric),
        )
        self.on_progress(event)

    def waits(self, message: str) -> None:
        """Whoever watches, while it waits for its turn, which costs nothing."""
        self.started = time.time()
        self.tell(message)

    def set_state(self, **changes: object) -> SearchState:
        """Change the search's record. Raises `LeaseLost` if that is no longer this process's to say."""
        if self.stop.lost:
            raise lost(self.request.id)
        return requests.set_state(self.store, self.request.id, **changes)

    def ends(self, ledger: list[TrialResult], **changes: object) -> SearchState:
        """Write down how it ended. Raises `LeaseLost` if that is no longer this process's to say."""
        best = self._won(ledger, changes.get("model")) or best_trial(ledger)
        spent_s = time.time() - self.started
        if self.before.per_hour is not None:
            changes["cost"] = (self.before.cost or 0.0) + spent_s / 3600 * self.before.per_hour
            changes |= {"per_hour": self.before.per_hour, "currency": self.before.currency}
        return self.set_state(
            spent_s=self.before.spent_s + spent_s,
            trials=len(ledger),
            best_trial=best.trial if best else None,
            best_value=best.metrics[self.request.metric] if best else None,
            **changes,
        )

    def _won(self, ledger: list[TrialResult], model: object) -> TrialResult | None:
        """The trial that became the model: not always the one that is best on validation."""
        if model is None:
            return None
        lineage = read_version(self.store, str(model)).lineage
        return next((r for r in ledger if (r.search, r.trial) == (lineage.search, lineage.trial)), None)


def charged(request: SearchRequest) -> dict[str, Any]:
    """What the cluster costs, as fields of a search's state; none without prices."""
    table = request.prices or prices.configured()
    if table is None:
        return {}
    return {"per_hour": prices.per_hour(table, prices.cluster()), "currency": table.currency}
