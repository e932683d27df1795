from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

INTERVALS = ("accuracy", "balanced_accuracy", "f1", "auroc")


def test_list(cli: Any, world: Any) -> None:
    (listed,) = cli("model", "list", "--json").answer
    assert (listed["model"], listed["dataset"], listed["backbone"]) == (world.model, "pets@1", "test_resnet")
    assert listed["deployments"] == []
    cli("promote", world.model, "--to", "door", "--force")
    assert cli("model", "list", "--json").answer[0]["deployments"] == ["door"]
    shown = cli("model", "list").out
    assert world.model in shown and "door" in shown


def test_list_by_licence(cli: Any, world: Any) -> None:
    assert [each["license"] for each in cli("model", "list", "--json").answer] == ["none"]
    assert len(cli("model", "list", "--license", "mit", "--json").answer) == 1, "random weights are nobody's"
    record = world.folder / "models" / world.model / "model.json"
    text = record.read_text()
    record.write_text(text.replace('license": "none"', 'license": "CC-BY-NC-4.0"'))
    assert cli("model", "list", "--license", "mit,apache-2.0", "--json").answer == []
    assert "--license" in cli("model", "list", "--license", "mit").out
    (found,) = cli("model", "list", "--license", "mit", "--license", "cc-by-nc-4.0", "--json").answer
    assert (found["model"], found["license"]) == (world.model, "CC-BY-NC-4.0")
    assert "CC-BY-NC-4.0" in cli("model", "show", world.model).out


def test_list_of_none(cli: Any) -> None:
    assert cli("model", "list", "--json").answer == []
    assert "no model yet" in cli("model", "list").out


def test_show_tells_where_a_model_came_from(cli: Any, world: Any) -> None:
    answer = cli("model", "show", world.model, "--json").answer
    ran = cli("model", "show", world.model)
    assert max(map(len, ran.out.splitlines())) <= 80
    squeezed = "".join(ran.out.split())
    lineage = answer["lineage"]
    for name in (
        "search",
        "trial",
        "dataset_digest",
        "backbone_weights_digest",
        "space_fingerprint",
        "code_version",
    ):
        assert lineage[name] in squeezed, name
    for package, version in lineage["packages"].items():
        assert package + version in squeezed
    for parameter in lineage["config"]:
        assert parameter in squeezed


def squeezed(text: str) -> str:
    """As one word: what is long is folded."""
    return "".join(text.split())


def test_show_and_evaluate_tell_how_it_answers_and_every_interval(cli: Any, world: Any) -> None:
    answer = cli("model", "show", world.model, "--json").answer
    shown = cli("model", "show", world.model).out
    assert answer["decision"]["kind"] == "default" and "the most probable class" in shown
    assert answer["lineage"]["refit"]["images"] > 0 and "oftrainandvalidation" in squeezed(shown)
    found = answer["metrics"]["test"]
    assert found["resamples"] == 1000
    assert {"macro_f1", "average_precision", "log_loss", "ece", "accuracy"} <= found["bootstrap"].keys()
    evaluated = cli("model", "evaluate", world.model, "--dataset", "pets", "--json").answer
    assert evaluated["bootstrap"]["log_loss"][0] == pytest.approx(evaluated["log_loss"])
    for out in (shown, cli("model", "evaluate", world.model, "--dataset", "pets").out):
        assert "1,000resamples" in squeezed(out) and "accuracy *" in out


def test_a_deployment_stands_for_its_champion(cli: Any, world: Any) -> None:
    cli("promote", world.model, "--to", "door", "--force")
    assert cli("model", "show", "door", "--json").answer["model"] == world.model


def test_evaluate_gives_every_figure_of_the_split_and_of_its_subgroups(cli: Any, world: Any) -> None:
    answer = cli("model", "evaluate", world.model, "--dataset", "pets", "--split", "test", "--json").answer
    assert (answer["model"], answer["dataset"], answer["split"]) == (world.model, "pets@1", "test")
    assert answer["classes"] == ["cat", "dog"]
    assert set(answer["subgroups"]) == {"fur=short", "fur=long"}
    assert sum(group["n"] for group in answer["subgroups"].values()) == answer["n"]
    for figures in (answer, *answer["subgroups"].values()):
        for name in INTERVALS:
            low, high = figures[f"{name}_interval"]
            assert 0 <= low <= figures[name] <= high <= 1
        assert sum(map(sum, figures["confusion"])) == figures["n"]
        assert set(figures["per_class_recall"]) == {"cat", "dog"}
        assert {"log_loss", "ece", "majority_accuracy"} <= set(figures)
    right = answer["confusion"][0][0] + answer["confusion"][1][1]
    assert answer["accuracy"] == pytest.approx(right / answer["n"])


