from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_import_answers_with_the_version_and_nothing_else_on_stdout(cli: Any, photos: Path) -> None:
    ran = cli("dataset", "import", photos, "--name", "pets", "--seed", 3, "--json")
    assert ran.code == 0
    answer = ran.answer
    assert (answer["dataset"], answer["name"], answer["version"]) == ("pets@1", "pets", 1)
    assert (answer["n"], answer["classes"], answer["seed"]) == (24, ["cat", "dog"], 3)
    assert sum(sum(counts.values()) for counts in answer["counts"].values()) == 24
    assert set(answer["counts"]) == {"train", "validation", "test"}
    assert len(answer["digest"]) == 64
    assert answer["problem_counts"] == {}


def test_the_same_import_again_is_the_same_version(cli: Any, photos: Path) -> None:
    first = cli("dataset", "import", photos, "--name", "pets", "--json").answer
    assert cli("dataset", "import", photos, "--name", "pets", "--json").answer == first


def test_the_positive_class_is_taken(cli: Any, photos: Path) -> None:
    line = ("dataset", "import", photos, "--name", "pets", "--json", "--positive-class")
    assert cli(*line, "dog").answer["positive_class"] == "dog"
    assert cli(*line, "cat").answer["positive_class"] == "cat"
    refused = cli(*line, "cow")
    assert (refused.code, refused.out) == (2, "")
    assert "'cow'" in refused.err


def test_what_cannot_be_used_is_reported_and_the_rest_imported(cli: Any, photos: Path) -> None:
    (photos / "dog" / "fake\x1b[31m [bold] :smile:.png").write_text("no image")
    for number in range(7):
        (photos / "dog" / f"again {number}.png").write_bytes((photos / "dog" / "0.png").read_bytes())
    ran = cli("dataset", "import", photos, "--name", "pets")
    assert ran.code == 0
    assert "\x1b" not in ran.out
    squeezed = " ".join(ran.out.split())
    assert "fake\\x1b[31m [bold] :smile:.png" in squeezed
    assert "duplicate 7" in squeezed and "unreadable 1" in squeezed
    assert "duplicate (first 5 of 7)" in squeezed
    answer = cli("dataset", "show", "pets", "--json").answer
    assert answer["problem_counts"] == {"duplicate": 7, "unreadable": 1}
    assert len(answer["problems"]) == 8


def test_tables_fit_80_columns(cli: Any, photos: Path) -> None:
    (photos / "dog" / ("long name " * 20 + ".png")).write_text("no image")
    ran = cli("dataset", "import", photos, "--name", "pets")
    assert max(map(len, ran.out.splitlines())) <= 80


def test_progress_is_shown_on_a_terminal_only(cli: Any, photos: Path) -> None:
    assert cli("dataset", "import", photos, "--name", "pets", "--json").err == ""


@pytest.mark.parametrize("seed", [0, 5])
def test_show_a_version_by_its_number(cli: Any, photos: Path, seed: int) -> None:
    cli("dataset", "import", photos, "--name", "pets", "--seed", seed)
    (photos / "cat" / "0.png").unlink()
    cli("dataset", "import", photos, "--name", "pets", "--seed", seed)
    assert cli("dataset", "show", "pets", "--json").answer["version"] == 2
    assert cli("dataset", "show", "pets@1", "--json").answer["n"] == 24
    shown = cli("dataset", "show", "pets@2").out
    assert "pets@2" in shown and "23" in shown


def test_a_table_with_any_number_of_labels(cli: Any, photos: Path) -> None:
    images = sorted(photos.glob("*/*.png"))
    named = ["cat|dog" if n % 4 == 3 else "cat" * (n % 2) or "dog" * (n % 4 == 2) for n in range(len(images))]
    rows = [f"{path.relative_to(photos)},{labels}" for path, labels in zip(images, named, strict=True)]
    (photos / "table.csv").write_text("\n".join(["path,labels", *rows]))
    answer = cli("dataset", "import", photos / "table.csv", "--name", "pets", "--json").answer
    assert answer["multi_label"] and answer["n"] == sum(answer["images"].values()) == 24
    assert sum(counts["cat"] for counts in answer["counts"].values()) == 12
    shown = " ".join(cli("dataset", "show", "pets").out.split())
    counts = answer["images"]
    assert "labels any number an image" in shown
    assert f"images {counts['train']} {counts['validation']} {counts['test']}" in shown


def test_list(cli: Any, photos: Path) -> None:
    empty = cli("dataset", "list")
    assert empty.code == 0 and "no data set yet" in empty.out
    assert cli("dataset", "list", "--json").answer == []
    for name in ("pets", "beasts"):
        cli("dataset", "import", photos, "--name", name)
    listed = cli("dataset", "list", "--json").answer
    assert [(each["dataset"], each["n"]) for each in listed] == [("beasts@1", 24), ("pets@1", 24)]
    assert "beasts" in cli("dataset", "list").out


def test_the_store_comes_from_the_environment(
    cli: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOVISION_STORE", str(tmp_path / "from environment"))
    assert cli("dataset", "import", photos, "--name", "pets", at=False).code == 0
    assert (tmp_path / "from environment" / "datasets").is_dir()


def test_without_any_the_store_is_a_folder_here(cli: Any, photos: Path, tmp_path: Path) -> None:
    assert cli("dataset", "import", photos, "--name", "pets", at=False).code == 0
    assert (tmp_path / "autovision-store" / "datasets").is_dir()


@pytest.mark.parametrize(
    ("path", "name", "code", "said"),
    [
        ("missing", "pets", 2, "missing"),
        ("photos", "No Name!", 2, "No Name!"),
        ("photos/cat", "pets", 2, "class"),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_bad_input_is_one_error(
    cli: Any, photos: Path, path: str, name: str, code: int, said: str, form: tuple[str, ...]
) -> None:
    ran = cli("dataset", "import", path, "--name", name, *form)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("error: ") and said in ran.err
    assert "Traceback" not in ran.err


def test_a_data_set_that_does_not_exist(cli: Any, photos: Path) -> None:
    cli("dataset", "import", photos, "--name", "pets")
    ran = cli("dataset", "show", "petz", "--json")
    assert (ran.code, ran.out) == (3, "")
    assert "'pets'" in ran.err


def test_a_store_that_cannot_be_made(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = cli("dataset", "list", "--json", "--store", tmp_path / "file" / "store", at=False)
    assert (ran.code, ran.out) == (5, "")
    assert ran.err.startswith("error: ")
