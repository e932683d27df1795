"""`autovision labels`: what annotators agree on, what to look at next, and what reviewers found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli.deployment import DeploymentName
from autovision.cli.options import Json, Seed, Store
from autovision.cli.output import answering, facts, heading, library, table

if TYPE_CHECKING:
    from rich.table import Table

    from autovision.labelling.consensus import Consensus
    from autovision.review.queue import ReviewQueue

app = typer.Typer(no_args_is_help=True, help="What annotators agree on, and what to look at next.")


@app.command()
def show(deployment: DeploymentName, store: Store = None, as_json: Json = False) -> None:
    """Show how many requests are labelled, on which annotators contradict each other, and how good each of them is."""
    with answering(as_json) as out:
        av = library(store)
        found, captured = av.agreement(deployment), av.captured_requests(deployment)
        waiting = sorted({*found.agreed, *found.disputed} - captured)
        out.answer(
            {
                "deployment": deployment,
                "agreed": len(found.agreed),
                "disputed": found.disputed,
                "waiting": waiting,
                "annotators": [vars(one) for one in found.annotators],
            },
            facts(
                {
                    "labelled requests": len(found.agreed),
                    "disputed": len(found.disputed),
                    "not captured (yet)": len(waiting),
                    "mean confidence": _mean_confidence(found),
                }
            ),
            *_annotators(found),
        )


@app.command()
def review(
    deployment: DeploymentName,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="A new folder for the queue.")],
    budget: Annotated[
        int, typer.Option("--budget", metavar="N", min=1, help="So many images at most.")
    ] = 100,
    seed: Seed = 0,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Export what is most worth looking at: a table with an empty column new_label, the images, and a page.

    That are captures which the model is unsure of and which differ from each other, requests on which annotators
    contradict each other, and labels, of captures and of the data set, that are probably wrong. Fill in what you
    can, and give the folder to `autovision labels import`.
    """
    with answering(as_json) as out:
        from autovision.report.review_page import render
        from autovision.review import folder
        from autovision.store import keys

        av = library(store)
        folder.check(to)
        queue = av.review(deployment, budget, seed=seed)
        folder.write(av.store, queue, to, render(queue, lambda digest: av.store.get(keys.image(digest)).data))
        out.answer(
            {"deployment": deployment, "folder": to, "queue": queue},
            _queue_facts(queue, to),
            *([] if queue.entries else ["There is nothing to look at."]),
        )
        for note in queue.notes:
            out.note(note)


@app.command("import")
def import_(
    deployment: DeploymentName,
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A folder that `labels review` made, or its table.")
    ],
    annotator: Annotated[
        str, typer.Option("--annotator", metavar="A", help="Who says so, where the column reviewer is empty.")
    ],
    confidence: Annotated[float, typer.Option("--confidence", metavar="C", help="From 0 to 1.")] = 1.0,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Take over what a reviewer filled in; rows that stayed empty say nothing.

    Labels of captured requests are stored as by `feedback`, and stand for all that was said before. Corrected images of
    the data set make its next version, in which every image keeps its split. A row that cannot be used is reported, and
    the others are stored; the exit code is 1 then.
    """
    from autovision.cli import review_file

    with answering(as_json) as out:
        outcome = review_file.take_over(library(store), deployment, path, annotator, confidence)
        out.answer({"deployment": deployment, **outcome.to_json()}, outcome.to_text())
        if outcome.bad:
            raise typer.Exit(1)


def _mean_confidence(found: Consensus) -> float | None:
    sure = [label.confidence for label in found.agreed.values()]
    return round(sum(sure) / len(sure), 3) if sure else None


def _annotators(found: Consensus) -> list[Any]:
    if not found.annotators:
        return []
    rows = [
        [one.name, one.words, one.compared, "" if one.accuracy is None else f"{one.accuracy:.3f}"]
        for one in found.annotators
    ]
    return [heading("Annotators"), table(["annotator", ">requests", ">compared", ">accuracy"], rows)]


def _queue_facts(queue: ReviewQueue, folder: Path) -> Table:
    from autovision.review.folder import PAGE, TABLE
    from autovision.review.queue import Reason

    counts = {reason.value: sum(each.reason is reason for each in queue.entries) for reason in Reason}
    return facts(
        {
            **counts,
            "to fill in": folder / TABLE,
            "to look at": folder / PAGE,
            "then": f"autovision labels import {queue.deployment} {folder} --annotator NAME",
        }
    )
