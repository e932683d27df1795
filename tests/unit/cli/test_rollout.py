"""`autovision rollout`: what it shows, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from autovision.model.version import read_version
from autovision.promotion import rollout as acts
from autovision.records.rollouts import RolloutPolicy
from autovision.store import keys, open_store, records


@pytest.fixture
def door(cli: Any, world: Any) -> str:
    """A deployment that serves the model."""
    assert cli("promote", world.model, "--to", "door").code == 0
    return "door"


@pytest.fixture
def twin(world: Any) -> str:
    """A second model with the same weights."""
    store = open_store(world.folder)
    version = read_version(store, world.model)
    for name, digest in version.files.items():
        data = store.get(keys.model_file(version.id, name, digest)).data
        store.put_immutable(keys.model_file("other-m-1", name, digest), data)
    records.create(store, keys.model("other-m-1"), version.with_(id="other-m-1"))
    return "other-m-1"


def shown(ran: Any) -> str:
    return " ".join(ran.out.split())


def test_a_policy_is_set_option_by_option_and_shown_in_words(cli: Any, door: str) -> None:
    assert "none: a challenger that passes the gates" in " ".join(cli("rollout", "policy", door).out.split())
    ran = cli("rollout", "policy", door, "--shadow-requests", 200, "--canary", "0.05,0.5", "--json")
    assert (ran.answer["shadow_requests"], ran.answer["canary"]) == (200, [0.05, 0.5])
    ran = cli("rollout", "policy", door, "--approval", "both", "--step-s", 60)
    shown = " ".join(ran.out.split())
    assert "approval both" in shown
    assert "a shadow of 100% of the requests, for 200 requests" in shown
    assert "a canary that answers 5% of the requests, for 100 requests and 60 s" in shown
    assert cli("rollout", "policy", door, "--canary", "none", "--json").answer["canary"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--canary", "0.5,0.2"], "shares of a canary rise"),
        (["--canary", "half"], "'half' is not a list of shares"),
        (["--canary", "1.5"], "between 0 and 1"),
        (
            ["--approval", "nobody"],
            "--approval: Input should be 'automatic', 'manual' or 'both' (got 'nobody')",
        ),
        (["--false-alarm", "0"], "--false-alarm: Input should be greater than 0 (got 0.0)"),
        (["--latency-ratio", "1"], "--latency-ratio"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_and_nothing_changes(
    cli: Any, door: str, options: list[str], said: str
) -> None:
    before = cli("rollout", "policy", door, "--json").answer
    ran = cli("rollout", "policy", door, *options, "--json")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert cli("rollout", "policy", door, "--json").answer == before


def test_gates_are_set_option_by_option_and_limits_are_taken_away_again(cli: Any, door: str) -> None:
    said = shown(cli("rollout", "gates", door))
    assert "latency any" in said and "robustness 0.05 of accuracy, on 100 corrupted images" in said
    assert "measured on" not in said
    ran = cli("rollout", "gates", door, "--max-latency-ms", 25, "--runtime", "openvino-f32", "--margin", 0.02)
    assert "margin 0.02 latency 25 ms for one image" in shown(ran)
    assert "measured on openvino-f32" in shown(ran)
    ran = cli("rollout", "gates", door, "--robustness-margin", "none", "--max-latency-ms", "none", "--json")
    assert (ran.answer["robustness_margin"], ran.answer["max_latency_ms"]) == (None, None)
    assert ran.answer["margin"] == 0.02, "what is not given stays"
    for options, why in (
        (["--max-size-mb", "-1"], "--max-size-mb: Input should be greater than 0 (got '-1')"),
        (["--runtime", "openvino-f23"], "did you mean 'openvino-f32'"),
        (["--robustness-images", "5"], "--robustness-images: Input should be greater than or equal to 20"),
    ):
        refused = cli("rollout", "gates", door, *options, "--json")
        assert (refused.code, refused.out) == (2, "") and why in " ".join(refused.err.split())


def test_every_gate_is_shown_when_it_is_asked_for_and_by_why(cli: Any, door: str, twin: str) -> None:
    cli("rollout", "gates", door, "--max-size-mb", "0.000001")
    refused = cli("promote", twin, "--to", door)
    assert refused.code == 8
    said = shown(refused)
    assert "as_robust[blur] passed" in said and "within_size FAILED" in said and "max_size_mb 1e-06" in said
    why = shown(cli("controller", "why", door))
    assert "it fails 2 of" in why and "passed as_robust[blur]: accuracy with blur" in why
    assert "FAILED within_size: its weights are" in why and why.count("within_size") == 1
    gates = cli("controller", "why", door, "--json").answer["decisions"][-1]["numbers"]["gates"]
    assert {gate["name"] for gate in gates if not gate["passed"]} == {"better_somewhere", "within_size"}


def test_why_tells_which_challengers_later_labels_may_still_show_to_be_better(
    cli: Any, door: str, twin: str
) -> None:
    assert cli("controller", "why", door, "--json").answer["challengers"] == []
    assert cli("promote", twin, "--to", door).code == 8
    waiting = cli("controller", "why", door, "--json").answer["challengers"]
    assert [(each["model"], each["looks"], each["next_at_labelled"]) for each in waiting] == [(twin, 0, 30)]
    assert "lack nothing but evidence" in shown(cli("controller", "why", door))


def test_without_a_rollout_there_is_nothing_to_advance_or_to_approve(cli: Any, door: str, world: Any) -> None:
    assert "rollout none" in " ".join(cli("rollout", "show", door).out.split())
    for line, said in (
        (("advance", door), "no rollout under way"),
        (("approve", door, world.model), "does not wait for approval"),
        (("reject", door, world.model), "waiting: none"),
    ):
        ran = cli("rollout", *line, "--json")
        assert (ran.code, ran.out) == (2, "") and said in " ".join(ran.err.split())
    assert cli("rollout", "show", "nowhere").code == 3


def test_a_rollout_is_shown_with_its_evidence_and_may_be_taken_on_or_back(
    cli: Any, door: str, world: Any, twin: str
) -> None:
    cli("rollout", "policy", door, "--canary", "0.1,0.5", "--step-requests", 10, "--step-s", 5)
    began = cli("promote", twin, "--to", door, "--force", "--json")
    assert began.code == 0 and len(began.answer["numbers"]["steps"]) == 2
    shown = " ".join(cli("rollout", "show", door).out.split())
    assert "challenger other-m-1" in shown and "step 1 of 2" in shown and "0 of 10 requests" in shown
    answer = cli("rollout", "show", door, "--json").answer
    assert (answer["champion"], answer["rollout"]["model"]) == (world.model, twin)
    assert answer["evidence"]["challenger"]["answered"] == 0
    assert "50% of the requests" in cli("rollout", "advance", door, "--json").answer["what"]
    rolled_back = cli("rollback", door, "--json").answer
    assert rolled_back["what"] == f"roll back from {twin} to {world.model}"
    assert cli("rollout", "show", door, "--json").answer["rollout"] is None


def test_who_waits_is_listed_with_what_the_gates_said(cli: Any, door: str, world: Any, twin: str) -> None:
    cli("rollout", "policy", door, "--approval", "manual")
    acts.consider(open_store(world.folder), door, twin)
    shown = " ".join(cli("rollout", "show", door).out.split())
    assert "waits for approval" in shown and "other-m-1" in shown and "better_somewhere" in shown
    assert cli("rollout", "reject", door, twin, "--json").answer["accepted"] is False
    assert cli("rollout", "show", door, "--json").answer["waiting"] == []


def test_steps_in_words_are_those_of_the_policy() -> None:
    steps = RolloutPolicy(shadow_s=5, shadow_share=0.5, canary=(0.25,)).steps()
    assert [acts.told(step) for step in steps] == [
        "a shadow of 50% of the requests",
        "a canary that answers 25% of the requests",
    ]
