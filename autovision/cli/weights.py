"""`autovision weights`: import, list and show pretrained weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli.options import Json, Store
from autovision.cli.output import answering, facts, library, table

if TYPE_CHECKING:
    from rich.table import Table

    from autovision.records.models import ImportedWeights

app = typer.Typer(no_args_is_help=True, help="Import, list and show pretrained weights.")


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A safetensors file, or a PyTorch file of plain tensors.")
    ],
    backbone: Annotated[
        str, typer.Option("--backbone", metavar="BACKBONE", help="The timm model that they are weights of.")
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the weights.")],
    license_: Annotated[
        str | None,
        typer.Option(
            "--license", metavar="SPDX", help="Their licence, e.g. Apache-2.0; without it: unknown."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="TEXT", help="Where they come from; without it the file's name."),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Import pretrained weights of a backbone; a search space names them as store:NAME.

    Names are matched with timm's, behind any common prefix, or by order and shape; a head of other classes is
    left out. Files that would have to run code to be read are refused.
    """
    with answering(as_json) as out:
        made = library(store).import_weights(file, name, backbone=backbone, license=license_, source=source)
        out.answer(_machine(made), _facts(made))


@app.command("list")
def list_(store: Store = None, as_json: Json = False) -> None:
    """List the weights that were imported, by name."""
    with answering(as_json) as out:
        found = library(store).imported_weights()
        out.answer(
            [_machine(each) for each in found],
            _list_table(found)
            if found
            else "There are no weights yet; `autovision weights import FILE --backbone BACKBONE --name NAME` "
            "imports some.",
        )


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of imported weights.")],
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show imported weights: what they are for, and where they came from."""
    with answering(as_json) as out:
        found = library(store).imported_weights_of(name)
        out.answer(_machine(found), _facts(found))


# ---------------------------------------------------------------------------------------------- helpers


def _machine(found: ImportedWeights) -> dict[str, Any]:
    return {"weights": f"store:{found.name}", **found.model_dump(mode="json")}


def _list_table(found: list[ImportedWeights]) -> Table:
    rows = [
        [each.name, each.backbone, each.license, f"{each.size_bytes / 1e6:.1f}", each.created_at]
        for each in found
    ]
    return table(["!weights", "backbone", "licence", ">MB", "made (UTC)"], rows)


def _facts(found: ImportedWeights) -> Table:
    return facts(
        {
            "weights": found.name,
            "in a space": f'weights = "store:{found.name}"',
            "backbone": found.backbone,
            "licence": found.license,
            "source": found.source,
            "size": f"{found.size_bytes / 1e6:.2f} MB",
            "digest": found.digest,
            "made (UTC)": found.created_at,
        }
    )
