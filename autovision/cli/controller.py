"""`autovision controller`: turn the loop, and say why it did what it did."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from autovision.cli import remote
from autovision.cli.decisions import told
from autovision.cli.deployment import DeploymentName
from autovision.cli.options import Address, Json, Seed, Store, TokenFile
from autovision.cli.output import Output, answering, library, table
from autovision.cli.signals import StopFlag

if TYPE_CHECKING:
    from autovision.api import AutoVision
    from autovision.console import SearchProgress
    from autovision.controller import Controller, Event
    from autovision.search.fleet import Fleet
    from autovision.search.progress import ProgressEvent

app = typer.Typer(no_args_is_help=True, help="Turn the loop, and say why it did what it did.")


@app.command()
def run(
    once: Annotated[bool, typer.Option("--once", help="End when there is nothing left to do.")] = False,
    interval_s: Annotated[
        float, typer.Option("--interval-s", metavar="SECONDS", help="Pause when there is nothing to do.")
    ] = 2.0,
    at_once: Annotated[
        int | None,
        typer.Option(
            "--at-once",
            metavar="N",
            min=1,
            help="Searches at once, at most; without it as many as the cluster has places for.",
        ),
    ] = None,
    seed: Seed = 0,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Search what is queued, promote what is better, watch what is served, and search again when it drifts.

    Runs until Ctrl-C. Everything that it knows is in the store: it may be stopped and started at any time.
    With --json the list of all that was done is printed at the end.
    """
    from autovision.errors import InvalidInput

    if not 0 < interval_s < float("inf"):
        raise InvalidInput(f"--interval-s {interval_s:g}: give a finite number of seconds above 0")
    with answering(as_json) as out:
        from autovision.search.fleet import Fleet

        av = library(store)
        progress = _Progress(out, av)
        happened: list[Event] = []
        stopping = StopFlag(lambda: out.note("stopping; what was done is kept (once more: stop at once)"))
        with stopping, progress:
            fleet = Fleet(av.store, at_once, progress.of)
            for event in _controller(av, fleet, stopping, seed).run(once=once, interval_s=interval_s):
                progress.close()
                happened.append(event)
                if not as_json:
                    out.answer(None, f"{event.stage}: {event.text}")
        if not happened and once:
            out.note("nothing to do")
        if as_json:
            out.answer([{"stage": e.stage, "text": e.text, "record": e.record} for e in happened])


@app.command()
def why(
    deployment: DeploymentName,
    address: Address = None,
    token_file: TokenFile = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show every decision about a deployment with its reasons, and what each gate said, newest last."""
    with answering(as_json) as out:
        if address is not None:
            with remote.service(out, address, token_file) as client:
                decisions = client.decisions(deployment)
        else:
            decisions = library(store).decisions(deployment)
        rows = [[each.created_at, each.accepted, told(each)] for each in decisions]
        out.answer(
            decisions,
            table(["decided (UTC)", "act", "what and why"], rows)
            if rows
            else f"Nothing has been decided about {deployment} yet.",
        )


def _controller(av: AutoVision, fleet: Fleet, stopping: StopFlag, seed: int) -> Controller:
    controller = av.controller(fleet=fleet, should_stop=stopping, seed=seed)
    connect = controller.connect

    def connect_and_listen() -> None:
        connect()
        stopping.install()

    return replace(controller, connect=connect_and_listen)


class _Progress:
    """The progress of the search that began first of those that run; what others have to say gets a line."""

    def __init__(self, out: Output, av: AutoVision) -> None:
        self._out, self._av = out, av
        self._lock = threading.RLock()
        self._shown: SearchProgress | None = None
        self._search: str | None = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def of(self, search: str, event: ProgressEvent) -> None:
        """Take in what a search told; called from several threads."""
        with self._lock:
            if self._search is None:
                self._begin(search, event)
            if search == self._search and self._shown is not None:
                self._shown.update(event)
            elif event.message is not None:
                self._out.note(f"{search}: {event.message}")

    def close(self) -> None:
        """Whichever search tells something next is shown from now on."""
        with self._lock:
            if self._shown is not None:
                self._shown.close()
            self._shown = self._search = None

    def _begin(self, search: str, event: ProgressEvent) -> None:
        from autovision.console import SearchProgress

        request, _ = self._av.search_of(search)
        self._out.note(f"search {search}: {request.reason}")
        self._search = search
        self._shown = SearchProgress(event.budget_s, self._out.err, request.metric)
