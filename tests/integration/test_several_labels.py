"""Images with any number of labels, from the import to served answers and their labels, with real Ray and HTTP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from autovision.api import AutoVision
from autovision.records.deployments import RetrainingPolicy
from autovision.serving.client import Client
from autovision.space import Choice, Float, Space

MARKS = ("blue", "red", "striped")


class Tiny(Space):
    """Heads on a random network of a few thousand weights."""

    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    taps = 3
    pooling = Choice("avgmax", "avg")
    lr = Float(1e-2, 1e-1, log=True)
    epochs = 12
    batch_size = 16


def paint(path: Path, number: int) -> str:
    """An image with the marks that the number's bits say; the marks, as a table names them."""
    marks = [mark for bit, mark in enumerate(MARKS) if number >> bit & 1]
    pixels = np.random.default_rng(number).integers(40, 120, (72, 72, 3)).astype(np.int16)
    pixels[..., 2] += 100 * ("blue" in marks)
    pixels[..., 0] += 100 * ("red" in marks)
    pixels[::8, :, 1] += 135 * ("striped" in marks)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return "|".join(marks)


def test_import_search_evaluate_serve_and_learn_from_labels(ray_here: None, tmp_path: Path) -> None:
    rows = [f"{n}.png,{paint(tmp_path / f'{n}.png', n)}" for n in range(160)]
    (tmp_path / "table.csv").write_text("\n".join(["path,labels", *rows]))
    av = AutoVision(tmp_path / "store")
    version = av.import_dataset(tmp_path / "table.csv", "marks")
    assert version.multi_label and version.classes == MARKS

    av.create_deployment("door", "marks", Tiny(), RetrainingPolicy(volume_labels=20))
    state = av.search("marks", space=Tiny(), budget_s=600, max_trials=2, metric="average_precision")
    assert state.model is not None and state.best_value is not None and state.best_value > 0.9
    figures = av.evaluate(state.model, "marks")["test"]
    assert figures == av.model(state.model).metrics["test"]
    assert figures.accuracy.value > 0.8 > 2 * figures.majority_accuracy
    decision = av.promote(state.model, "door")
    assert decision.accepted, decision.why

    paths = [tmp_path / f"new-{n}.png" for n in range(1000, 1024)]
    truth = [tuple(filter(None, paint(path, 1000 + n).split("|"))) for n, path in enumerate(paths)]
    assert {len(marks) for marks in truth} == {0, 1, 2, 3}
    with av.serve("door", port=0, cpus=0) as server, Client(server.url) as client:
        answers = [client.predict(path.read_bytes()) for path in paths]
        for answer, marks in zip(answers, truth, strict=True):
            assert client.feedback(answer.request_id, marks).new == 1
        server.flush()
    local = av.predict("door", [path.read_bytes() for path in paths])
    assert [answer.label for answer in answers] == [getattr(each, "label", each) for each in local]
    assert np.mean([answer.label == marks for answer, marks in zip(answers, truth, strict=True)]) > 0.8

    (event,) = [event for event in av.controller().step_without_search() if event.stage == "retraining"]
    assert "24 new labels (blue 12, red 12, striped 12) are there" in event.text
    extended = av.dataset("marks")
    assert (extended.version, extended.multi_label, extended.n) == (2, True, 184)
