"""Seconds that a search has used, and more of them: also after attempts that were killed."""

from __future__ import annotations

from autovision.errors import Conflict, InvalidInput
from autovision.records.base import now
from autovision.records.searches import SearchState, SearchStatus
from autovision.search import requests
from autovision.search.begun import Begun
from autovision.store import keys, records
from autovision.store.protocol import Store


def caught_up(store: Store, state: SearchState) -> SearchState:
    """With the seconds of attempts that were killed: they could not write them down, but their trials did."""
    told = [point.search_s for result in requests.trials(store, state.search) for point in result.curve]
    going = records.read_all(store, keys.begun(state.search), Begun)
    told += [point.search_s for each in going for member in each.members for point in member.curve]
    lost_s = max([0.0, *told]) - state.spent_s
    if lost_s <= 0:
        return state
    cost = None if state.per_hour is None else (state.cost or 0.0) + lost_s / 3600 * state.per_hour
    return state.with_(spent_s=state.spent_s + lost_s, cost=cost)


def extend(store: Store, search: str, more_s: float) -> SearchState:
    """Let a search that is over, stopped or queued go on for so many seconds from where it is.

    What attempts used that were killed counts as used: the seconds come on top of it.
    The request stays as it is. A finished search keeps its model until a better one is registered.

    Raises:
        InvalidInput: no finite time above 0, or all the trials that the search may begin have ended.
        Conflict: it is being run.
        NotFound: no such search.
    """
    if not 0 < more_s < float("inf"):
        raise InvalidInput(f"{more_s:g} s more: give a finite time above 0; try --budget-s 120")
    request, _ = requests.get(store, search)
    # Trials that are paused, or were running when it was stopped, are not in the ledger: seconds finish them.
    if request.max_trials is not None and len(requests.trials(store, search)) >= request.max_trials:
        raise InvalidInput(
            f"search {search!r} has ended all of its {request.max_trials} trials, and more seconds would buy no more; "
            "submit a new one, which starts from what this one found"
        )

    def change(state: SearchState) -> SearchState:
        if state.status is SearchStatus.RUNNING:
            raise Conflict(
                f"search {search!r} is being run; let it end, or stop it with `autovision search stop {search}`, and "
                "then extend it (after a crash `autovision search resume` without seconds goes on with it)"
            )
        over = state.status.terminal
        return state.with_(
            budget_s=caught_up(store, state).spent_s + more_s,
            status=SearchStatus.STOPPED if over else state.status,
            error=None,
            ended_early=None,
            updated_at=now(),
        )

    return records.update(store, keys.search_state(search), SearchState, change)
