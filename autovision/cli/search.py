"""`autovision search`: submit, follow, stop and resume searches."""

from __future__ import annotations

import typer

from autovision.cli import search_looks, search_runs

app = typer.Typer(no_args_is_help=True, help="Submit, follow, stop and resume searches.")

# In the order in which they are listed: as a search goes.
app.command()(search_runs.submit)
app.command()(search_looks.estimate)
app.command("list")(search_looks.list_)
app.command()(search_looks.queue)
app.command()(search_looks.show)
app.command()(search_looks.watch)
app.command()(search_looks.explain)
app.command()(search_runs.stop)
app.command()(search_runs.resume)
app.command()(search_runs.finish)
