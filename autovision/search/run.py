"""One search from its record to a registered model: claim it, run its trials, finish it; at any moment resumable."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from autovision.errors import Conflict, Interrupted
from autovision.features import budget
from autovision.model.flops import stage_gflops
from autovision.model.footprint import Footprint, measure
from autovision.records import SearchRequest, SearchState, SearchStatus, TrialResult
from autovision.search import requests
from autovision.search.cost import CostModel
from autovision.search.driver import Driver
from autovision.search.feasibility import infeasible_backbones
from autovision.search.finish import finish
from autovision.search.limits import Limits
from autovision.search.progress import ProgressEvent
from autovision.search.select import best_trial, counts
from autovision.search.tune_loop import run_trials
from autovision.search.warm import starting_points
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.store import lease
from autovision.store.lease import HeldLease
from autovision.store.protocol import Store
from autovision.trial.trial import Workbench

_LEASE_S = 30.0
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
        if self.local() or not self.held.held:
            self.asked = True
        elif time.monotonic() - self._looked > _POLL_S:
            self._looked = time.monotonic()
            self.asked = self.asked or requests.get(self.store, self.search)[1].stop_requested
        return self.asked


def run_search(
    store: Store,
    search: str,
    *,
    on_progress: Callable[[ProgressEvent], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SearchState:
    """Run a search, or go on with it; a finished one is returned as it is. Ray must be connected.

    Raises:
        NotFound: no such search.
        Conflict: somebody else runs it.
        Interrupted: it was stopped; what was done is stored.
        AutoVisionError: it gave no model; the state says why.
    """
    request, state = requests.get(store, search)
    if state.status is SearchStatus.FINISHED:
        return state
    held = lease.acquire(store, f"search-{search}", f"{socket.gethostname()}:{os.getpid()}", _LEASE_S)
    if held is None:
        raise Conflict(
            f"search {search!r} is being run by another process; `autovision search watch {search}` follows it "
            f"(after a crash its lease ends within {_LEASE_S:g} s)"
        )
    with held:
        held.keep_alive()
        stop = StopSignal(store, search, held, should_stop)
        return _attempt(store, request, state, stop, on_progress)


def _attempt(
    store: Store,
    request: SearchRequest,
    before: SearchState,
    stop: StopSignal,
    on_progress: Callable[[ProgressEvent], None],
) -> SearchState:
    started = time.time()
    bench = Workbench(store, max(1, len(os.sched_getaffinity(0))), budget.configured_bytes())
    requests.set_state(
        store,
        request.id,
        status=SearchStatus.RUNNING,
        attempt=before.attempt + 1,
        stop_requested=False,
        error=None,
    )
    try:
        ledger, stopped = _trials(store, request, before, stop, on_progress, bench, started)
        if stopped:
            _note(store, request, ledger, before, started, status=SearchStatus.STOPPED, stop_requested=False)
            raise Interrupted(
                f"search {request.id} was stopped after {len(ledger)} trials; "
                f"`autovision search resume {request.id}` goes on with it"
            )
        on_progress(
            _last_event(request, ledger, before, started, "evaluating the best trial on the test split")
        )
        version = finish(store, request, ledger, bench)
    except Interrupted:
        raise
    except KeyboardInterrupt:
        _note(
            store, request, requests.trials(store, request.id), before, started, status=SearchStatus.STOPPED
        )
        raise
    except Exception as error:
        _note(
            store,
            request,
            requests.trials(store, request.id),
            before,
            started,
            status=SearchStatus.FAILED,
            error=str(error),
        )
        raise
    return _note(store, request, ledger, before, started, status=SearchStatus.FINISHED, model=version.id)


def _trials(
    store: Store,
    request: SearchRequest,
    before: SearchState,
    stop: StopSignal,
    on_progress: Callable[[ProgressEvent], None],
    bench: Workbench,
    started: float,
) -> tuple[list[TrialResult], bool]:
    """Run trials; the ledger, and whether a person stopped them."""
    space = Space.from_json(request.space)
    splits = bench.splits(f"{request.dataset}@{request.dataset_version}")
    cost = CostModel(bench, splits)
    left_out = infeasible_backbones(space, bench, request.licenses)
    classes = len(splits.version.classes)

    def measured(config: TrialConfig) -> Footprint:
        text = f"measuring {config.backbone} at {config.resolution or 'its own'} px as it is served"
        on_progress(_last_event(request, [], before, started, text))
        return measure(config, classes)

    limits = Limits(request, classes, measured)
    limits.explore(space, frozenset(left_out))
    notes = (*(f"left out {name}: {reason}" for name, reason in left_out.items()), *limits.notes)
    requests.set_state(store, request.id, notes=notes)
    for note in notes:
        on_progress(_last_event(request, [], before, started, note))
    left = request.budget_s - before.spent_s
    driver = Driver(
        store=store,
        request=request,
        space=space,
        cost=cost,
        starts=starting_points(store, request, space),
        ledger=requests.trials(store, request.id),
        attempt=before.attempt + 1,
        deadline=started
        + left
        - _finish_reserve(request, space, cost, len(splits.validation) + len(splits.test)),
        search_started=started - before.spent_s,
        threads=1,
        left_out=frozenset(left_out),
        fault=limits.fault,
        emit=on_progress,
    )
    run_trials(driver, stop)
    return driver.results, stop.asked


def _finish_reserve(request: SearchRequest, space: Space, cost: CostModel, images: int) -> float:
    """Seconds of the budget that evaluating and registering the winner will take, at most a quarter of it."""
    config = space.config(space.default())
    gflops = images * sum(stage_gflops(config.backbone, config.resolution))
    return min(0.25 * request.budget_s, 5.0 + gflops / cost.gflops_s / cost.bench.threads)


def _last_event(
    request: SearchRequest, ledger: list[TrialResult], before: SearchState, started: float, message: str
) -> ProgressEvent:
    return ProgressEvent(
        elapsed_s=before.spent_s + time.time() - started,
        budget_s=request.budget_s,
        message=message,
        **counts(ledger, request.metric),
    )


def _note(
    store: Store,
    request: SearchRequest,
    ledger: list[TrialResult],
    before: SearchState,
    started: float,
    **changes: object,
) -> SearchState:
    best = best_trial(ledger)
    return requests.set_state(
        store,
        request.id,
        spent_s=before.spent_s + time.time() - started,
        trials=len(ledger),
        best_trial=best.trial if best else None,
        best_value=best.metrics[request.metric] if best else None,
        **changes,
    )
