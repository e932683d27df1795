"""Command lines on a model that answers any number of classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from autovision.store import labels as stored_labels
from autovision.store import open_store

if TYPE_CHECKING:
    from tests.unit.conftest import Scenes


@pytest.fixture
def model(scenes: Scenes, tmp_path: Path) -> str:
    """The id of the model, in the store that `cli` uses."""
    store = open_store(str(tmp_path / "store"))
    for key in scenes.store.list():
        store.put_new(key, scenes.store.get(key).data)
    return scenes.model.id


@pytest.fixture
def door(cli: Any, model: str) -> str:
    assert cli("promote", model, "--to", "door").code == 0
    return "door"


def test_predict_names_all_classes_of_an_image(cli: Any, model: str, scenes: Scenes) -> None:
    files = [path for path, _ in scenes.new]
    ran = cli("predict", model, *files, "--json")
    assert ran.code == 0
    assert set(ran.answer[0]) == {"file", "labels", "probabilities", "model"}
    right = [tuple(each["labels"]) == marks for each, (_, marks) in zip(ran.answer, scenes.new, strict=True)]
    assert sum(right) / len(right) > 0.9
    shown = " ".join(cli("predict", model, *files[:8]).out.split())
    assert "none of the classes" in shown and "blue, red, striped" in shown


def test_evaluate_shows_recalls_and_no_confusion_matrix(cli: Any, model: str) -> None:
    line = ("model", "evaluate", model, "--dataset", "scenes")
    answer = cli(*line, "--json").answer
    assert answer["confusion"] == []
    assert set(answer["per_class_recall"]) == {"blue", "red", "striped"}
    assert 0.9 < answer["average_precision"] <= 1
    shown = cli(*line).out
    assert "average precision" in shown and "recall" in shown and "truth" not in shown
    assert "any number an image" in " ".join(cli("model", "show", model).out.split())


def test_feedback_of_one_several_or_no_classes(cli: Any, door: str, tmp_path: Path) -> None:
    answer = cli("feedback", door, "r1", "red", "blue", "--json").answer
    assert answer == {"deployment": door, "request_id": "r1", "labels": ["red", "blue"], "new": True}
    assert cli("feedback", door, "r1", "blue", "red", "--json").answer["new"] is False
    assert "r2 is red" in cli("feedback", door, "r2", "red").out
    assert "r3 is none of the classes" in cli("feedback", door, "r3", "--none").out
    (tmp_path / "many.csv").write_text(
        "request_id,labels,annotator\nr4,striped | red,ann\nr5,,ann\nr6\nr7,red|green,\n,red,\n"
    )
    ran = cli("feedback", door, "--file", "many.csv", "--json")
    assert (ran.code, ran.answer["stored"]) == (1, 2)
    assert [row["line"] for row in ran.answer["bad"]] == [4, 5, 6]
    for row, word in zip(ran.answer["bad"], ("labels is missing", "green", "request_id"), strict=True):
        assert word in row["error"]
    found = stored_labels.read(open_store(str(tmp_path / "store")), door)
    assert {label.request_id: label.label for label in found} == {
        "r1": ("blue", "red"),
        "r2": ("red",),
        "r3": (),
        "r4": ("red", "striped"),
        "r5": (),
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["r1", "red", "--none"], "--none"),
        (["r1", "red", "green"], "green"),
        (["--none"], "REQUEST_ID"),
        (["r1", "--none", "--file", "x.csv"], "not both"),
        (["--file", "both.csv"], "keep one of them"),
    ],
)
def test_feedback_that_cannot_be_used(
    cli: Any, door: str, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "both.csv").write_text("request_id,label,labels\nr1,red,red\n")
    ran = cli("feedback", door, *arguments, "--json")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ") and said in ran.err
