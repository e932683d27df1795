"""`autovision service`: the API service, for those who have only the client, and what was done through it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from autovision.cli.options import Json, Store
from autovision.cli.output import answering, library, table
from autovision.cli.signals import StopFlag

app = typer.Typer(no_args_is_help=True, help="Let others search and promote over HTTP, and see who did what.")

_LATEST = 50


@app.command()
def run(
    port: Annotated[int, typer.Option("--port", metavar="P", help="0: any free one.")] = 8080,
    host: Annotated[str, typer.Option("--host", metavar="H", help="0.0.0.0: every interface.")] = "127.0.0.1",
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            "--jobs",
            metavar="RAY",
            help="Of a Ray cluster, or its dashboard such as http://ray-head:8265: each search runs there as a Ray "
            "Job. Without it `autovision controller run` works through the queue.",
        ),
    ] = None,
    at_once: Annotated[
        int, typer.Option("--at-once", metavar="N", min=1, help="Ray Jobs at once, at most.")
    ] = 4,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            "--tls-cert", metavar="PEM", help="Answer over HTTPS with this certificate; with --tls-key."
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="PEM", help="The certificate's key, without password.")
    ] = None,
    require_token: Annotated[
        bool | None,
        typer.Option(
            "--require-token/--no-require-token",
            help="Whether a token is needed while the store has none. Without it: unless the host is loopback. "
            "As soon as the store has one, a token is always needed.",
            show_default=False,
        ),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Answer the API under /api/v1 until Ctrl-C.

    What is submitted is data and never code. Everything is kept in the store: the service may be stopped and started
    at any time, and several may run on one store.
    """
    from autovision.errors import InvalidInput

    if (tls_cert is None) != (tls_key is None):
        raise InvalidInput("--tls-cert and --tls-key belong together; give both, or none for plain HTTP")
    with answering(as_json) as out:
        from autovision.service.app import build_app
        from autovision.service.dispatch import dispatching
        from autovision.service.server import ServiceServer
        from autovision.serving.auth import TokenBook
        from autovision.serving.client import is_loopback
        from autovision.serving.ports import claim_port
        from autovision.serving.tls import Tls

        tls = None if tls_cert is None or tls_key is None else Tls(tls_cert, tls_key)
        av = library(store)
        required = not is_loopback(host) if require_token is None else require_token
        for line in _exposed(bool(av.tokens()), host, required, encrypted=tls is not None):
            out.note(line)
        port = claim_port(host, port)
        book = TokenBook(av.store, required=required)
        service = build_app(av.store, book=book, local=is_loopback(host))
        server = ServiceServer(service, host, port, tls)
        stopping = StopFlag(lambda: out.note("stopping; what was submitted is kept"))
        with stopping, server, dispatching(av.store, address, at_once, out.note):
            out.answer({"url": server.url}, f"the API answers at {server.url}/api/v1; Ctrl-C stops it")
            while not stopping() and server.alive:
                time.sleep(0.2)


@app.command()
def audit(
    day: Annotated[
        str | None, typer.Option("--day", metavar="YYYYMMDD", help="Of this day alone, in UTC.")
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show who did what through the API service, when, and what came of it; without --day the latest."""
    from autovision.errors import InvalidInput

    with answering(as_json) as out:
        if day is not None and not (len(day) == 8 and day.isascii() and day.isdigit()):
            raise InvalidInput(f"--day {day!r} is no day; write it as 20261127")
        from autovision.service.audit import entries, latest

        opened = library(store).store
        found = entries(opened, "", None, day) if day is not None else latest(opened, _LATEST)
        rows = [[e.at, e.by, e.action, e.subject, e.problem or "done", e.client] for e in found]
        out.answer(
            found,
            table(["at (UTC)", "who", "what", "!on", "outcome", "from"], rows)
            if rows
            else "Nothing was done through an API service yet.",
        )


def _exposed(known: bool, host: str, required: bool, *, encrypted: bool) -> list[str]:
    """What should be known before others can reach it, or nobody will be let in."""
    from autovision.serving.client import is_loopback

    lines = []
    if not known and required:
        lines.append(
            "the store has no token, so that the service refuses everything but its health until there is one: "
            "`autovision token create --scope submit --scope read --name NAME`"
        )
    if not known and not required and not is_loopback(host):
        lines.append(f"whoever reaches {host} may do everything until the store has a token")
    if not is_loopback(host) and not encrypted:
        lines.append(
            f"tokens for {host} can be read on their way; give --tls-cert and --tls-key, or put a proxy that has a "
            "certificate in front"
        )
    return lines
