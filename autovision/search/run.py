"""One search from its record to a registered model: claim it, run its trials, finish it; at any moment resumable.

run_search     claim a search, run its trials, finish it
finish_search  finish one that was stopped, as it is
register       register the model of a given trial besides
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from autovision.errors import AutoVisionError, Conflict, Interrupted, InvalidInput, NotFound, near
from autovision.features import budget
from autovision.model.version import read_version
from autovision.records.base import now
from autovision.records.models import ModelVersion
from autovision.records.searches import SearchState, SearchStatus
from autovision.records.trials import TrialResult
from autovision.search import begun, requests
from autovision.search.attempt import Attempt, StopSignal, charged
from autovision.search.finishing.finish import finish
from autovision.search.progress import ProgressEvent
from autovision.search.select import best_trial
from autovision.search.sharing import cluster, preflight
from autovision.search.sharing.turn import Turn, stopped_before_its_turn
from autovision.search.trial_phase import Ran, trials_in_turn
from autovision.search.tune_loop import ExecutorLost
from autovision.store import keys, lease, records
from autovision.store.lease import LeaseLost
from autovision.store.protocol import Store
from autovision.trial.workbench import Workbench

_LEASE_S = 30.0
_MOST_ATTEMPTS = 4
"""after so many of them one that Ray broke off without a further trial is a failure"""


def run_search(
    store: Store,
    search: str,
    *,
    on_progress: Callable[[ProgressEvent], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    resumes: bool = True,
    from_queue: bool = False,
) -> SearchState:
    """Run a search, or go on with it; a finished one is returned as it is. Ray must be connected.

    Args:
        resumes: whether to go on with one that somebody has stopped; whoever works through the queue does not.
        from_queue: whether a controller took it up in its turn, so that it waits for no other one of the queue.

    Raises:
        NotFound: no such search.
        Conflict: somebody else runs it, or may do so since the lease was lost.
        Interrupted: it was stopped; what was done is stored.
        AutoVisionError: it gave no model; the state says why.
    """
    return _claimed(
        store,
        search,
        on_progress,
        should_stop,
        with_trials=True,
        resumes=resumes,
        from_queue=from_queue,
    )


def register(
    store: Store, search: str, trial: str, *, begins: Callable[[], None] = lambda: None
) -> ModelVersion:
    """Evaluate and register the model of a given trial of a search, such as another member of its front; needs no Ray.

    The search keeps the model that it has, which is also what its own winner gives.

    Args:
        begins: called when there is something to do, which takes seconds.

    Raises:
        NotFound: no such search, or no such trial in its ledger.
        InvalidInput: the trial left no model.
    """
    request, state = requests.get(store, search)
    ledger = {result.trial: result for result in requests.trials(store, search)}
    if trial not in ledger:
        raise NotFound(
            f"search {search!r} has no trial {trial!r}; `autovision search show {search}` shows the best"
            f"{near(trial, ledger)}"
        )
    if ledger[trial].weights_key is None:
        raise InvalidInput(
            f"trial {trial!r} is {ledger[trial].state} and left no model; choose another trial"
        )
    if state.model is not None:
        own = read_version(store, state.model)
        if (own.lineage.search, own.lineage.trial) == (search, trial):
            return own
    begins()
    return finish(store, request, [ledger[trial]], _workbench(store), beside_champion=False)


def finish_search(
    store: Store, search: str, *, on_progress: Callable[[ProgressEvent], None] = lambda event: None
) -> SearchState:
    """Evaluate and register the best that a search has so far, without another trial; needs no Ray.

    A finished search is returned as it is. One that is finished so may be extended, like any other.

    Raises:
        NotFound: no such search.
        Conflict: somebody runs it.
        AutoVisionError: it has no trial that left a model.
    """
    return _claimed(store, search, on_progress, lambda: False, with_trials=False)


def _workbench(store: Store) -> Workbench:
    """With all processors of this process."""
    return Workbench(store, max(1, len(os.sched_getaffinity(0))), budget.configured_bytes())


def _claimed(
    store: Store,
    search: str,
    on_progress: Callable[[ProgressEvent], None],
    should_stop: Callable[[], bool],
    *,
    with_trials: bool,
    resumes: bool = True,
    from_queue: bool = False,
) -> SearchState:
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
        attempt = Attempt(store, request, state, StopSignal(store, search, held, should_stop), on_progress)
        if not with_trials:
            return _run(attempt, None)
        attempt.before = _taken_up(store, search, resumes)
        if attempt.before.status is SearchStatus.FINISHED:
            return attempt.before
        with Turn(
            store,
            request,
            attempt.before.created_at,
            behind_queue=not from_queue,
            held=lambda: held.held,
        ) as turn:
            _wait(attempt, turn)
            return _run(attempt, turn)


def _taken_up(store: Store, search: str, resumes: bool) -> SearchState:
    """As it is in the queue, with a process: that it was stopped before is over, and who stops it now is heeded.

    Raises `Interrupted` if it is stopped, and this process is not to go on with such a one.
    """

    def change(state: SearchState) -> SearchState | None:
        if state.status is SearchStatus.FINISHED:
            return None
        left = requests.stop_asked(state) and not resumes
        status = SearchStatus.STOPPED if left else SearchStatus.QUEUED
        return state.with_(status=status, stop_requested=False, updated_at=now())

    state = records.update(store, keys.search_state(search), SearchState, change)
    if state.status is SearchStatus.STOPPED:
        raise stopped_before_its_turn(search)
    return state


def _wait(attempt: Attempt, turn: Turn) -> None:
    """Return when the search may begin; its budget is not spent with waiting."""
    try:
        preflight.check_models(attempt.request, attempt.classes(), cluster.here())
        charged(attempt.request)  # a price that is missing is told before anything is spent
        turn.wait(attempt.stop, attempt.waits)
    except (Interrupted, LeaseLost):
        raise
    except AutoVisionError as error:
        with suppress(LeaseLost):
            attempt.set_state(status=SearchStatus.FAILED, error=str(error))
        raise


def _run(attempt: Attempt, turn: Turn | None) -> SearchState:
    """Run trials in turn, without one none; then finish."""
    attempt.begins()
    if turn is None:
        begun.settle(attempt.store, attempt.request.id)
        _check_finishable(attempt)
    bench = _workbench(attempt.store)
    _runs(attempt, heeds_stop=turn is not None)
    try:
        ran = _tried(attempt, turn, bench)
        finishing = time.time()
        model = _model(attempt, ran, bench)
    except (Interrupted, LeaseLost):
        raise
    except (KeyboardInterrupt, Exception) as error:
        ledger = attempt.trials()
        with suppress(LeaseLost):
            attempt.ends(ledger, **_ended(error, attempt.before, len(ledger)))
        raise
    finishing_s = attempt.before.finishing_s + time.time() - finishing
    return attempt.ends(ran.ledger, status=SearchStatus.FINISHED, model=model, finishing_s=finishing_s)


def _tried(attempt: Attempt, turn: Turn | None, bench: Workbench) -> Ran:
    """What trials came to. Raises `Interrupted` if a person stopped them."""
    if turn is None:
        attempt.set_state(ended_early="it was finished as it was, on request")
        return Ran(attempt.trials())
    ran = trials_in_turn(attempt, turn, bench)
    if ran.stopped:
        search = attempt.request.id
        attempt.ends(ran.ledger, status=SearchStatus.STOPPED, stop_requested=False)
        raise Interrupted(
            f"search {search} was stopped after {len(ran.ledger)} trials; "
            f"`autovision search resume {search}` goes on with it, `autovision search finish {search}` "
            "registers the best so far"
        )
    return ran


def _model(attempt: Attempt, ran: Ran, bench: Workbench) -> str:
    """The id of the model that the trials come to."""
    attempt.tell("finishing the best trial, and evaluating it on the test split", ran.ledger)
    known = _known_model(attempt, ran.ledger)
    if known is not None:
        return known
    return finish(attempt.store, attempt.request, ran.ledger, bench, cost=ran.cost, deadline=ran.finish_by).id


def _ended(error: BaseException, before: SearchState, trials: int) -> dict[str, Any]:
    """How an attempt ended that an error ended, as fields of a search's state.

    What Ray lost is not the search's fault: it waits to be gone on with, unless attempt after attempt comes to nothing.
    """
    if isinstance(error, KeyboardInterrupt):
        return {"status": SearchStatus.STOPPED}
    if isinstance(error, ExecutorLost) and (trials > before.trials or before.attempt + 1 < _MOST_ATTEMPTS):
        return {"status": SearchStatus.QUEUED}
    return {"status": SearchStatus.FAILED, "error": str(error)}


def _runs(attempt: Attempt, *, heeds_stop: bool) -> None:
    """Say that a search runs. Raises `Interrupted` if somebody has stopped it since this process took it up."""
    search = attempt.request.id

    def change(state: SearchState) -> SearchState | None:
        if heeds_stop and requests.stop_asked(state):
            return None
        return state.with_(
            status=SearchStatus.RUNNING,
            attempt=attempt.number,
            stop_requested=False,
            error=None,
            ended_early=None,
            updated_at=now(),
        )

    state = records.update(attempt.store, keys.search_state(search), SearchState, change)
    if state.status is not SearchStatus.RUNNING:
        raise stopped_before_its_turn(search)


def _check_finishable(attempt: Attempt) -> None:
    """Raises `InvalidInput` if there is nothing to finish: the search stays as it is."""
    search, ledger = attempt.request.id, attempt.trials()
    if best_trial(ledger) is None:
        raise InvalidInput(
            f"search {search} has no trial yet that left a model, of {len(ledger)}; "
            f"`autovision search resume {search}` runs some"
        )


def _known_model(attempt: Attempt, ledger: list[TrialResult]) -> str | None:
    """The model that was registered before, if no trial since then is better."""
    best = best_trial(ledger)
    if attempt.before.model is None or best is None:
        return None
    try:
        known = read_version(attempt.store, attempt.before.model)
    except NotFound:
        return None
    return known.id if best.created_at <= known.created_at else None
