"""`autovision dataset`: import, list and show data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli import remote
from autovision.cli.options import Address, Json, Seed, Store, TokenFile
from autovision.cli.output import Output, answering, facts, library, table

if TYPE_CHECKING:
    from rich.table import Table

    from autovision.records.datasets import DatasetVersion
    from autovision.service.schema import DatasetView

app = typer.Typer(no_args_is_help=True, help="Import, list and show data sets.")

_LISTED_PROBLEMS = 5
_LISTED_CORRECTIONS = 20


@app.command("import")
def import_(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A folder of class folders, or a CSV or Parquet table with path and label, or path and labels.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the data set.")],
    seed: Seed = 0,
    positive_class: Annotated[
        str | None,
        typer.Option(
            "--positive-class",
            metavar="CLASS",
            help="Of two classes the one that F1, precision and recall speak of; without it the rarer one.",
        ),
    ] = None,
    alike_by: Annotated[
        str | None,
        typer.Option(
            "--alike-by",
            metavar="BACKBONE",
            help="Look for near-duplicates by what this pretrained backbone sees, too, such as tf_efficientnet_lite0.",
        ),
    ] = None,
    near_bits: Annotated[
        int | None,
        typer.Option(
            "--near-bits",
            metavar="N",
            help="Hashes of near-duplicates differ in at most N of 256 bits (31); -1: they are not compared.",
        ),
    ] = None,
    follow_links: Annotated[
        bool,
        typer.Option("--follow-links", help="Take what links lead to that lead out of the folder, too."),
    ] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Import labelled images as the next version of a data set.

    The images are split into train, validation and test, each class in proportion, the same way for the same
    seed. A table may have the columns split, confidence and group, and any others as metadata; a group is
    never in two splits, nor are images that are nearly the same. Duplicates and unreadable files are reported and left
    out.

    Where an image may have any number of the classes, also none, the table has the column labels instead of
    label: names with | between them, or a Parquet list of strings.
    """
    with answering(as_json) as out:
        with _import_progress(out) as progress:
            version = library(store).import_dataset(
                path,
                name,
                seed=seed,
                positive_class=positive_class,
                alike_by=alike_by,
                near_bits=near_bits,
                follow_links=follow_links,
                progress=progress,
            )
        out.answer(
            {"dataset": version.id, **version.model_dump(mode="json")},
            _summary(version),
            _counts(version),
            *_problems(version),
        )


@app.command("list")
def list_(
    address: Address = None, token_file: TokenFile = None, store: Store = None, as_json: Json = False
) -> None:
    """List the data sets, each with its latest version."""
    with answering(as_json) as out:
        found: Sequence[DatasetVersion | DatasetView]
        if address is not None:
            with remote.service(out, address, token_file) as client:
                found = client.datasets()
        else:
            found = library(store).datasets()
        rows = [[v.name, v.version, v.n, len(v.classes), v.created_at] for v in found]
        out.answer(
            [
                {"dataset": f"{v.name}@{v.version}", "name": v.name, "version": v.version, "n": v.n,
                 "classes": v.classes, "digest": v.digest, "created_at": v.created_at}
                for v in found
            ],
            table(["!data set", ">version", ">images", ">classes", "made (UTC)"], rows)
            if found
            else "There is no data set yet; `autovision dataset import PATH --name NAME` makes one.",
        )  # fmt: skip


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set, or NAME@V for a version of it.")],
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show a version of a data set: its images by split and class, and what was left out of it."""
    with answering(as_json) as out:
        version = library(store).dataset(name)
        out.answer(
            {"dataset": version.id, **version.model_dump(mode="json")},
            _summary(version),
            _counts(version),
            *_corrections(version),
            *_problems(version),
        )


def _summary(version: DatasetVersion) -> Table:
    return facts(
        {
            "data set": version.id,
            "images": version.n,
            "classes": len(version.classes),
            "labels": "any number an image" if version.multi_label else None,
            "positive class": version.positive_class,
            "seed": version.seed,
            "extends": None if version.parent is None else f"{version.name}@{version.parent}",
            "digest": version.digest,
            "corrected": _told_corrections(version),
            "made (UTC)": version.created_at,
        }
    )


def _told_corrections(version: DatasetVersion) -> str | None:
    changed = sum(each.was != each.label for each in version.corrections)
    confirmed = len(version.corrections) - changed
    return f"{changed} labels, and {confirmed} confirmed" if version.corrections else None


def _corrections(version: DatasetVersion) -> list[Table]:
    from autovision.records.datasets import labels_of

    if not version.corrections:
        return []
    rows = [
        [each.source, " ".join(labels_of(each.was)), " ".join(labels_of(each.label)), each.by, each.at]
        for each in version.corrections[:_LISTED_CORRECTIONS]
    ]
    more = len(version.corrections) - len(rows)
    title = f"corrections (first {len(rows)} of {len(version.corrections)})" if more else "corrections"
    return [table(["image", "was", "is", "by", "at (UTC)"], rows, title=title)]


def _counts(version: DatasetVersion) -> Table:
    """Splits across, classes down: there are three splits and any number of classes."""
    splits = list(version.counts)
    rows: list[list[Any]] = [
        [label, *(version.counts[split].get(label, 0) for split in splits)] for label in version.classes
    ]
    images = version.images or {split: sum(counts.values()) for split, counts in version.counts.items()}
    rows.append(["images" if version.multi_label else "in all", *(images[split] for split in splits)])
    return table(["class", *(f">{split}" for split in splits)], rows)


def _problems(version: DatasetVersion) -> list[Table]:
    if not version.problem_counts:
        return []
    parts = [table(["problem", ">inputs"], version.problem_counts.items())]
    for kind, count in version.problem_counts.items():
        listed = [problem for problem in version.problems if problem.kind == kind][:_LISTED_PROBLEMS]
        if listed:
            more = f" (first {len(listed)} of {count})" if count > len(listed) else ""
            parts.append(table([f"{kind}{more}", ""], [[each.path, each.message] for each in listed]))
    return parts


@contextmanager
def _import_progress(out: Output) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, if that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out.err, disable=not out.err.is_terminal, transient=True) as bar:
        task = bar.add_task("images", total=None)

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield update
