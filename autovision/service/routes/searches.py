"""Searches: submit, list, show, follow, explain, stop and resume."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from pydantic import TypeAdapter
from starlette.responses import Response

from autovision.records.searches import SearchState
from autovision.records.tokens import Scope
from autovision.records.trials import TrialResult
from autovision.registry.searches import all_searches
from autovision.search import requests
from autovision.service import submitting
from autovision.service.access import Caller, Reader, Submitter
from autovision.service.audit import acting, trail_of
from autovision.service.context import Context, Ctx
from autovision.service.events import EventStream, Follower, stream
from autovision.service.idempotency import Asked, Key, once
from autovision.service.paging import Cursor, Limit, page
from autovision.service.routes.common import SearchId, answer, problems
from autovision.service.schema import (
    Extension,
    Page,
    QueueEntry,
    SearchDeclaration,
    SearchSummary,
    SearchView,
    Submitted,
)
from autovision.serving.problems import Refusal
from autovision.store import keys

router = APIRouter(tags=["searches"], responses=problems())

_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "events until the search ends", "content": {"text/event-stream": {}}},
    204: {"description": "the end was told already, by the event of Last-Event-ID"},
}
_ANYTHING = TypeAdapter(dict[str, Any], config={"ser_json_inf_nan": "null"})


@router.post(
    "/searches",
    status_code=202,
    response_model=Submitted,
    responses=problems(404, 409, 429),
    dependencies=[acting("search.submit")],
)
def submit_search(
    request: Request,
    context: Ctx,
    caller: Submitter,
    declared: SearchDeclaration,
    idempotency_key: Key = None,
) -> Any:
    """Put a search into the queue. The same declaration again is the same search, unless it says `again`."""
    trail = trail_of(request)

    def act(subject: str | None, intend: Callable[[str], None]) -> tuple[int, dict[str, Any]]:
        if subject is not None and submitting.state_of(context, subject) is not None:
            # An earlier try put it there, and was killed before it could say so.
            wanted = requests.get(context.store, subject)[0]
        else:
            nonce = submitting.nonce_of(declared, caller, idempotency_key)
            # Every network of the space is built to see its size: a space of hundreds would hold all threads.
            with context.room.heavy() if declared.max_size_mb is not None else nullcontext():
                wanted = submitting.request_of(context, declared, caller, nonce)
            intend(wanted.id)
        made = submitting.submit(context, wanted, caller)
        return 202, made.model_dump(mode="json")

    if idempotency_key is None:
        status, body = act(None, lambda search: None)
        replayed = False
    else:
        asked = Asked(
            idempotency_key, caller.name, "POST", request.url.path, declared.model_dump(mode="json")
        )
        status, body, replayed = once(context.store, asked, act, context.clock(), repeatable=True)
    made = Submitted.model_validate(body)
    trail.subject = made.search
    headers = {"location": made.url} | ({"idempotency_replayed": "true"} if replayed else {})
    return answer(made, status, **headers)


@router.get("/searches", response_model=Page[SearchSummary])
def list_searches(context: Ctx, caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Any:
    """The searches, oldest first."""
    found = page(
        all_searches(context.store),
        lambda pair: f"{keys.stamp(pair[1].created_at)}-{pair[0].id}",
        limit,
        cursor,
        lambda pair: SearchSummary.model_validate(
            {
                **requests.summary(*pair),
                "seed": pair[0].seed,
                "created_at": pair[1].created_at,
            }
        ),
    )
    return answer(found)


@router.get("/queue", response_model=list[QueueEntry])
def show_queue(context: Ctx, caller: Reader) -> Any:
    """The searches that run and those that wait: in which order, with what share, and why they wait."""
    entries = [
        QueueEntry(
            search=each.request.id,
            status=str(each.state.status),
            position=each.position,
            priority=each.request.priority,
            submitted_at=each.state.created_at,
            workers_per_trial=each.request.workers_per_trial,
            share=each.share,
            running=each.running,
            cluster=each.cluster,
            why=each.why,
        )
        for each in context.av.queue()
    ]
    return Response(TypeAdapter(list[QueueEntry]).dump_json(entries), media_type="application/json")


@router.get("/searches/{search}", response_model=SearchView, responses=problems(404))
def show_search(context: Ctx, caller: Reader, search: SearchId) -> Any:
    """What a search was asked, how it stands, and who submitted it."""
    request, state = _found(context, search)
    by = submitting.submitted_by(context, search)
    return answer(SearchView(request=request, state=state, submitted_by=by))


@router.get("/searches/{search}/trials", response_model=Page[TrialResult], responses=problems(404))
def list_trials(
    context: Ctx, caller: Reader, search: SearchId, limit: Limit = 50, cursor: Cursor = None
) -> Any:
    """The trials that have ended, in the order in which they were begun."""
    _found(context, search)
    found = page(
        requests.trials(context.store, search),
        lambda each: f"{each.number:09d}-{each.trial}",
        limit,
        cursor,
        lambda each: each,
    )
    return answer(found)


@router.get("/searches/{search}/explanation", response_model=dict[str, Any], responses=problems(404))
def explain_search(context: Ctx, caller: Reader, search: SearchId) -> Any:
    """Why it ended as it did, or how far it has come: what mattered, what was pruned, where the seconds went."""
    _found(context, search)
    with context.room.heavy():
        found = asdict(context.av.explain(search))
    return Response(_ANYTHING.dump_json(found), media_type="application/json")


@router.get("/searches/{search}/events", response_model=None, responses=problems(404, 429) | _EVENTS)
def follow_search(
    request: Request,
    context: Ctx,
    caller: Reader,
    search: SearchId,
    last_event_id: Annotated[
        str | None, Header(max_length=64, description="The last event that was seen.")
    ] = None,
) -> Any:
    """A search as it goes, as server-sent events: `trial`, `progress`, and `end` when nobody works on it any more."""
    _found(context, search)
    follower = Follower(context.store, search, last_event_id)
    if follower.nothing_new:
        return Response(status_code=204)
    parts = stream(follower, context.limits, lambda: _may_go_on(request, context))
    return EventStream(parts, context.room, caller.name)


@router.post(
    "/searches/{search}/stop",
    response_model=SearchState,
    responses=problems(404, 409),
    dependencies=[acting("search.stop")],
)
def stop_search(context: Ctx, caller: Submitter, search: SearchId) -> Any:
    """Ask whoever runs it to stop it; what it has done is kept. Again does nothing."""
    _found(context, search)
    submitting.check_owner(context, search, caller)
    return answer(requests.request_stop(context.store, search))


@router.post(
    "/searches/{search}/resume",
    response_model=SearchState,
    responses=problems(404, 409, 429),
    dependencies=[acting("search.resume")],
)
def resume_search(
    request: Request,
    context: Ctx,
    caller: Submitter,
    search: SearchId,
    extension: Extension,
    idempotency_key: Key = None,
) -> Any:
    """Put a search that was stopped, or failed, into the queue again; with seconds also one that is finished."""
    _found(context, search)

    def act(subject: str | None, intend: Callable[[str], None]) -> tuple[int, dict[str, Any]]:
        return 200, submitting.resume(context, search, extension, caller).model_dump(mode="json")

    body = acted_once(request, context, caller, idempotency_key, extension.model_dump(mode="json"), act)
    return answer(SearchState.model_validate(body))


def acted_once(
    request: Request, context: Context, caller: Caller, key: str | None, body: Any, act: Any
) -> dict[str, Any]:
    """The body of the answer to an act, which with an idempotency key is done once."""
    if key is None:
        done: dict[str, Any] = act(None, lambda subject: None)[1]
        return done
    asked = Asked(key, caller.name, request.method, request.url.path, body)
    return once(context.store, asked, act, context.clock())[1]


def _found(context: Context, search: str) -> Any:
    return requests.get(context.store, keys.check_id(search, what="search"))


def _may_go_on(request: Request, context: Context) -> bool:
    """Whether a stream's caller may still read, and the service goes on."""
    if context.closing.is_set():
        return False
    if context.book is None:
        return True
    try:
        context.book.caller(request.headers.get("authorization"), Scope.READ)
    except Refusal:
        return False
    return True
