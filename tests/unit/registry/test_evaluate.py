"""What models say of a split, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from autovision.dataset import manifest
from autovision.dataset.importer import SourceImage, extend
from autovision.dataset.loader import load_pixels
from autovision.dataset.manifest import Row
from autovision.errors import InvalidInput, NotFound
from autovision.model.predictor import Predictor
from autovision.records.datasets import Split
from autovision.records.models import Evaluation
from autovision.registry import evaluate
from autovision.registry.evaluate import Predictions, evaluate_subgroups, predictions, store_predictions
from autovision.store import MemoryStore, keys

if TYPE_CHECKING:
    from tests.unit.conftest import History, Scenes


@pytest.fixture
def store(tiny: History) -> MemoryStore:
    return tiny.copy()


def answered(labels: list[int], said: list[int], **metadata: list[str]) -> Predictions:
    probabilities = np.full((len(said), 2), 0.1)
    probabilities[np.arange(len(said)), said] = 0.9
    return Predictions(
        tuple(f"{i:03d}" for i in range(len(labels))),
        np.array(labels),
        probabilities,
        {name: tuple(values) for name, values in metadata.items()},
    )


def test_a_model_is_run_once_and_what_it_said_is_kept(
    tiny: History, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, version = tiny.models[0], tiny.versions[1]
    key = keys.evaluation(model.id, version.digest, Split.VALIDATION)
    assert not store.exists(key)
    first = predictions(store, model.id, version, Split.VALIDATION)
    assert store.exists(key)
    monkeypatch.setattr(Predictor, "load", lambda *args, **kwargs: pytest.fail("it was run again"))
    again = predictions(store, model.id, version, Split.VALIDATION)
    np.testing.assert_array_equal(again.probabilities, first.probabilities)
    assert again.images == first.images


def test_rows_are_in_the_order_of_the_images_and_right(tiny: History, store: MemoryStore) -> None:
    model, version = tiny.models[1], tiny.versions[1]
    found = predictions(store, model.id, version, Split.TEST)
    rows = {row.image: row for row in manifest.read(store, version) if row.split is Split.TEST}
    assert found.images == tuple(sorted(rows))
    assert [model.classes[label] for label in found.labels] == [rows[image].label for image in found.images]
    pixels = load_pixels(store, found.images, model.preprocessing, threads=2)
    served = Predictor.load(store, model.id, threads=2).score(pixels)[0]
    np.testing.assert_allclose(found.probabilities, served, atol=1e-5)


def test_the_first_word_stands(tiny: History, store: MemoryStore) -> None:
    model, version = tiny.models[0], tiny.versions[1]
    first = predictions(store, model.id, version, Split.VALIDATION)
    later = Predictions(first.images, first.labels, 1 - first.probabilities, {})
    store_predictions(store, model.id, version, Split.VALIDATION, later)
    again = predictions(store, model.id, version, Split.VALIDATION)
    np.testing.assert_array_equal(again.probabilities, first.probabilities)


def test_a_class_that_the_model_does_not_know(
    tiny: History, store: MemoryStore, paint_images: Callable[..., list[Path]], tmp_path: Path
) -> None:
    green = [SourceImage(label="green", path=path) for path in paint_images(tmp_path, 5, seed=9)]
    version = extend(store, tiny.versions[1], green, seed=0)
    with pytest.raises(InvalidInput, match=r"does not know the classes \['green'\] of colours@3"):
        predictions(store, tiny.models[1].id, version, Split.TEST)
    found = predictions(store, tiny.models[1].id, version, Split.TEST, classes=version.classes)
    assert {version.classes[label] for label in found.labels} == {"blue", "green", "red"}
    assert found.probabilities.shape[1] == 2, "the model's own columns"


def test_what_cannot_be_evaluated(tiny: History, store: MemoryStore) -> None:
    with pytest.raises(NotFound, match="no model 'nobody'"):
        predictions(store, "nobody", tiny.versions[0], Split.TEST)
    with pytest.raises(InvalidInput, match="no image in its test split"):
        rows = [row for row in manifest.read(store, tiny.versions[0]) if row.split is not Split.TEST]
        key, digest = manifest.write(store, "colours", rows)
        empty = tiny.versions[0].with_(digest=digest, manifest_key=key)
        predictions(store, tiny.models[0].id, empty, Split.TEST)


def test_the_whole_and_each_subgroup_are_evaluated() -> None:
    what = answered([0, 0, 1, 1], [0, 0, 1, 0], line=["old", "new", "old", "new"])
    found = evaluate_subgroups(what, ("a", "b"), "b", dataset="d@1", split=Split.TEST)
    assert set(found) == {"test", "test:line=new", "test:line=old"}
    assert found["test"].accuracy.value == 0.75
    assert found["test:line=old"].accuracy.value == 1.0
    assert found["test:line=new"].accuracy.value == 0.5
    assert found["test:line=new"].where == {"line": "new"}
    assert (found["test"].n, found["test:line=new"].n) == (4, 2)


@pytest.mark.parametrize(
    "metadata",
    [
        {"line": ["x", "x", "x", "x"]},
        {"line": ["a", "a", "b", "b"]},
        {},
    ],
    ids=["one value", "gives the label away", "none"],
)
def test_columns_that_make_no_groups(metadata: dict[str, list[str]]) -> None:
    what = answered([0, 0, 1, 1], [0, 0, 1, 0], **metadata)
    found = evaluate_subgroups(what, ("a", "b"), "b", dataset="d@1", split=Split.TEST)
    assert set(found) == {"test"}


def test_a_column_with_a_value_for_each_image_makes_no_groups() -> None:
    n = 2 * (evaluate.MOST_GROUPS + 1)
    what = answered([0, 1] * (n // 2), [0, 1] * (n // 2), serial=[str(i // 2) for i in range(n)])
    assert what.groups("serial") == {}
    assert what.groups("nothing") == {}


def test_metadata_that_only_some_images_have_makes_groups_of_these_and_no_figures() -> None:
    """New images may come without it: a gate protects the others all the same."""

    def row(image: str, label: str, **metadata: str) -> Row:
        return Row(image=image, source="", label=label, split=Split.TEST, metadata=metadata)

    rows = [
        row("1", "a", shift="day"),
        row("2", "b"),
        row("3", "b", shift="day"),
        row("4", "a", shift="night"),
    ]
    found = Predictions.of(rows, ["a", "b"], np.full((4, 2), 0.5))
    assert found.metadata == {"shift": ("day", None, "day", "night")}
    groups = {name: mask.tolist() for name, mask in found.groups("shift").items()}
    assert groups == {"day": [True, False, True, False], "night": [False, False, False, True]}
    assert set(evaluate_subgroups(found, ("a", "b"), "b", dataset="d@1", split=Split.TEST)) == {"test"}
    assert len(Predictions.of([], ["a"], np.zeros((0, 1)))) == 0


def test_images_of_a_group_are_drawn_together() -> None:
    """Figures are what they are; intervals are wider, as ten patients are not forty witnesses."""
    labels = np.arange(40) // 4 % 2
    said = np.where(np.arange(40) < 12, 1 - labels, labels)

    def evaluated(groups: list[str | None]) -> Evaluation:
        rows = [
            Row(image=f"{i:02}", source="", label="ab"[label], split=Split.TEST, group=group)
            for i, (label, group) in enumerate(zip(labels, groups, strict=True))
        ]
        what = Predictions.of(rows, ["a", "b"], 0.1 + 0.8 * np.eye(2)[said])
        return evaluate_subgroups(what, ["a", "b"], None, dataset="d@1", split=Split.TEST)["test"]

    alone, together = evaluated([None] * 40), evaluated([f"p{i // 4}" for i in range(40)])
    one, whole = alone.bootstrap["accuracy"], together.bootstrap["accuracy"]
    assert one.value == whole.value == 0.7
    assert whole.high - whole.low > 1.5 * (one.high - one.low)
    assert together.accuracy == alone.accuracy


# --------------------------------------------------------------------------------------- several classes


def test_rows_of_several_labels_become_zeros_and_ones(scenes: Scenes) -> None:
    store = scenes.copy()
    found = predictions(store, scenes.model.id, scenes.version, Split.VALIDATION)
    rows = {row.image: row for row in manifest.read(store, scenes.version)}
    assert found.labels.shape == found.probabilities.shape == (len(found), 3)
    for image, has in zip(found.images, found.labels, strict=True):
        assert rows[image].labels == tuple(np.array(scenes.model.classes)[has == 1])


def test_subgroups_of_several_labels() -> None:
    labels, line = np.array([[1, 0], [0, 0], [1, 1], [0, 1]]), ("old", "new", "old", "new")
    what = Predictions(tuple("abcd"), labels, labels * 0.8 + 0.1, {"line": line})
    found = evaluate_subgroups(what, ("a", "b"), None, dataset="d@1", split=Split.TEST)
    assert set(found) == {"test", "test:line=new", "test:line=old"}
    same = Predictions(tuple("abcd"), labels[[0, 1, 0, 1]], labels * 0.8 + 0.1, {"line": line})
    assert set(evaluate_subgroups(same, ("a", "b"), None, dataset="d@1", split=Split.TEST)) == {"test"}


def test_a_model_is_not_evaluated_on_images_that_are_labelled_otherwise(scenes: Scenes) -> None:
    store = scenes.copy()
    single = scenes.version.with_(multi_label=False)
    with pytest.raises(
        InvalidInput, match=r"gives an image any number of labels, and in scenes@1 it has exactly"
    ):
        predictions(store, scenes.model.id, single, Split.TEST)
