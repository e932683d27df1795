"""`autovision demo`: the whole loop on real images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autovision.cli.options import STORE_VARIABLE, Seed
from autovision.cli.output import check_output_file, to_json, write_file

if TYPE_CHECKING:
    from autovision.demo.result import DemoResult

DEFAULT_STORE = "demo-store"
PAGE = "demo.html"


def demo(
    budget_s: Annotated[
        float, typer.Option("--budget-s", metavar="SECONDS", help="Wall seconds of each of the two searches.")
    ] = 120.0,
    seed: Seed = 0,
    store: Annotated[
        str, typer.Option("--store", metavar="DIR", envvar=STORE_VARIABLE, help="Where everything is kept.")
    ] = DEFAULT_STORE,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the report as JSON; -: to stdout."),
    ] = None,
    html_file: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="The report's page; without it demo.html in the store.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Turn the whole loop on real images: electroluminescence images of solar cells.

    Imports mono cells, searches, promotes and serves a model, sends it mono and then poly cells, notices the
    drift, searches again with late labels, promotes the better model, and reports what it gained.
    """
    from autovision.errors import InvalidInput

    if not 0 < budget_s < float("inf"):
        raise InvalidInput(
            f"--budget-s {budget_s:g}: a search needs a finite time above 0; try --budget-s 120"
        )
    to_stdout = json_file == Path("-")
    if json_file is not None and not to_stdout:
        check_output_file(json_file, option="--json")
    if html_file is not None:
        check_output_file(html_file, option="--html")
    result = _run(store, seed, budget_s, html_file, quiet=to_stdout)
    if to_stdout:
        typer.echo(to_json(result.to_demo_json()))
    elif json_file is not None:
        write_file(json_file, to_json(result.to_demo_json()) + "\n", option="--json")


def _run(store: str, seed: int, budget_s: float, html_file: Path | None, *, quiet: bool) -> DemoResult:
    """The story and its report in the terminal; on stderr with `quiet`."""
    import sys

    from rich.console import Console

    from autovision.demo.console import print_report
    from autovision.demo.page import render
    from autovision.demo.story import run_demo

    console = Console(file=sys.stderr if quiet else sys.stdout)
    result = run_demo(store=store, seed=seed, budget_s=budget_s, console=console)
    page = html_file or page_of(store)
    write_file(page, render(result), option="--html")
    print_report(result, console)
    console.print(f"page  {page}", markup=False, highlight=False, soft_wrap=True)
    return result


def page_of(store: str) -> Path:
    """Where the page goes: into the store's folder; a store that is no folder leaves it here."""
    from autovision.store import LocalStore, open_store

    opened = open_store(store)
    return (opened.root if isinstance(opened, LocalStore) else Path()) / PAGE
