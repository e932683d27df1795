"""The solar cells, where their package is installed."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from autovision.dataset.elpv import load_elpv
from autovision.dataset.importer import import_images
from autovision.errors import CorruptObject, NotFound
from autovision.store.memory import MemoryStore

installed = pytest.mark.skipif(
    importlib.util.find_spec("elpv_dataset") is None, reason="needs the extra `demo` (elpv-dataset)"
)


@installed
def test_the_cells() -> None:
    cells = load_elpv()
    assert Counter((cell.metadata["cell_type"], cell.label) for cell in cells) == {
        ("mono", "functional"): 588 + 117,
        ("mono", "defective"): 56 + 313,
        ("poly", "functional"): 920 + 178,
        ("poly", "defective"): 50 + 402,
    }
    meaning = {(cell.metadata["probability"], cell.label, round(cell.confidence, 6)) for cell in cells}
    assert meaning == {
        ("0.000", "functional", 1.0),
        ("0.333", "functional", 0.333333),
        ("0.667", "defective", 0.333333),
        ("1.000", "defective", 1.0),
    }
    assert all(cell.path is not None and cell.path.is_file() for cell in cells)
    assert cells[0].source == "images/cell0001.png"


@installed
def test_some_cells_are_imported(store: MemoryStore) -> None:
    version = import_images(store, "solar", load_elpv()[::40], seed=0, stratify_by="cell_type")
    assert version.n == 66 and version.problems == () and version.positive_class == "defective"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)  # type: ignore[arg-type]
    with pytest.raises(NotFound, match=r"pip install 'autovision\[demo\]'"):
        load_elpv()


@pytest.mark.parametrize("labels", [None, "images/a.png 1.0\n", "images/a.png high mono\n", "a b c d\n"])
def test_a_damaged_package(labels: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    if labels is not None:
        (tmp_path / "data" / "labels.csv").write_text(labels)
    module = ModuleType("elpv_dataset")
    module.__spec__ = importlib.util.spec_from_file_location("elpv_dataset", tmp_path / "__init__.py")
    monkeypatch.setitem(sys.modules, "elpv_dataset", module)
    with pytest.raises(CorruptObject, match="install it again"):
        load_elpv()
