"""Finding a space by short name, by module and by file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autovision.errors import InvalidSpace
from autovision.space import Space, load_space
from search_spaces import Quick

SOURCE = '''
from autovision.space import Choice, Float, Space

class Mine(Space):
    """Mine."""
    lr = Float(1e-4, 1e-2, log=True)

class Empty(Space):
    pass

ready = Mine()
number = 3
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with modules that are forgotten again afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("own_"):
            del sys.modules[name]


@pytest.mark.parametrize("spec", ["quick", "Quick", "search_spaces:Quick", "search_spaces.quick:Quick"])
def test_a_shipped_space_has_a_short_name(spec: str) -> None:
    space = load_space(spec)
    assert isinstance(space, Quick)
    assert space == Quick()


def test_a_short_name_means_the_shipped_one_whatever_lies_here(folder: Path) -> None:
    (folder / "search_spaces").mkdir()
    (folder / "search_spaces" / "__init__.py").write_text("__all__ = []")
    assert load_space("quick") == Quick()


@pytest.mark.parametrize("name", ["Mine", "ready"])
def test_a_module_of_the_current_directory(folder: Path, name: str) -> None:
    (folder / "own_space.py").write_text(SOURCE)
    path = list(sys.path)
    space = load_space(f"own_space:{name}")
    assert space.name == "Mine"
    assert space.config({"lr": 0.001}).lr == 0.001
    assert sys.path == path


def test_a_module_of_a_package_of_the_current_directory(folder: Path) -> None:
    (folder / "own_package" / "inner").mkdir(parents=True)
    (folder / "own_package" / "inner" / "deep.py").write_text(SOURCE)
    assert load_space("own_package.inner.deep:Mine").name == "Mine"


def test_a_file(folder: Path) -> None:
    (folder / "mit Umlaut ä.json").write_text(json.dumps(Quick.to_json()), encoding="utf-8")
    assert load_space("mit Umlaut ä.json") == Quick()
    assert load_space(str(folder / "mit Umlaut ä.json")) == Quick()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "quik",
            "is none of the shipped ones, architecture, demo, edge, inspection, quick, standard; "
            ".* did you mean 'quick'",
        ),
        ("", "is none of the shipped ones"),
        (":Mine", "is not of the form MODULE:NAME"),
        ("own space:Mine", "is not of the form MODULE:NAME"),
        ("own_space:", "is not of the form MODULE:NAME"),
        ("..own_space:Mine", "is not of the form MODULE:NAME"),
        ("own_space:a:b", "is not of the form MODULE:NAME"),
        (
            "own_nowhere:Mine",
            "there is no module 'own_nowhere', neither installed nor in .*; check the spelling",
        ),
        ("own_space.inner:Mine", "there is no module 'own_space.inner'"),
        ("own_space:Nine", "has no 'Nine'; it has Mine, Empty, ready; did you mean 'Mine'"),
        ("own_space:number", "'number' is 3, which is no search space; name a subclass"),
        ("own_space:Space", "which is no search space"),
        ("own_space:Empty", "space 'Empty' declares no parameter"),
        ("own_needs:Mine", "module 'own_needs' needs 'own_missing', which is missing; install it"),
        ("own_broken:Mine", "importing module 'own_broken' failed with SyntaxError"),
        ("own_raises:Mine", "importing module 'own_raises' failed with ZeroDivisionError: division by zero"),
        ("own_wrong:Mine", "parameter 'lr' = Float\\(2, 1\\): low 2.0 is not below high 1.0"),
        ("own_none.json", "file 'own_none.json' cannot be read: No such file or directory; check the path"),
        (".json", "cannot be read"),
        ("own_folder.json", "cannot be read: Is a directory"),
    ],
)
def test_what_cannot_be_found_or_read_is_said(folder: Path, spec: str, message: str) -> None:
    (folder / "own_space.py").write_text(SOURCE)
    (folder / "own_needs.py").write_text("import own_missing")
    (folder / "own_broken.py").write_text("class Mine(Space:")
    (folder / "own_raises.py").write_text("1 / 0")
    (folder / "own_wrong.py").write_text(SOURCE.replace("1e-4, 1e-2, log=True", "2, 1"))
    (folder / "own_folder.json").mkdir()
    path = list(sys.path)
    with pytest.raises(InvalidSpace, match=message):
        load_space(spec)
    assert sys.path == path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON: Expecting value"),
        (b"{'a': 1}", "is not valid JSON"),
        (b"[" * 200_000, "is not valid JSON"),
        (b'{"format": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (b'{"format": 1, "format": 1}', "the key 'format' stands twice in one object"),
        (b"\xff\xfe", "is not UTF-8 text; save it as UTF-8"),
        (b"[]", "a search space in JSON is an object"),
    ],
)
def test_a_damaged_file_is_refused(folder: Path, content: bytes, message: str) -> None:
    (folder / "own.json").write_bytes(content)
    with pytest.raises(InvalidSpace, match=message):
        load_space("own.json")


def test_numbers_that_json_does_not_have_are_refused(folder: Path) -> None:
    form: dict[str, Any] = Quick.to_json()
    form["parameters"]["lr"]["high"] = float("nan")
    (folder / "own.json").write_text(json.dumps(form))
    with pytest.raises(InvalidSpace, match="high nan is not a finite number"):
        load_space("own.json")


def test_what_was_loaded_travels(folder: Path) -> None:
    (folder / "own_space.py").write_text(SOURCE)
    space = load_space("own_space:Mine")
    assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space
