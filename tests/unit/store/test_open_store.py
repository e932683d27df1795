from __future__ import annotations

from pathlib import Path

import pytest

from autovision.errors import InvalidInput
from autovision.store import LocalStore, MemoryStore, open_store


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("AUTOVISION_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_said_is_the_folder_here(here: Path) -> None:
    assert open_store().uri == (here / "autovision-store").as_uri()
    assert (here / "autovision-store").is_dir()


def test_the_environment_names_the_store(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOVISION_STORE", str(here / "other"))
    assert open_store().uri == (here / "other").as_uri()
    assert open_store("explicit").uri == (here / "explicit").as_uri()
    monkeypatch.setenv("AUTOVISION_STORE", "")
    assert open_store().uri == (here / "autovision-store").as_uri()


@pytest.mark.parametrize("form", ["{0}", "file://{0}", "FILE://{0}", "file://localhost{0}"])
def test_forms_of_a_folder(here: Path, form: str) -> None:
    store = open_store(form.format(here / "deep" / "store"))
    assert isinstance(store, LocalStore)
    assert store.root == here / "deep" / "store"


def test_a_path_object_and_a_relative_path(here: Path) -> None:
    assert open_store(Path("a")).uri == open_store("a").uri == open_store("./b/../a").uri


def test_the_home_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    assert open_store("~/store").uri == (here / "store").as_uri()


@pytest.mark.parametrize("name", ["with space", "ünï", "100%", "a#b", "what?", "%41"])
def test_a_uri_comes_back_to_the_same_folder(here: Path, name: str) -> None:
    store = open_store(here / name)
    store.put_new("a", b"")
    assert open_store(store.uri).exists("a")
    assert [path.name for path in here.iterdir()] == [name]


def test_memory_stores_have_names() -> None:
    first = open_store("memory://open-test")
    first.put_new("a", b"")
    assert open_store("memory://open-test") is first
    assert not open_store("memory://open-test-2").exists("a")
    assert isinstance(first, MemoryStore)


def test_a_memory_store_without_a_name_is_found_by_its_uri_too() -> None:
    store = MemoryStore()
    assert open_store(store.uri) is store
    assert MemoryStore().uri != store.uri


def test_a_memory_stores_name_is_taken_once() -> None:
    store = MemoryStore("taken")
    with pytest.raises(InvalidInput, match="memory://taken"):
        MemoryStore("taken")
    assert open_store("memory://taken") is store


@pytest.mark.parametrize("uri", ["gs://bucket", "http://host/x", "fiel:///x"])
def test_other_schemes_are_refused_with_what_is_supported(here: Path, uri: str) -> None:
    with pytest.raises(InvalidInput, match=r"does not support.*file:///.*s3://.*memory://"):
        open_store(uri)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "uri", ["", " ", "file://relative", "file://host/x", "file:///a?b", "memory://", "memory://A b"]
)
def test_unclear_uris_are_refused(here: Path, uri: str) -> None:
    with pytest.raises(InvalidInput):
        open_store(uri)
    assert list(here.iterdir()) == []
