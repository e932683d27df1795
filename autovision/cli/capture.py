"""`autovision capture`: what is kept of the requests that a deployment answers."""

from __future__ import annotations

from typing import Annotated

import typer

from autovision.cli.deployment import DeploymentName
from autovision.cli.options import Json, Store
from autovision.cli.output import answering, facts, library

app = typer.Typer(no_args_is_help=True, help="What is kept of the requests that are answered.")


@app.command()
def policy(
    deployment: DeploymentName,
    share: Annotated[
        float | None,
        typer.Option("--share", metavar="P", min=0, max=1, help="Of the requests that are kept, at random."),
    ] = None,
    pixels: Annotated[
        bool | None,
        typer.Option("--pixels/--no-pixels", help="Keep their images, too; or embeddings and answers alone."),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Set what is kept from now on; what is not given stays. Without options: show it.

    Servers follow within a second. Without images drift is watched as before, and nothing can be learnt from labels.
    """
    with answering(as_json) as out:
        av = library(store)
        found = av.deployment(deployment).capture_policy
        changes = {name: value for name, value in (("share", share), ("pixels", pixels)) if value is not None}
        if changes:
            found = av.set_capture_policy(deployment, found.with_(**changes)).capture_policy
        out.answer(found, facts({"share": f"{found.share:.0%} of the requests", "images": found.pixels}))
