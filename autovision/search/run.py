"""One search from its record to a registered model: claim it, run its trials, finish it; at any moment resumable.

run_search     claim a search, run its trials, finish it
finish_search  finish one that was stopped, as it is
register       register the model of a given trial besides
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from autovision.dataset import catalog
from autovision.errors import AutoVisionError, Conflict, Interrupted, InvalidInput, NotFound, near
from autovision.features import budget
from autovision.model.footprint import Footprint, measure
from autovision.model.version import read_version
from autovision.records.base import now
from autovision.records.models import ModelVersion
from autovision.records.searches import SearchRequest, SearchState, SearchStatus
from autovision.records.trials import TrialResult
from autovision.search import begun, requests, similarity
from autovision.search.constraints.footprints import remembered
from autovision.search.constraints.limits import Limits
from autovision.search.costing.cost import CostModel
from autovision.search.costing.node import this_node
from autovision.search.driver import Driver
from autovision.search.estimates import prices
from autovision.search.estimates.estimate import estimate
from autovision.search.extending import caught_up
from autovision.search.feasibility import infeasible_backbones
from autovision.search.finishing.finish import evaluated, finish
from autovision.search.multiobjective.model_costs import Costs
from autovision.search.progress import ProgressEvent
from autovision.search.reserve import Reserve
from autovision.search.select import best_trial, counts
from autovision.search.sharing import cluster, preflight
from autovision.search.sharing.placement import placement
from autovision.search.sharing.turn import Turn, lost, stopped_before_its_turn
from autovision.search.tune_loop import nodes, run_trials
from autovision.search.warm import Start, similar_points, starting_points
from autovision.search.watch import Watch
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.space.named import backbones_of
from autovision.store import keys, lease, records
from autovision.store.lease import HeldLease, LeaseLost
from autovision.store.protocol import Store
from autovision.trial.trial import Workbench

_LEASE_S = 30.0
_POLL_S = 1.0
_MEASURING_SHARE = 0.2
"""of the seconds that are left may go by before no more architectures are measured, where latency is an objective"""
_SKETCHED = 2
"""so many backbones say what a data set looks like"""


@dataclass
class Ran:
    """What trials came to.

    Attributes:
        stopped: whether a person stopped them.
        cost: what was learnt of speed; None: there were no trials.
        finish_by: seconds since the epoch, by which the winner should have been trained again.
    """

    ledger: list[TrialResult]
    stopped: bool = False
    cost: CostModel | None = None
    finish_by: float = math.inf


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
    bench = Workbench(store, max(1, len(os.sched_getaffinity(0))), budget.configured_bytes())
    return finish(store, request, [ledger[trial]], bench, beside_champion=False)


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
        stop = StopSignal(store, search, held, should_stop)
        if not with_trials:
            return _attempt(store, request, state, None, stop, on_progress)
        state = _taken_up(store, search, resumes)
        if state.status is SearchStatus.FINISHED:
            return state
        with Turn(
            store, request, state.created_at, behind_queue=not from_queue, held=lambda: held.held
        ) as turn:
            _wait(store, request, state, turn, stop, on_progress)
            return _attempt(store, request, state, turn, stop, on_progress)


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


def _wait(
    store: Store,
    request: SearchRequest,
    before: SearchState,
    turn: Turn,
    stop: StopSignal,
    on_progress: Callable[[ProgressEvent], None],
) -> None:
    """Return when the search may begin; its budget is not spent with waiting."""

    def tell(text: str) -> None:
        on_progress(_last_event(request, [], before, time.time(), text))

    try:
        preflight.check_models(request, _classes(store, request), cluster.here())
        turn.wait(stop, tell)
    except (Interrupted, LeaseLost):
        raise
    except AutoVisionError as error:
        if not stop.lost:
            requests.set_state(store, request.id, status=SearchStatus.FAILED, error=str(error))
        raise


def _classes(store: Store, request: SearchRequest) -> int:
    return len(catalog.get(store, f"{request.dataset}@{request.dataset_version}").classes)


def _attempt(
    store: Store,
    request: SearchRequest,
    before: SearchState,
    turn: Turn | None,
    stop: StopSignal,
    on_progress: Callable[[ProgressEvent], None],
) -> SearchState:
    """Run trials in turn, without one none; then finish."""
    started = time.time()
    if turn is None:
        begun.settle(store, request.id)
        _check_finishable(request, requests.trials(store, request.id))
    before = caught_up(store, before.with_(**_charged(request)))
    bench = Workbench(store, max(1, len(os.sched_getaffinity(0))), budget.configured_bytes())
    _runs(store, before, heeds_stop=turn is not None)
    try:
        if turn is not None:
            ran = _trials(store, request, before, turn, stop, on_progress, bench, started)
        else:
            ran = Ran(requests.trials(store, request.id))
            requests.set_state(store, request.id, ended_early="it was finished as it was, on request")
        ledger = ran.ledger
        if ran.stopped:
            _note(
                store,
                request,
                ledger,
                before,
                started,
                stop,
                status=SearchStatus.STOPPED,
                stop_requested=False,
            )
            raise Interrupted(
                f"search {request.id} was stopped after {len(ledger)} trials; "
                f"`autovision search resume {request.id}` goes on with it, `autovision search finish {request.id}` "
                "registers the best so far"
            )
        on_progress(
            _last_event(
                request,
                ledger,
                before,
                started,
                "finishing the best trial, and evaluating it on the test split",
            )
        )
        model = _known_model(store, before, ledger)
        if model is None:
            model = finish(store, request, ledger, bench, cost=ran.cost, deadline=ran.finish_by).id
    except (Interrupted, LeaseLost):
        raise
    except (KeyboardInterrupt, Exception) as error:
        ended = (
            {"status": SearchStatus.STOPPED}
            if isinstance(error, KeyboardInterrupt)
            else {"status": SearchStatus.FAILED, "error": str(error)}
        )
        with suppress(LeaseLost):
            _note(store, request, requests.trials(store, request.id), before, started, stop, **ended)
        raise
    return _note(store, request, ledger, before, started, stop, status=SearchStatus.FINISHED, model=model)


def _runs(store: Store, before: SearchState, *, heeds_stop: bool) -> None:
    """Say that a search runs. Raises `Interrupted` if somebody has stopped it since this process took it up."""

    def change(state: SearchState) -> SearchState | None:
        if heeds_stop and requests.stop_asked(state):
            return None
        return state.with_(
            status=SearchStatus.RUNNING,
            attempt=before.attempt + 1,
            stop_requested=False,
            error=None,
            ended_early=None,
            updated_at=now(),
        )

    state = records.update(store, keys.search_state(before.search), SearchState, change)
    if state.status is not SearchStatus.RUNNING:
        raise stopped_before_its_turn(before.search)


def _check_finishable(request: SearchRequest, ledger: list[TrialResult]) -> None:
    """Raises `InvalidInput` if there is nothing to finish: the search stays as it is."""
    if best_trial(ledger) is None:
        raise InvalidInput(
            f"search {request.id} has no trial yet that left a model, of {len(ledger)}; "
            f"`autovision search resume {request.id}` runs some"
        )


def _known_model(store: Store, before: SearchState, ledger: list[TrialResult]) -> str | None:
    """The model that was registered before, if no trial since then is better."""
    best = best_trial(ledger)
    if before.model is None or best is None:
        return None
    try:
        known = read_version(store, before.model)
    except NotFound:
        return None
    return known.id if best.created_at <= known.created_at else None


def _charged(request: SearchRequest) -> dict[str, Any]:
    """What the cluster costs, as fields of a search's state; none without prices."""
    table = request.prices or prices.configured()
    if table is None:
        return {}
    return {"per_hour": prices.per_hour(table, prices.cluster()), "currency": table.currency}