def test_evaluate_for_people(cli: Any, world: Any) -> None:
    ran = cli("model", "evaluate", world.model, "--dataset", "pets@1", "--split", "validation")
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "fur=short" in ran.out and "recall" in ran.out


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (["model", "show", "pets-m-0"], 3, "pets-m-"),
        (["model", "evaluate", "MODEL", "--dataset", "petz"], 3, "'pets'"),
        (
            ["model", "evaluate", "MODEL", "--dataset", "pets", "--split", "tset"],
            2,
            "train, validation, test",
        ),
        (["predict", "pets-m-0", "photo.png"], 3, "pets-m-"),
        (["promote", "pets-m-0", "--to", "door"], 3, "pets-m-"),
        (["serve", "pets-m-0"], 3, "pets-m-"),
        (["model", "export", "pets-m-0", "--to", "out"], 3, "pets-m-"),
        (["model", "export", "MODEL", "--to", "out", "--format", "onx"], 2, "'onnx'"),
        (["model", "quantize", "pets-m-0"], 3, "pets-m-"),
    ],
)
def test_what_does_not_exist(cli: Any, world: Any, line: list[str], code: int, said: str) -> None:
    ran = cli(*(world.model if word == "MODEL" else word for word in line), "--json")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("error: ") and said in ran.err


# --------------------------------------------------------------------------------------- export and quantize


def test_export_tells_what_it_wrote_and_how_it_was_compared(cli: Any, world: Any, tmp_path: Path) -> None:
    ran = cli("model", "export", world.model, "--format", "openvino", "--to", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    answer = ran.answer
    assert (answer["folder"], answer["model"], answer["format"]) == (
        str(tmp_path / "out"),
        world.model,
        "openvino",
    )
    assert set(answer["files"]) == {"load.py", "portable.py", "requirements.txt", "model.xml", "model.bin"}
    assert answer["parity"]["agreement"] == 1.0
    again = cli("model", "export", world.model, "--to", tmp_path / "out")
    assert (again.code, again.out) == (2, "") and "is not empty" in again.err
    cli("promote", world.model, "--to", "door", "--force")
    shown = cli("model", "export", "door", "--format", "pytorch", "--to", tmp_path / "more")
    assert shown.code == 0, shown.err
    assert "program.pt2" in shown.out and "the same answer for 100.0%" in squeezed_to_spaces(shown.out)


def squeezed_to_spaces(text: str) -> str:
    """On one line: what is long is folded."""
    return " ".join(text.split())


def test_show_tells_which_runtimes_were_compared(cli: Any, world: Any) -> None:
    from autovision.registry import runtimes
    from autovision.store import open_store

    assert "Runtimes" not in cli("model", "show", world.model).out
    runtimes.load(open_store(world.folder), world.model, threads=1, runtime="eager-f32")
    shown = cli("model", "show", world.model).out
    assert "Runtimes, compared with PyTorch" in shown
    assert "eager-f32," in squeezed(shown)
    assert "thesameanswerfor100.0%" in squeezed(shown)


def test_quantize_gives_a_verdict_that_show_repeats(cli: Any, world: Any) -> None:
    ran = cli("model", "quantize", world.model, "--json")
    verdict = ran.answer
    assert ran.code == (0 if verdict["accepted"] else 8), ran.err
    assert [check["name"] for check in verdict["checks"]] == [
        *("accuracy", "closeness to PyTorch", "faster", "smaller")
    ]
    assert verdict["accepted"] == all(check["passed"] for check in verdict["checks"])
    shown = squeezed(cli("model", "show", world.model).out)
    assert ("int8mayserve" if verdict["accepted"] else "int8maynotserve") in shown
    people = cli("model", "quantize", world.model)
    assert people.code in (0, 8)
    assert "accuracy changes by" in squeezed_to_spaces(people.out)


# ------------------------------------------------------------------------------------------------- predict


def test_predict_answers_every_file_that_can_be_read(cli: Any, world: Any, tmp_path: Path) -> None:
    text = tmp_path / "not really\x1b[31m.png"
    text.write_text("no image")
    files = [world.photos / "cat-0.png", tmp_path / "missing.png", text, tmp_path, world.photos / "dog-3.png"]
    ran = cli("predict", world.model, *files, "--json")
    assert ran.code == 1
    answers = ran.answer
    assert [answer["file"] for answer in answers] == [str(file) for file in files]
    assert [set(answer) for answer in answers] == [
        {"file", "label", "probabilities", "model"},
        *[{"file", "error"}] * 3,
        {"file", "label", "probabilities", "model"},
    ]
    for answer, label in ((answers[0], "cat"), (answers[4], "dog")):
        assert (answer["label"], answer["model"]) == (label, world.model)
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert "No such file" in answers[1]["error"]
    shown = cli("predict", world.model, *files).out
    assert "\x1b" not in shown and "error" in shown


def test_predict_exits_with_0_if_all_is_well(cli: Any, world: Any) -> None:
    files = sorted(world.photos.glob("*.png"))
    ran = cli("predict", world.model, *files, "--json")
    assert len(files) > 64, "more than one batch"
    assert ran.code == 0
    right = [answer["label"] == Path(answer["file"]).name.split("-")[0] for answer in ran.answer]
    assert sum(right) / len(right) > 0.9
