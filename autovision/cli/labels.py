"""`autovision labels`: what annotators agree on, what to look at next, and what reviewers found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli.deployment import DeploymentName
from autovision.cli.options import Json, NewClass, Seed, Store
from autovision.cli.output import answering, facts, heading, library, table

if TYPE_CHECKING:
    from rich.table import Table

    from autovision.api import AutoVision
    from autovision.labelling.consensus import Consensus
    from autovision.review.queue import ReviewQueue

app = typer.Typer(no_args_is_help=True, help="What annotators agree on, and what to look at next.")

_SHOWN = 10
"""requests that are named; the JSON form has all"""


@app.command()
def show(deployment: DeploymentName, store: Store = None, as_json: Json = False) -> None:
    """Show how many requests are labelled, on which annotators contradict each other, and how good each of them is."""
    with answering(as_json) as out:
        av = library(store)
        found, captured = av.agreement(deployment), av.captured_requests(deployment)
        waiting = sorted({*found.agreed, *found.disputed} - captured)
        views = _views(av, deployment, found)
        per_class = _per_class(found)
        latest = max((label.when for label in found.agreed.values()), default=None)
        out.answer(
            {
                "deployment": deployment,
                "agreed": len(found.agreed),
                "classes": per_class,
                "latest": latest,
                "disputed": found.disputed,
                "views": views,
                "waiting": waiting,
                "annotators": [vars(one) for one in found.annotators],
            },
            facts(
                {
                    "captured requests": f"{len(captured):,}",
                    "labelled requests": f"{len(found.agreed):,}",
                    "of classes": ", ".join(f"{name} {count:,}" for name, count in per_class.items()),
                    "the latest at (UTC)": latest,
                    "disputed": len(found.disputed),
                    "not captured (yet)": f"{len(waiting):,}{_first(waiting)}",
                    "mean confidence": _mean_confidence(found),
                }
            ),
            *_annotators(found),
            *_disputes(deployment, views),
        )
        if not found.annotators:
            out.note(
                f"nobody has said anything yet; `autovision labels review {deployment} --to FOLDER` exports what is "
                f"most worth a label, and `autovision feedback {deployment} --file FILE` takes a table"
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
    new_class: NewClass = None,
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
        outcome = review_file.take_over(
            library(store), deployment, path, annotator, confidence, new_classes=new_class or ()
        )
        out.answer({"deployment": deployment, **outcome.to_json()}, outcome.to_text())
        if outcome.bad:
            raise typer.Exit(1)


def _mean_confidence(found: Consensus) -> float | None:
    sure = [label.confidence for label in found.agreed.values()]
    return round(sum(sure) / len(sure), 3) if sure else None


def _per_class(found: Consensus) -> dict[str, int]:
    """Requests of each class; with several labels a request counts for each of its classes."""
    from autovision.records.datasets import labels_of

    counts = Counter(name for label in found.agreed.values() for name in labels_of(label.label))
    return dict(sorted(counts.items()))


def _views(av: AutoVision, deployment: str, found: Consensus) -> dict[str, dict[str, str]]:
    """Disputed request -> annotator -> what they said last."""
    from autovision.labelling.consensus import latest_words
    from autovision.records.datasets import spoken
    from autovision.store import labels

    if not found.disputed:
        return {}
    words = latest_words(labels.read(av.store, deployment))
    return {
        request: {name: spoken(word.label) for name, word in words[request].items()}
        for request in found.disputed
    }


def _first(requests: Sequence[str]) -> str:
    if not requests:
        return ""
    more = f" and {len(requests) - _SHOWN:,} more" if len(requests) > _SHOWN else ""
    return f": {', '.join(requests[:_SHOWN])}{more}"


def _disputes(deployment: str, views: Mapping[str, Mapping[str, str]]) -> list[Any]:
    if not views:
        return []
    rows = [
        [request, ", ".join(f"{name}: {word}" for name, word in said.items())]
        for request, said in list(views.items())[:_SHOWN]
    ]
    more = f"; the first {_SHOWN} of {len(views):,}" if len(views) > _SHOWN else ""
    return [
        heading(f"Disputed{more}"),
        table(["!request", "who says what"], rows),
        f"They teach nothing until they are settled: autovision labels review {deployment} --to FOLDER",
    ]


def _annotators(found: Consensus) -> list[Any]:
    if not found.annotators:
        return []
    rows = [
        [one.name, one.words, one.compared, "" if one.accuracy is None else f"{one.accuracy:.3f}"]
        for one in found.annotators
    ]
    columns = ["annotator", ">requests", ">of these others spoke, too", ">accuracy, estimated"]
    return [heading("Annotators"), table(columns, rows)]


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