def _trials(
    store: Store,
    request: SearchRequest,
    before: SearchState,
    turn: Turn,
    stop: StopSignal,
    on_progress: Callable[[ProgressEvent], None],
    bench: Workbench,
    started: float,
) -> Ran:
    """Run trials until the budget leaves just what finishing takes."""
    space = Space.from_json(request.space)
    splits = bench.splits(f"{request.dataset}@{request.dataset_version}", request.parent_model)
    kind = this_node(workers=request.workers_per_trial)
    cost = CostModel(bench, splits, kind, warm=request.warm_start)
    left_out = infeasible_backbones(space, bench, request.licenses)
    classes = len(splits.version.classes)

    def measured(config: TrialConfig) -> Footprint:
        text = f"measuring {config.backbone} at {config.resolution or 'its own'} px as it is served"
        on_progress(_last_event(request, [], before, started, text))
        return measure(config, classes)

    known = remembered(store, classes, measured)
    limits = Limits(request, classes, known)
    limits.explore(space, frozenset(left_out))
    costs = Costs(request.objectives, classes, known)
    measuring_until = time.time() + _MEASURING_SHARE * (requests.granted_s(request, before) - before.spent_s)
    guessed = costs.explore(
        space,
        lambda config: config.backbone not in left_out and limits.fault(config) is None,
        until=lambda: time.time() > measuring_until,
    )
    if guessed:
        on_progress(_last_event(request, [], before, started, guessed))
    notes = (*(f"left out {name}: {reason}" for name, reason in left_out.items()), *limits.notes)
    requests.set_state(store, request.id, notes=notes)
    for note in notes:
        on_progress(_last_event(request, [], before, started, note))
    left, scarce = _left_s(request, before)
    reserve = Reserve(request, cost, space.config(space.default()), evaluated(splits), left, bench.threads)
    ledger = requests.trials(store, request.id)
    if all(result.value is None for result in ledger):
        buys = estimate(
            cost,
            space,
            left,
            cpus=placement(nodes(), request.workers_per_trial).concurrent,
            finish_s=reserve(None),
            left_out=frozenset(left_out),
            per_hour=before.per_hour,
            currency=before.currency,
        )
        requests.set_state(store, request.id, estimate=str(buys))
        on_progress(_last_event(request, [], before, started, f"estimate: {buys}"))
    granted = requests.granted_s(request, before)
    driver = Driver(
        store=store,
        request=request,
        space=space,
        cost=cost,
        starts=starting_points(store, request, space),
        ledger=ledger,
        attempt=before.attempt + 1,
        deadline=started + left,
        search_started=started - before.spent_s,
        threads=1,
        left_out=frozenset(left_out),
        fault=limits.fault,
        costs=costs,
        emit=lambda event: on_progress(replace(event, budget_s=granted)),
        share=turn.share,
        finishing_s=reserve,
        images=len(splits.validation),
    )

    def late_starts() -> list[Start] | None:
        """From data sets that look like this one, as soon as features tell."""
        if not (seen := _reported(driver)):
            return None
        return similar_points(store, request, space, similarity.neighbours(bench, splits, seen))

    watch = Watch(
        driver,
        stop,
        len(splits.validation),
        backbones=tuple(backbones_of(space)),
        late_starts=late_starts if request.warm_start else lambda: None,
    )
    turn.follow(lambda: (driver.at_work, driver.wants))
    try:
        run_trials(driver, watch)
    finally:
        cost.keep()
    turn.finishing()
    if stop.lost:
        raise lost(request.id)
    if not stop.asked:
        similarity.remember(bench, splits, _reported(driver))
    ended_early = None if stop.asked else _why_ended(driver, watch, scarce)
    requests.set_state(store, request.id, ended_early=ended_early)
    if ended_early:
        on_progress(_last_event(request, driver.ledger, before, started, f"ended early: {ended_early}"))
    best = best_trial(driver.results)
    evaluation_s = 0.0 if best is None else reserve.evaluation_s(TrialConfig.model_validate(best.config))
    return Ran(driver.results, stop.asked, cost, started + left - evaluation_s)


