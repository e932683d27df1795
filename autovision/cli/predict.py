"""`autovision predict`: a model's answers to image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli.model import Model
from autovision.cli.options import Json, Store
from autovision.cli.output import answering, library, table

if TYPE_CHECKING:
    from autovision.model.predictor import Predictor

_BATCH = 64
"""files that are in memory at a time"""


def predict(
    model: Model,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Image files.")],
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Say what is on images. A file that cannot be read gets its error, and the others their answers.

    A model of any number of classes names all whose probability is above one half, which may be none.

    Exits with 1 if any file got no answer.
    """
    with answering(as_json) as out:
        from autovision.model.predictor import Predictor

        av = library(store)
        predictor = Predictor.load(av.store, av.model(model).id)
        answers: list[dict[str, Any]] = []
        remaining = iter(files)
        while batch := list(islice(remaining, _BATCH)):
            answers += _answers(predictor, batch)
        out.answer(answers, table(["file", "label", ">probability"], [_row(answer) for answer in answers]))
        if any("error" in answer for answer in answers):
            raise typer.Exit(1)


def _answers(predictor: Predictor, files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """One answer for each file, in their order."""
    contents = [_read(file) for file in files]
    predictions = iter(predictor.predict([each for each in contents if isinstance(each, bytes)]))
    for file, content in zip(files, contents, strict=True):
        outcome = content if isinstance(content, str) else next(predictions)
        if isinstance(outcome, str | Exception):
            yield {"file": str(file), "error": str(outcome)}
        else:
            said = "label" if isinstance(outcome.label, str) else "labels"
            yield {
                "file": str(file),
                said: outcome.label,
                "probabilities": outcome.probabilities,
                "model": predictor.model.id,
            }


def _read(file: Path) -> bytes | str:
    """The file's bytes, or why there are none."""
    try:
        return file.read_bytes()
    except OSError as error:
        return f"the file cannot be read: {error.strerror}"


def _row(answer: dict[str, Any]) -> list[Any]:
    if "error" in answer:
        return [answer["file"], f"error: {answer['error']}", None]
    said = answer["labels"] if "labels" in answer else [answer["label"]]
    sure = ", ".join(f"{answer['probabilities'][label]:.3f}" for label in said)
    return [answer["file"], ", ".join(said) or "none of the classes", sure]
