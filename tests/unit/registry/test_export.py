"""Exports are whole, alone, and agree with PyTorch; or they are not there."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from autovision.dataset import catalog, manifest
from autovision.errors import InvalidInput, NotFound
from autovision.model.predictor import Prediction, Predictor
from autovision.records.datasets import Split
from autovision.records.models import ModelVersion
from autovision.records.runtimes import ExportManifest
from autovision.registry import export as exporting
from autovision.registry.export import FORMATS, ExportRefused, export
from autovision.store import keys
from autovision.store.protocol import Store

if TYPE_CHECKING:
    from tests.unit.conftest import History, Scenes

WITHOUT_US = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("autovision", "timm"):
            raise ImportError(f"the loader imports {name}")

sys.meta_path.insert(0, Nothing())
sys.path.insert(0, sys.argv[1])
import json
import load

answers = load.predict(sys.argv[2:])
print(json.dumps(answers))
"""


def files_of(store: Store, model: ModelVersion, folder: Path, n: int) -> list[Path]:
    version = catalog.get(store, model.lineage.dataset)
    rows = [row for row in manifest.read(store, version) if row.split is Split.TEST][:n]
    folder.mkdir()
    paths = []
    for row in rows:
        paths.append(folder / row.image[:12])
        paths[-1].write_bytes(store.get(keys.image(row.image)).data)
    return paths


def said_by(folder: Path, images: list[Path]) -> list[Any]:
    """The loader's answers to all images at once, where neither this package nor timm can be imported."""
    ran = subprocess.run(
        [sys.executable, "-B", "-c", WITHOUT_US, str(folder), *map(str, images)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder.parent,
    )
    assert ran.returncode == 0, ran.stderr
    answers: list[Any] = json.loads(ran.stdout)
    return answers


def check(store: Store, model: ModelVersion, folder: Path, tmp_path: Path) -> None:
    images = files_of(store, model, tmp_path / "images", 9)
    expected = Predictor.load(store, model.id, threads=1).predict([path.read_bytes() for path in images])
    for (label, probabilities), other in zip(said_by(folder, images), expected, strict=True):
        assert isinstance(other, Prediction)
        assert (tuple(label) if isinstance(label, list) else label) == other.label
        assert list(probabilities) == list(other.probabilities)
        np.testing.assert_allclose(
            list(probabilities.values()), list(other.probabilities.values()), atol=0.02
        )


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_answers_as_the_model_does_without_this_package(
    tiny: History, tmp_path: Path, format: str
) -> None:
    model, folder = tiny.models[1], tmp_path / "deep" / "out"
    told = export(tiny.store, model.id, folder, format)
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    written = ExportManifest.model_validate_json((folder / "manifest.json").read_text())
    assert written == told
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *told.files}
    for name, digest in told.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert told.parity is not None and told.parity.within
    assert (told.parity.split, told.parity.images) == (Split.TEST, 60)
    assert (told.model, told.classes, told.temperature) == (model.id, model.classes, model.temperature)
    assert (folder / "requirements.txt").read_text().startswith(next(iter(told.packages)))
    check(tiny.store, model, folder, tmp_path)


def test_several_labels_are_exported_too(scenes: Scenes, tmp_path: Path) -> None:
    told = export(scenes.store, scenes.model.id, tmp_path / "out", "openvino")
    assert told.multi_label
    check(scenes.store, scenes.model, tmp_path / "out", tmp_path)


def test_what_disagrees_with_pytorch_is_refused_and_nothing_stays(
    tiny: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = exporting.formats.write_openvino

    def of_another_model(network: Any, size: tuple[int, int], path: Path) -> None:
        network.head.out.bias.data += 1.0
        write(network, size, path)
        network.head.out.bias.data -= 1.0
        network.head.out.weight.data *= -1.0

    monkeypatch.setattr(exporting.formats, "write_openvino", of_another_model)
    with pytest.raises(
        ExportRefused, match=r"does not agree with PyTorch: the same answer for .* are allowed"
    ):
        export(tiny.store, tiny.models[1].id, tmp_path / "out", "openvino")
    assert list(tmp_path.iterdir()) == []


def test_a_loader_that_does_not_run_is_refused_with_its_reason(
    tiny: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(network: Any, size: tuple[int, int], path: Path) -> None:
        path.write_bytes(b"<net")

    monkeypatch.setattr(exporting.formats, "write_openvino", half)
    with pytest.raises(ExportRefused, match=r"does not run: .+; nothing was written"):
        export(tiny.store, tiny.models[1].id, tmp_path / "out", "openvino")
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_way_is_refused_before_any_work(tiny: History, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep")
    (tmp_path / "file").write_text("keep")
    for name, fault in (("full", "not empty; empty it"), ("file", "not a folder")):
        with pytest.raises(InvalidInput, match=fault):
            export(tiny.store, "nobody", tmp_path / name, "openvino")
    with pytest.raises(InvalidInput, match=r"no format 'onx'.*did you mean 'onnx'"):
        export(tiny.store, "nobody", tmp_path / "out", "onx")
    with pytest.raises(NotFound, match="no model 'nobody'"):
        export(tiny.store, "nobody", tmp_path / "out", "openvino")
    with pytest.raises(InvalidInput, match="nothing can be written"):
        export(tiny.store, tiny.models[0].id, tmp_path / "file" / "out", "openvino")
    assert (tmp_path / "full" / "mine").read_text() == "keep"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def damaged_is_not_loaded(folder: Path) -> None:
    weights = folder / "model.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    ran = subprocess.run(
        [sys.executable, "-B", str(folder / "load.py")], capture_output=True, text=True, check=False
    )
    assert ran.returncode != 0 and "model.bin does not match its checksum" in ran.stderr


def test_an_empty_folder_is_taken_and_what_came_meanwhile_stays(
    tiny: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    export(tiny.store, tiny.models[0].id, tmp_path / "out", "openvino")
    damaged_is_not_loaded(tmp_path / "out")

    compare = exporting.parity.compare

    def meanwhile(*args: Any) -> Any:
        (tmp_path / "late").mkdir()
        (tmp_path / "late" / "theirs").write_text("keep")
        return compare(*args)

    monkeypatch.setattr(exporting.parity, "compare", meanwhile)
    with pytest.raises(InvalidInput, match="not empty"):
        export(tiny.store, tiny.models[0].id, tmp_path / "late", "openvino")
    assert [path.name for path in (tmp_path / "late").iterdir()] == ["theirs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["late", "out"]
