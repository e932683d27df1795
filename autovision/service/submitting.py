"""From a declaration to a search in the queue: checked, charged, and written once."""

from __future__ import annotations

import secrets
from typing import Any

from autovision.records.base import digest_of
from autovision.records.searches import SearchRequest, SearchState
from autovision.records.service import Submission
from autovision.records.tokens import Scope
from autovision.search import requests
from autovision.service import quotas
from autovision.service.access import Caller
from autovision.service.context import Context
from autovision.service.problems import NotYours, PriorityTooHigh
from autovision.service.schema import PREFIX, Extension, SearchDeclaration, Submitted
from autovision.space import Space
from autovision.space.load import shipped_space
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound

_OWN = {"dataset", "space", "again"}
"""fields of a declaration that are no fields of a request"""


def request_of(context: Context, declared: SearchDeclaration, caller: Caller, nonce: str) -> SearchRequest:
    """The checked request that a declaration stands for.

    Raises `InvalidInput`, `NotFound`, and `Forbidden` or `PriorityTooHigh` for more than the token allows.
    """
    if declared.deployment is not None:
        # The controller promotes its model, as far as the gates and the policy let it.
        caller.demand(Scope.PROMOTE)
        keys.check_name(declared.deployment, what="deployment")
    if caller.token is not None and not caller.token.allows_priority(declared.priority):
        # Each step up doubles a share: whoever may choose it freely may take everything from everybody.
        raise PriorityTooHigh(
            f"priority {declared.priority} is asked for, and this token may have {caller.token.max_priority} at most; "
            "ask for less, or for a token made with `autovision token create --max-priority`"
        )
    name, _, _ = declared.dataset.partition("@")
    keys.check_name(name, what="the data set's name")
    space = (
        shipped_space(declared.space) if isinstance(declared.space, str) else Space.from_json(declared.space)
    )
    options: dict[str, Any] = declared.model_dump(exclude={*_OWN, "metric", "objectives"})
    if declared.metric is not None:
        options["metric"] = declared.metric
    return context.av.prepare(
        declared.dataset,
        space,
        **options | {"prices": declared.prices},
        objectives=tuple(declared.objectives),
        nonce=nonce,
        reason=f"submitted by {caller.name}",
    )


def nonce_of(declared: SearchDeclaration, caller: Caller, key: str | None) -> str:
    """What makes a request another search; of one idempotency key always the same."""
    if not declared.again:
        return ""
    return secrets.token_hex(8) if key is None else digest_of([caller.name, key])[:16]


def submit(context: Context, request: SearchRequest, caller: Caller) -> Submitted:
    """Put a request into the queue, charged to the caller's token; the same again is the search that it already is.

    Raises `QuotaUsedUp`.
    """
    store, at = context.store, context.clock()
    known = state_of(context, request.id)
    if known is None:
        quotas.reserve(store, caller.token, request.id, request.budget_s, at)
        try:
            own = Submission(
                search=request.id,
                by=caller.name,
                token=None if caller.token is None else caller.token.id,
                at=at,
            )
            first, mine = records.create_or_read(store, keys.submission(request.id), own)
            if not mine and first.by != caller.name:  # somebody else submits the same at the same moment
                quotas.give_back(store, caller.token, request.id, at)
            context.av.submit(request, by=first.by)
        except Exception:
            quotas.give_back(store, caller.token, request.id, at)
            raise
    return Submitted(
        search=request.id,
        status="queued" if known is None else str(known.status),
        dataset=f"{request.dataset}@{request.dataset_version}",
        budget_s=request.budget_s,
        created=known is None,
        url=f"{PREFIX}/searches/{request.id}",
    )


def resume(context: Context, search: str, extension: Extension, caller: Caller) -> SearchState:
    """Put a search into the queue again, with more seconds if they are asked for; they are charged to the caller."""
    check_owner(context, search, caller)
    request, state = requests.get(context.store, search)
    if state.status not in requests.GOING:
        requests.check_alone(context.store, request)  # before anything is granted
    at, more_s = context.clock(), extension.budget_s
    quotas.reserve(context.store, caller.token, search, more_s or 0.0, at)
    try:
        if any(more is not None for more in (more_s, extension.max_trials, extension.max_cost)):
            context.av.extend(search, more_s, more_trials=extension.max_trials, more_cost=extension.max_cost)
        return requests.put_back(context.store, search)
    except Exception:
        quotas.give_back(context.store, caller.token, search, at)
        raise


def submitted_by(context: Context, search: str) -> str | None:
    """Who submitted a search through this service; None: nobody did."""
    try:
        return records.read(context.store, keys.submission(search), Submission).by
    except KeyNotFound:
        return None


def check_owner(context: Context, search: str, caller: Caller) -> None:
    """Raises `NotYours` for a search that somebody else submitted, unless the caller is an admin."""
    by = submitted_by(context, search)
    if caller.token is not None and by != caller.name and not caller.allows(Scope.ADMIN):
        raise NotYours(
            f"search {search!r} was submitted "
            + (f"by {by!r}" if by is not None else "on the store itself, and not through this service")
            + "; ask whoever did, or use a token with the scope 'admin'"
        )


def state_of(context: Context, search: str) -> SearchState | None:
    """How a search stands; None: there is none of that id, or it was not written to its end."""
    try:
        return records.read(context.store, keys.search_state(search), SearchState)
    except KeyNotFound:
        return None
