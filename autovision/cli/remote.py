"""Commands on an API service instead of a store. Nothing here needs more than the client: no Ray, torch or numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from autovision.cli import search_views as views
from autovision.cli.output import Output

if TYPE_CHECKING:
    from autovision.records.searches import SearchState
    from autovision.service.client import ServiceClient
    from autovision.service.schema import Progress, SearchDeclaration

_NOT_TRAVELLING = {"space", "licenses", "objectives", "metric"}
"""of what a search is asked, what has another form on its way"""


def service(out: Output, address: str, token_file: Path | None) -> ServiceClient:
    """A client of the service at an address; says so where its token could be read on the way."""
    from autovision.service.client import ServiceClient, token_of

    client = ServiceClient(address, token_of(token_file))
    if client.exposed:
        out.note(f"the token for {client.address} can be read on its way; use an https address")
    return client


def declaration(dataset: str, asked: Mapping[str, Any], *, again: bool) -> SearchDeclaration:
    """What the options of `search submit` ask, as data. A space that is code is read here, and stays here.

    Raises `InvalidInput`, `InvalidSpace`.
    """
    from pydantic import ValidationError

    from autovision.errors import InvalidInput
    from autovision.service.schema import SearchDeclaration

    space = asked["space"]
    if ":" in space or space.endswith(".json"):
        from autovision.space import load_space

        space = load_space(space).to_json()
    plain = {name: value for name, value in asked.items() if name not in _NOT_TRAVELLING}
    try:
        return SearchDeclaration(
            dataset=dataset,
            space=space,
            metric=asked.get("metric"),
            objectives=list(asked["objectives"]),
            licenses=list(asked["licenses"]),
            again=again,
            **plain,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the search"
        raise InvalidInput(f"{place} is {first['input']!r}: {first['msg']}") from None


def submit(
    out: Output,
    address: str,
    token_file: Path | None,
    declared: SearchDeclaration,
    *,
    key: str | None,
    wait: bool,
) -> None:
    """Submit a search, and follow it if that is wanted."""
    with service(out, address, token_file) as client:
        made = client.submit(declared, key=key)
        if wait and made.status != "finished":
            out.note(f"search {made.search}: {made.budget_s:g} s on {made.dataset}")
            return _watched(out, client, made.search)
    next_step = {
        "queued": f"`autovision search watch {made.search}` follows it",
        "running": f"`autovision search watch {made.search}` follows it",
        "finished": "--again makes a new search",
    }.get(made.status, f"`autovision search resume {made.search}` goes on with it")
    out.answer(made, f"search {made.search} is {made.status}: {next_step}")


def searches(out: Output, address: str, token_file: Path | None) -> None:
    """All searches, in a few figures each."""
    with service(out, address, token_file) as client:
        found = [each.model_dump(mode="json") for each in client.searches()]
    out.answer(found, views.searches_table(found) if found else "There is no search yet.")


def queue(out: Output, address: str, token_file: Path | None) -> None:
    """What runs and what waits."""
    with service(out, address, token_file) as client:
        found = [each.model_dump(mode="json") for each in client.queue()]
    out.answer(found, *(views.queue(found) if found else ["No search runs or waits."]))


def show(out: Output, address: str, token_file: Path | None, search: str) -> None:
    """A search with its ledger."""
    with service(out, address, token_file) as client:
        view, trials = client.search(search), client.trials(search)
    out.answer(
        {**view.model_dump(mode="json"), "search": search, "trial_results": trials},
        views.request_facts(view.request, view.state),
        *([f"submitted by  {view.submitted_by}"] if view.submitted_by is not None else []),
        *views.ledger(trials, view.request.metric),
    )


def watch(out: Output, address: str, token_file: Path | None, search: str) -> None:
    """Follow a search to its end."""
    with service(out, address, token_file) as client:
        _watched(out, client, search)


def explain(out: Output, address: str, token_file: Path | None, search: str, html: Path | None) -> None:
    """Why a search ended as it did."""
    from autovision.errors import InvalidInput

    if html is not None:
        raise InvalidInput("--html draws from the store itself; leave out --address, or ask for --json")
    with service(out, address, token_file) as client:
        found = client.explain(search)
    out.answer(found, *views.explanation(views.as_explanation(found)))


def resume(
    out: Output, address: str, token_file: Path | None, search: str, more: Mapping[str, float | None]
) -> None:
    """Put a search into the service's queue again, with more of what `more` names."""
    with service(out, address, token_file) as client:
        state = client.resume(search, **more)
    out.answer(state, f"search {search} is {state.status}; `autovision search watch {search}` follows it")


def _watched(out: Output, client: ServiceClient, search: str) -> None:
    from autovision.console import SearchProgress
    from autovision.search.progress import ProgressEvent
    from autovision.service.schema import Progress

    view = client.search(search)
    budget_s = view.request.budget_s if view.state.budget_s is None else view.state.budget_s
    most = view.request.max_trials if view.state.max_trials is None else view.state.max_trials
    last: Progress | None = None
    try:
        with SearchProgress(budget_s, out.err, view.request.metric) as shown:
            for told in client.follow(search):
                if isinstance(told, Progress):
                    last = told
                    shown.update(ProgressEvent(**_event(told), most=most))
    except KeyboardInterrupt:
        out.note(f"no longer watching; search {search} goes on")
        raise typer.Exit(130) from None
    assert last is not None, "a stream ends with its end"
    state: SearchState = client.search(search).state
    out.answer(last, views.request_facts(view.request, state))
    if state.error is not None:
        raise typer.Exit(1)


def _event(told: Progress) -> dict[str, Any]:
    names = ("elapsed_s", "budget_s", "complete", "pruned", "failed", "late", "best_value", "best_config")
    return {name: getattr(told, name) for name in names}
