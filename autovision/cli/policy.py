"""`autovision policy`: all policies of deployments as a file that is checked, compared and applied."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli.deployment import DeploymentName
from autovision.cli.options import Json, Store
from autovision.cli.output import answering, library, table

if TYPE_CHECKING:
    from rich.table import Table

    from autovision.registry.policies import Change

app = typer.Typer(no_args_is_help=True, help="Policies of deployments as files: apply, show, compare.")

DIFFERS = 1
"""exit code of `diff`, as that of the program of this name"""

PolicyFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A YAML, JSON or TOML file; `policy show` prints one.")
]


@app.command()
def apply(file: PolicyFile, store: Store = None, as_json: Json = False) -> None:
    """Give deployments the policies of a file, and tell what changed.

    A section that the file has is the whole section: what it leaves out has its default. Sections and deployments
    that it does not name stay as they are. Where anything is wrong nothing is changed.
    """
    with answering(as_json) as out:
        av = library(store)
        changes = av.apply_policies(file)
        out.answer([_plain(each) for each in changes], _told(changes, "nothing changed"))
        for remark in av.policy_remarks(file):
            out.note(remark)


@app.command()
def show(deployment: DeploymentName, store: Store = None, as_json: Json = False) -> None:
    """Print all policies of a deployment as a file that `policy apply` takes."""
    import yaml

    with answering(as_json) as out:
        document = library(store).policies(deployment)
        text = yaml.safe_dump(document, sort_keys=False)
        if as_json:
            out.answer(document)
        else:
            out.stream.write(text)


@app.command()
def diff(file: PolicyFile, store: Store = None, as_json: Json = False) -> None:
    """Tell what `policy apply` would change; exits with 1 if it would change anything."""
    with answering(as_json) as out:
        av = library(store)
        changes = av.compare_policies(file)
        out.answer([_plain(each) for each in changes], _told(changes, "nothing differs"))
        for remark in av.policy_remarks(file):
            out.note(remark)
    if changes:
        raise typer.Exit(DIFFERS)


def _told(changes: list[Change], nothing: str) -> Table | str:
    if not changes:
        return nothing
    rows = [[each.deployment, each.key, _value(each.before), _value(each.after)] for each in changes]
    return table(["deployment", "key", "before", "after"], rows)


def _plain(change: Change) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(change)


def _value(value: Any) -> str:
    import json

    return "none" if value is None else json.dumps(value, ensure_ascii=False)
