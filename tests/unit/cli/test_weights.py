from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of test_resnet."""
    import timm
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


def bring(cli: Any, file: Path, *options: object) -> Any:
    return cli("weights", "import", file, "--backbone", "test_resnet", "--name", "mine", *options)


def test_import_list_and_show_say_the_same(cli: Any, file: Path) -> None:
    assert cli("weights", "list", "--json").answer == []
    assert "no weights yet" in cli("weights", "list").out
    ran = bring(cli, file, "--license", "CC-BY-4.0", "--source", "our [lab]", "--json")
    assert (ran.code, ran.err) == (0, "")
    made = ran.answer
    assert (made["weights"], made["name"], made["backbone"]) == ("store:mine", "mine", "test_resnet")
    assert (made["license"], made["source"], len(made["digest"])) == ("CC-BY-4.0", "our [lab]", 64)
    assert bring(cli, file, "--json").answer == made, "the same again is the same"
    assert cli("weights", "list", "--json").answer == [made]
    assert cli("weights", "show", "mine", "--json").answer == made


def test_for_people(cli: Any, file: Path) -> None:
    for ran in (bring(cli, file), cli("weights", "list"), cli("weights", "show", "mine")):
        assert ran.code == 0
        assert max(map(len, ran.out.splitlines())) <= 80
        assert "mine" in ran.out and "test_resnet" in ran.out and "unknown" in ran.out
    assert 'weights = "store:mine"' in ran.out


def test_what_cannot_be_imported(cli: Any, file: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.pth"
    page.write_text("<!doctype html><title>Sign in</title>")
    line = ("weights", "import", "--name", "mine", "--backbone")
    for arguments, code, said in (
        ((*line, "test_resnet", page), 5, "page.pth is a web page"),
        ((*line, "test_resnet", tmp_path / "gone.pth"), 2, "gone.pth; check the path"),
        ((*line, "test_vit", file), 2, "name the backbone that they are weights of"),
        ((*line, "test_resnt", file), 2, "did you mean 'test_resnet'"),
    ):
        ran = cli(*arguments, "--json")
        assert (ran.code, ran.out) == (code, "")
        assert ran.err.startswith("error: ") and said in ran.err
    bring(cli, file)
    assert bring(cli, file, "--license", "MIT").code == 4
    missing = cli("weights", "show", "mind")
    assert missing.code == 3 and "did you mean 'mine'" in missing.err
