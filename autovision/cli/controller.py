"""`autovision controller`: turn the loop, and say why it did what it did."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli import remote
from autovision.cli.decisions import told
from autovision.cli.deployment import DeploymentName
from autovision.cli.options import Address, Json, Seed, Store, TokenFile
from autovision.cli.outlook import challengers, outlook
from autovision.cli.output import Output, answering, library, table
from autovision.cli.signals import StopFlag
from autovision.cli.supervisor import Lifeline

if TYPE_CHECKING:
    from autovision.api import AutoVision
    from autovision.console import SearchProgress
    from autovision.controller import Controller, Event
    from autovision.promotion.refused import Refused
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
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            metavar="P",
            help="Tell Prometheus here of searches, promotions and drift; without it nothing listens.",
        ),
    ] = None,
    metrics_host: Annotated[
        str,
        typer.Option(
            "--metrics-host",
            metavar="H",
            help="Where that listens, without any token; 0.0.0.0: every interface.",
        ),
    ] = "127.0.0.1",
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
        with stopping, progress, ExitStack() as listening:
            fleet = Fleet(av.store, at_once, progress.of)
            controller = _controller(av, fleet, stopping, seed)
            # Asked for the first time when it leads.
            controller = replace(controller, should_stop=_Begun(Lifeline(), controller.should_stop))
            if metrics_port is not None:
                controller = _watched(controller)
                url = listening.enter_context(_metrics(controller, metrics_host, metrics_port))
                out.note(f"metrics for Prometheus at {url}")
            for event in controller.run(once=once, interval_s=interval_s):
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
    last: Annotated[
        int | None,
        typer.Option("--last", metavar="N", min=1, help="The latest N decisions alone; without it all."),
    ] = None,
    address: Address = None,
    token_file: TokenFile = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show every decision about a deployment with its reasons, when refused challengers are judged again, and what
    would have to happen for the next search.

    Decisions come newest last, with what each gate said. An evaluation that comes to what the one before did is no new
    decision; it is counted below them.
    """
    with answering(as_json) as out:
        state, waiting, ahead = None, [], []
        if address is not None:
            with remote.service(out, address, token_file) as client:
                decisions = client.decisions(deployment)
        else:
            av = library(store)
            decisions, state = av.decisions(deployment), av.retraining(deployment)
            waiting = av.challengers(deployment)
            ahead = [*challengers(waiting), *outlook(state, av.deployment(deployment))]
        shown = decisions if last is None else decisions[-last:]
        rows = [[each.created_at, each.accepted, told(each)] for each in shown]
        some = (
            f"The latest {len(shown)} of {len(decisions):,} decisions"
            if len(shown) < len(decisions)
            else None
        )
        out.answer(
            {"decisions": shown, "retraining": state, "challengers": [_waiting(each) for each in waiting]},
            table(["decided (UTC)", "act", "what and why"], rows, title=some)
            if rows
            else f"Nothing has been decided about {deployment} yet.",
            *ahead,
        )


def _waiting(case: Refused) -> dict[str, Any]:
    from autovision.promotion.refused import wanted

    return {
        "model": case.model,
        "champion": case.champion,
        "judged_at": case.at,
        "looks": case.looks,
        "labelled": case.labelled,
        "next_at_labelled": wanted(case),
    }


@app.command()
def trigger(
    deployment: DeploymentName,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, for the records.")
    ] = "no reason was given",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Have the controller search again for a deployment; again does nothing while that waits.

    Cooldown, back-off, quiet hours and least numbers of labels are overruled; budgets are not, and one search of a
    deployment runs at a time.
    """
    with answering(as_json) as out:
        asked, news = library(store).ask_for_search(deployment, reason)
        word = "will be asked for by the controller" if news else "waits for the controller already"
        out.answer(
            {"deployment": deployment, "ask": asked, "new": news},
            f"a re-search for {deployment} {word}: {asked.person}, {asked.at:%Y-%m-%d %H:%M:%S} UTC, {asked.reason}",
        )


def _controller(av: AutoVision, fleet: Fleet, stopping: StopFlag, seed: int) -> Controller:
    controller = av.controller(fleet=fleet, should_stop=stopping, seed=seed)
    connect = controller.connect

    def connect_and_listen() -> None:
        connect()
        stopping.install()

    return replace(controller, connect=connect_and_listen)


@dataclass(frozen=True)
class _Begun:
    """Whether to stop; who starts this command anew when it is lost is told that it has come to its work."""

    lifeline: Lifeline
    stopping: Callable[[], bool]

    def __call__(self) -> bool:
        self.lifeline.begun()
        return self.stopping()


@dataclass
class _Beat:
    """Whether to stop; and when that was asked last, which the controller does all the time."""

    stopping: Callable[[], bool]
    seen_at: float = field(default_factory=time.time)

    def __call__(self) -> bool:
        self.seen_at = time.time()
        return self.stopping()


def _watched(controller: Controller) -> Controller:
    return replace(controller, should_stop=_Beat(controller.should_stop))


@contextmanager
def _metrics(controller: Controller, host: str, port: int) -> Iterator[str]:
    """Serves what Prometheus asks for, on a thread of its own; its URL. Raises `InvalidInput` for a port in use."""
    from prometheus_client import CollectorRegistry, start_http_server

    from autovision.registry.telemetry import Telemetry
    from autovision.serving.ports import claim_port

    beat = controller.should_stop
    assert isinstance(beat, _Beat)
    registry = CollectorRegistry()
    registry.register(Telemetry(controller.store, controller.failures, lambda: beat.seen_at))
    port = claim_port(host, port)
    server, thread = start_http_server(port, addr=host, registry=registry)
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