def _why_ended(driver: Driver, watch: Watch, scarce: str | None) -> str | None:
    """Why trials ended before the budget did; None: they did not, or all that were asked for were begun.

    Args:
        scarce: what to say if what ended them is that nothing more fits into the seconds that were left.
    """
    most = driver.request.max_trials
    if watch.ended_early is not None or (most is not None and driver.begun >= most):
        return watch.ended_early
    return "everything in the space was tried" if driver.exhausted else scarce


def _reported(driver: Driver) -> list[TrialConfig]:
    """Of each backbone with a value, at the resolution with the most trials of any: the features are there."""
    configs = [TrialConfig.model_validate(result.config) for result in driver.ledger if result.curve]
    configs += [running.assignment.config for running in driver.running.values() if running.reported]
    named = Counter((config.backbone, config.weights, config.resolution) for config in configs)
    return [
        TrialConfig(backbone=backbone, weights=weights, resolution=resolution)
        for (backbone, weights, resolution), _ in named.most_common(_SKETCHED)
    ]


def _left_s(request: SearchRequest, before: SearchState) -> tuple[float, str | None]:
    """Seconds that an attempt may take, and what to say if it is money that ends it."""
    left = requests.granted_s(request, before) - before.spent_s
    if request.max_cost is None or not before.per_hour:
        return left, None
    affordable = 3600 * (request.max_cost - (before.cost or 0.0)) / before.per_hour
    if affordable >= left:
        return left, None
    return affordable, f"it may cost {prices.money(request.max_cost, before.currency)}, and no more"


def _last_event(
    request: SearchRequest, ledger: list[TrialResult], before: SearchState, started: float, message: str
) -> ProgressEvent:
    return ProgressEvent(
        elapsed_s=before.spent_s + time.time() - started,
        budget_s=requests.granted_s(request, before),
        message=message,
        **counts(ledger, request.metric),
    )


def _won(store: Store, ledger: list[TrialResult], model: object) -> TrialResult | None:
    """The trial that became the model: not always the one that is best on validation."""
    if model is None:
        return None
    lineage = read_version(store, str(model)).lineage
    return next((r for r in ledger if (r.search, r.trial) == (lineage.search, lineage.trial)), None)


def _note(
    store: Store,
    request: SearchRequest,
    ledger: list[TrialResult],
    before: SearchState,
    started: float,
    stop: StopSignal,
    **changes: object,
) -> SearchState:
    """Write down how an attempt ended. Raises `LeaseLost` if that is no longer this process's to say."""
    best = _won(store, ledger, changes.get("model")) or best_trial(ledger)
    spent_s = time.time() - started
    if before.per_hour is not None:
        changes["cost"] = (before.cost or 0.0) + spent_s / 3600 * before.per_hour
        changes |= {"per_hour": before.per_hour, "currency": before.currency}
    if stop.lost:
        raise lost(request.id)
    return requests.set_state(
        store,
        request.id,
        spent_s=before.spent_s + spent_s,
        trials=len(ledger),
        best_trial=best.trial if best else None,
        best_value=best.metrics[request.metric] if best else None,
        **changes,
    )
