"""`autovision search` where it changes nothing: estimate, list, queue, show, watch and explain searches."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli import remote
from autovision.cli import search_views as views
from autovision.cli.figures import figures_table, plain_figures
from autovision.cli.files import read_prices
from autovision.cli.front_view import front_table
from autovision.cli.options import Address, Json, License, Prices, Search, Store, TokenFile
from autovision.cli.output import Output, answering, check_output_file, library, write_file

if TYPE_CHECKING:
    from autovision.api import AutoVision
    from autovision.console import SearchProgress
    from autovision.records.searches import SearchRequest, SearchState

_POLL_S = 1.0
_OVERDUE_S = 60.0
"""a search that runs for so much longer than its budget has probably lost its process"""


def estimate(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A data set, or NAME@V for a version.")],
    space: Annotated[
        str,
        typer.Option("--space", metavar="SPACE", help="As for `search submit`."),
    ] = "quick",
    budget_s: Annotated[
        float, typer.Option("--budget-s", metavar="SECONDS", help="Wall seconds that a search may use.")
    ] = 120.0,
    workers_per_trial: Annotated[
        int, typer.Option("--workers-per-trial", metavar="N", help="As for `search submit`.")
    ] = 1,
    license_: License = None,
    cold: Annotated[
        bool, typer.Option("--cold", help="From arithmetic alone, without what earlier searches measured.")
    ] = False,
    prices: Prices = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Say what a budget buys, before it is spent: heads, fine-tunings, features, memory, money.

    On the cluster that RAY_ADDRESS names; without it on this machine.
    """
    with answering(as_json) as out:
        found = library(store).estimate(
            dataset,
            space=space,
            budget_s=budget_s,
            licenses=license_ or (),
            prices=read_prices(prices),
            warm_start=not cold,
            workers_per_trial=workers_per_trial,
        )
        machine = {**asdict(found), "cost": found.cost, "basis": found.basis}
        out.answer(machine, *views.estimate(found))


def list_(
    address: Address = None, token_file: TokenFile = None, store: Store = None, as_json: Json = False
) -> None:
    """List the searches, oldest first."""
    with answering(as_json) as out:
        if address is not None:
            return remote.searches(out, address, token_file)
        found = [views.summary(*each) for each in library(store).searches()]
        out.answer(
            found,
            views.searches_table(found)
            if found
            else "There is no search yet; `autovision search submit DATASET --wait` makes one.",
        )


def queue(
    address: Address = None, token_file: TokenFile = None, store: Store = None, as_json: Json = False
) -> None:
    """Show the searches that run and those that wait: in which order, with what share, and why they wait."""
    with answering(as_json) as out:
        if address is not None:
            return remote.queue(out, address, token_file)
        found = [views.entry(each) for each in library(store).queue()]
        out.answer(
            found,
            *(
                views.queue(found)
                if found
                else ["No search runs or waits; `autovision search submit DATASET` puts one into the queue."]
            ),
        )


def show(
    search: Search,
    address: Address = None,
    token_file: TokenFile = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show what a search was asked, how it stands, its best trials and why trials failed."""
    with answering(as_json) as out:
        if address is not None:
            return remote.show(out, address, token_file, search)
        from autovision.search.multiobjective.front import front_of

        av = library(store)
        request, state = av.search_of(search)
        trials = av.trials(search)
        made_of = state.best_trial if state.model else None
        front = front_of(request, trials, made_of) if request.objectives else None
        out.answer(
            {
                **views.summary(request, state),
                "request": request,
                "state": state,
                "front": front and [offer.trial for offer in front.offers],
                "trial_results": trials,
            },
            views.request_facts(request, state),
            *([] if front is None else [front_table(front, request.metric, search)]),
            *views.ledger(trials, request.metric),
        )


def watch(
    search: Search,
    address: Address = None,
    token_file: TokenFile = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Follow a search that runs elsewhere until it has ended; exits with 1 if it failed."""
    with answering(as_json) as out:
        if address is not None:
            return remote.watch(out, address, token_file, search)
        from autovision.console import SearchProgress
        from autovision.search.requests import granted_s

        av = library(store)
        request, state = av.search_of(search)
        try:
            with SearchProgress(granted_s(request, state), out.err, request.metric) as progress:
                state = _follow(out, av, search, progress)
        except KeyboardInterrupt:
            out.note(f"no longer watching; search {search} goes on")
            raise typer.Exit(130) from None
        _print_state(out, av, request, state)
        if state.error is not None:
            raise typer.Exit(1)


def explain(
    search: Search,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with plots there.")
    ] = None,
    address: Address = None,
    token_file: TokenFile = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Say why a search ended as it did: what mattered, what was pruned and why, where the seconds went."""
    with answering(as_json) as out:
        if address is not None:
            return remote.explain(out, address, token_file, search, html)
        if html is not None:
            check_output_file(html, option="--html")
        av = library(store)
        explanation = av.explain(search)
        if html is not None:
            from autovision.report.explanation import render

            request, state = av.search_of(search)
            write_file(html, render(explanation, request, state, av.trials(search)), option="--html")
            out.note(f"page  {html}")
        out.answer(asdict(explanation), *views.explanation(explanation))


def _follow(out: Output, av: AutoVision, search: str, progress: SearchProgress) -> SearchState:
    """Show a search once a second until nobody works on it any more."""
    from autovision.records.searches import SearchStatus

    elapsed, said = 0.0, ""
    while True:
        request, state = av.search_of(search)
        event = views.progress_event(request, state, av.trials(search), least_s=elapsed)
        elapsed = event.elapsed_s
        progress.update(event)
        remark = _remark(request, state, elapsed)
        if remark and remark != said:
            out.note(remark)
            said = remark
        if state.status not in (SearchStatus.QUEUED, SearchStatus.RUNNING):
            return state
        time.sleep(_POLL_S)


def _remark(request: SearchRequest, state: SearchState, elapsed_s: float) -> str:
    from autovision.search.requests import granted_s

    if state.status == "queued":
        return f"search {request.id} waits in the queue; `autovision controller run` works through it"
    if state.status == "running" and elapsed_s > granted_s(request, state) + _OVERDUE_S:
        return (
            f"search {request.id} is far beyond its budget; if its process is gone, "
            f"`autovision search resume {request.id}` goes on with it"
        )
    return ""


def _print_state(out: Output, av: AutoVision, request: SearchRequest, state: SearchState) -> None:
    machine: dict[str, Any] = views.summary(request, state)
    human = [views.request_facts(request, state)]
    if state.model is not None:
        metrics = av.model(state.model).metrics
        machine["metrics"] = plain_figures(metrics["test"])
        human.append(figures_table(metrics))
    out.answer(machine, *human)
