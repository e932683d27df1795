"""`autovision policy`, and what `controller why` and `controller trigger` say of the next search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from autovision.api import AutoVision
from autovision.registry import deployments

Cli = Callable[..., Any]


@pytest.fixture
def av(tmp_path: Path) -> AutoVision:
    av = AutoVision(tmp_path / "store")
    deployments.create(av.store, "pets", "pets", {})
    return av


def test_what_is_shown_is_applied_again(cli: Cli, av: AutoVision, tmp_path: Path) -> None:
    shown = cli("policy", "show", "pets")
    assert shown.code == 0
    file = tmp_path / "pets.yaml"
    file.write_text(shown.out)
    assert yaml.safe_load(shown.out) == cli("policy", "show", "pets", "--json").answer
    same = cli("policy", "diff", file)
    assert (same.code, same.out) == (0, "nothing differs\n")
    file.write_text(shown.out.replace("min_labels: 25", "min_labels: 7"))
    differs = cli("policy", "diff", file, "--json")
    change = {"deployment": "pets", "key": "retraining.min_labels", "before": 25, "after": 7}
    assert (differs.code, differs.answer) == (1, [change])
    assert deployments.get(av.store, "pets").policy.min_labels == 25
    applied = cli("policy", "apply", file)
    assert applied.code == 0
    assert applied.out.split()[-4:] == ["pets", "retraining.min_labels", "25", "7"]
    assert cli("policy", "apply", file).out == "nothing changed\n"
    assert deployments.get(av.store, "pets").policy.min_labels == 7


def test_a_file_that_is_wrong_changes_nothing_and_is_told_line_by_line(
    cli: Cli, av: AutoVision, tmp_path: Path
) -> None:
    file = tmp_path / "pets.yaml"
    file.write_text(
        "deployments: {pets: {retraining: {window: 60, windows_per_false_alarms: 1}, captur: {}}}"
    )
    for command in ("apply", "diff"):
        ran = cli("policy", command, file)
        assert (ran.code, ran.out) == (2, "")
        assert (
            f"error: {file}: deployments.pets.retraining.windows_per_false_alarms: there is no such "
            "key; did you mean 'windows_per_false_alarm'" in ran.err
        )
        assert f"{file}: deployments.pets.captur: there is no such section; did you mean 'capture'" in ran.err
    assert deployments.get(av.store, "pets").revision == 0
    file.write_text("deployments: {pts: {}}")
    unknown = cli("policy", "diff", file)
    assert unknown.code == 3 and "did you mean 'pets'" in unknown.err
    assert cli("policy", "apply", tmp_path / "gone.yaml").code == 2
    assert cli("policy", "show", "pts").code == 3


def test_a_person_asks_once(cli: Cli, world: Any) -> None:
    assert cli("promote", world.model, "--to", "pets").code == 0
    first = cli("controller", "trigger", "pets", "--reason", "new lamps")
    assert first.code == 0 and first.out.startswith(
        "a re-search for pets will be asked for by the controller: "
    )
    assert first.out.endswith("new lamps\n")
    again = cli("controller", "trigger", "pets", "--reason", "other", "--json").answer
    assert (again["new"], again["ask"]["reason"]) == (False, "new lamps")
    why = cli("controller", "why", "pets").out
    assert "no controller has looked yet whether to search again" in why and "new lamps" in why


def test_there_is_nothing_to_start_from_without_a_model(cli: Cli, av: AutoVision) -> None:
    refused = cli("controller", "trigger", "pets")
    assert refused.code == 2 and "'pets' has no model yet" in refused.err
    assert cli("controller", "trigger", "pts").code == 3


def test_why_of_a_deployment_to_which_nothing_happened(cli: Cli, av: AutoVision) -> None:
    why = cli("controller", "why", "pets")
    assert why.code == 0
    assert "Nothing has been decided about pets yet." in why.out
    assert "there is no model yet that a re-search could start from" in why.out


def test_why_tells_what_would_have_to_happen(cli: Cli, world: Any, tmp_path: Path) -> None:
    assert cli("promote", world.model, "--to", "pets").code == 0
    file = tmp_path / "pets.yaml"
    file.write_text(
        "deployments: {pets: {retraining: {schedule: 0 3 1 1 *, time_zone: Asia/Tokyo, quiet_hours: ['00:00-24:00']}}}"
    )
    assert cli("policy", "apply", file).code == 0
    av = AutoVision(tmp_path / "store")
    assert list(av.controller().step_without_search()) == []
    why = cli("controller", "why", "pets")
    assert "next search, with times of Asia/Tokyo" in why.out
    assert "more new labels" in " ".join(why.out.split())
    assert "-01-01 03:00:00" in " ".join(why.out.split())
    assert "quiet_hours" in why.out
    state = cli("controller", "why", "pets", "--json").answer["retraining"]
    triggers = {each["trigger"]: each for each in state["latest"]["numbers"]["triggers"]}
    assert set(triggers) == {"drift", "volume", "schedule"}
    assert triggers["schedule"]["at"].endswith("-12-31T18:00:00+00:00")
    assert state["evaluations"] == 1


def test_a_subgroup_that_no_image_has_is_remarked_on(cli: Cli, world: Any, tmp_path: Path) -> None:
    assert cli("promote", world.model, "--to", "pets").code == 0
    file = tmp_path / "pets.yaml"
    file.write_text("deployments: {pets: {retraining: {subgroup: furr}}}")
    for command, code in (("diff", 1), ("apply", 0)):
        ran = cli("policy", command, file)
        assert ran.code == code and "no image of pets@1 has metadata 'furr'; did you mean 'fur'?" in ran.err
    file.write_text("deployments: {pets: {retraining: {subgroup: fur}}}")
    assert cli("policy", "apply", file).err == ""


def test_a_text_where_a_list_belongs_is_told_so(cli: Cli, av: AutoVision, tmp_path: Path) -> None:
    file = tmp_path / "pets.yaml"
    file.write_text(
        "deployments: {pets: {retraining: {quiet_hours: '22:00-06:00', adapt: 'no', window: 50.5}}}"
    )
    said = cli("policy", "apply", file).err
    assert "quiet_hours: it takes a list; write [A, B], or [A] for one alone (got '22:00-06:00')" in said
    assert "adapt: give true or false (got 'no')" in said and "Input" not in said
