"""What a search has used of its budget, and more of it: also after attempts that were killed."""

from __future__ import annotations

from typing import Any

from autovision.errors import Conflict, InvalidInput
from autovision.records.base import now
from autovision.records.searches import SearchRequest, SearchState, SearchStatus
from autovision.search import requests
from autovision.search.begun import Begun
from autovision.search.estimates import prices
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


def extend(
    store: Store,
    search: str,
    more_s: float | None = None,
    *,
    more_trials: int | None = None,
    more_cost: float | None = None,
) -> SearchState:
    """Let a search that is over, stopped or queued go on for so much from where it is.

    What attempts used that were killed counts as used: seconds and cost come on top of it, trials on top of those that
    have ended. What is not named stays as it is. So does the request. A finished search keeps its model until a better
    one is registered.

    Raises:
        InvalidInput: nothing, or nothing finite above 0, or another bound is used up, so that it would buy nothing.
        Conflict: it is being run; or like `requests.check_alone`, if it is over.
        NotFound: no such search.
    """
    for name, more in (("s", more_s), ("trials", more_trials), ("of cost", more_cost)):
        if more is not None and not 0 < more < float("inf"):
            raise InvalidInput(f"{more:g} {name} more: give a finite number above 0, such as --budget-s 120")
    if all(more is None for more in (more_s, more_trials, more_cost)):
        raise InvalidInput(f"nothing more is given to search {search!r}; try --budget-s 120")
    request, before = requests.get(store, search)
    if before.status not in requests.GOING:
        requests.check_alone(store, request)
    if more_cost is not None and request.prices is None and prices.configured() is None:
        raise InvalidInput(
            f"{more_cost:g} more: nothing tells what the cluster costs; the search was submitted without --prices, and "
            "AUTOVISION_PRICES names no table"
        )
    # Trials that are paused, or were running when it was stopped, are not in the ledger: seconds finish them.
    ended = len(requests.trials(store, search))

    def extended(state: SearchState) -> SearchState:
        used = caught_up(store, state)
        changes: dict[str, Any] = {}
        if more_s is not None:
            changes["budget_s"] = used.spent_s + more_s
        if more_trials is not None:
            changes["max_trials"] = ended + more_trials
        if more_cost is not None:
            changes["max_cost"] = (used.cost or 0.0) + more_cost
        found = state.with_(**changes)
        _check(request, found, used, ended)
        return found

    def change(state: SearchState) -> SearchState:
        if state.status is SearchStatus.RUNNING:
            raise Conflict(
                f"search {search!r} is being run; let it end, or stop it with `autovision search stop {search}`, and "
                "then extend it (after a crash `autovision search resume` alone goes on with it)"
            )
        over = state.status.terminal
        return extended(state).with_(
            status=SearchStatus.STOPPED if over else state.status,
            error=None,
            ended_early=None,
            updated_at=now(),
        )

    return records.update(store, keys.search_state(search), SearchState, change)


def _check(request: SearchRequest, state: SearchState, used: SearchState, ended: int) -> None:
    """Raises `InvalidInput` where a search is extended and another bound keeps it from going on all the same."""
    seconds, trials = requests.granted_s(request, state), requests.granted_trials(request, state)
    cost = requests.granted_cost(request, state)
    if used.spent_s >= seconds:
        raise InvalidInput(
            f"search {state.search!r} has used all of its {seconds:g} s; give it seconds, too, with --budget-s"
        )
    if trials is not None and ended >= trials:
        raise InvalidInput(
            f"search {state.search!r} has ended all of its {trials} trials, and nothing else would buy more; give it "
            "trials, too, with --max-trials, or submit a new one, which starts from what this one found"
        )
    if cost is not None and used.cost is not None and used.cost >= cost:
        raise InvalidInput(
            f"search {state.search!r} has cost the {prices.money(cost, used.currency)} that it may; give it more, with "
            "--max-cost"
        )
