"""Policies as files: what is applied is what was written, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autovision.errors import InvalidInput, NotFound
from autovision.monitoring.detectors import rates
from autovision.records.deployments import CapturePolicy, Deployment, RetrainingPolicy
from autovision.records.gates import GatePolicy
from autovision.records.rollouts import RolloutPolicy
from autovision.records.triggers import DETECTORS
from autovision.registry import deployments, policies, policy_files
from autovision.registry.policies import SECTIONS, Change
from autovision.store import MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    for name in ("cats", "pets"):
        deployments.create(store, name, name, {})
    return store


def parsed(tmp_path: Path, text: str, name: str = "p.yaml") -> list[policies.Wanted]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return policies.parse(policy_files.read(path), name)


def faults(tmp_path: Path, text: str, name: str = "p.yaml") -> str:
    with pytest.raises(InvalidInput) as refused:
        parsed(tmp_path, text, name)
    return str(refused.value)


GOOD = """
deployments:
  pets:
    retraining: {window: 60, schedule: 0 3 * * 1, time_zone: Europe/Berlin, quiet_hours: ["22:00-06:00"]}
    gates: {margin: 0.02}
    rollout: {approval: both, canary: [0.1, 0.5]}
    capture: {keep_days: 90}
  cats:
    retraining: {volume_labels: none}
"""


def test_a_file_is_applied_and_tells_what_changed(store: MemoryStore, tmp_path: Path) -> None:
    wanted = parsed(tmp_path, GOOD)
    would = policies.compare(store, wanted, "p.yaml")
    assert deployments.get(store, "pets").revision == 0, "comparing changes nothing"
    changes = policies.apply(store, wanted, "p.yaml")
    assert changes == would
    assert {(each.deployment, each.key): (each.before, each.after) for each in changes} == {
        ("pets", "retraining.window"): (100, 60),
        ("pets", "retraining.schedule"): (None, "0 3 * * 1"),
        ("pets", "retraining.time_zone"): ("UTC", "Europe/Berlin"),
        ("pets", "retraining.quiet_hours"): ([], ["22:00-06:00"]),
        ("pets", "gates.margin"): (0.03, 0.02),
        ("pets", "rollout.approval"): ("automatic", "both"),
        ("pets", "rollout.canary"): ([], [0.1, 0.5]),
        ("pets", "capture.keep_days"): (None, 90.0),
        ("cats", "retraining.volume_share"): (0.05, None),
    }
    pets = deployments.get(store, "pets")
    assert (pets.revision, pets.gate_policy.margin, pets.policy.quiet_hours) == (1, 0.02, ("22:00-06:00",))
    before = {key: store.get(key) for key in store.list()}
    assert policies.apply(store, wanted, "p.yaml") == []
    assert {key: store.get(key) for key in store.list()} == before, "nothing is written where nothing changes"


def test_a_section_is_whole_and_those_left_out_stay(store: MemoryStore, tmp_path: Path) -> None:
    policies.apply(store, parsed(tmp_path, GOOD), "p")
    policies.apply(store, parsed(tmp_path, "deployments: {pets: {retraining: {min_labels: 7}}}"), "p")
    pets = deployments.get(store, "pets")
    assert pets.policy == RetrainingPolicy(min_labels=7)
    assert pets.capture_policy == CapturePolicy(keep_days=90)


def test_json_and_toml_say_the_same(tmp_path: Path) -> None:
    document = yaml.safe_load(GOOD)
    toml = """
    [deployments.pets]
    gates.margin = 0.02
    capture.keep_days = 90
    [deployments.pets.retraining]
    window = 60
    schedule = "0 3 * * 1"
    time_zone = "Europe/Berlin"
    quiet_hours = ["22:00-06:00"]
    [deployments.pets.rollout]
    approval = "both"
    canary = [0.1, 0.5]
    [deployments.cats.retraining]
    volume_labels = "none"
    """
    wanted = parsed(tmp_path, GOOD)
    assert parsed(tmp_path, json.dumps(document), "p.json") == wanted
    assert parsed(tmp_path, toml, "p.toml") == wanted


# ---------------------------------------------------------------------------------------------- round trip

texts = st.text(min_size=1, max_size=20)
limits = st.none() | st.floats(1e-6, 1e9)
retraining = st.builds(
    RetrainingPolicy,
    window=st.integers(20, 10**6),
    windows_per_false_alarm=st.floats(10, 100_000),
    min_labels=st.integers(1, 10**6),
    volume_labels=st.none() | st.integers(1, 10**6),
    cooldown_s=st.floats(0, 1e9),
    budget_s=st.floats(1e-3, 1e6),
    subgroup=st.none() | texts,
    schedule=st.sampled_from([None, "0 3 * * 1", "*/5 * * * *"]),
    time_zone=st.sampled_from(["UTC", "Europe/Berlin"]),
    quiet_hours=st.lists(st.sampled_from(["22:00-06:00", "sat-sun 00:00-24:00"]), max_size=2).map(tuple),
    drift_detectors=st.none() | st.lists(st.sampled_from(DETECTORS), max_size=3).map(tuple),
    accuracy_floor=st.none() | st.floats(0.01, 0.99),
)
capture = st.builds(
    CapturePolicy, share=st.floats(0, 1), pixels=st.booleans(), keep_days=limits, keep_image_gb=limits
)
gates = st.builds(
    GatePolicy, margin=st.floats(1e-6, 1), max_latency_ms=limits, robustness_margin=st.none() | st.just(0.1)
)
rollouts = st.builds(
    RolloutPolicy,
    approval=st.sampled_from(["automatic", "manual", "both"]),
    canary=st.sampled_from([(), (0.1,), (0.05, 0.25, 0.5)]),
    step_s=st.floats(0, 1e6),
)


@given(retraining, gates, rollouts, capture, st.sampled_from(["yaml", "json"]))
def test_what_is_shown_can_be_applied(
    retraining: RetrainingPolicy,
    gates: GatePolicy,
    rollout: RolloutPolicy,
    capture: CapturePolicy,
    suffix: str,
) -> None:
    store = MemoryStore()
    deployments.create(store, "pets", "pets", {}, retraining)
    deployments.decide(
        store,
        "pets",
        lambda d: d.with_(gate_policy=gates, rollout_policy=rollout, capture_policy=capture),
        None,
    )
    document = policies.render(deployments.get(store, "pets"))
    text = yaml.safe_dump(document, sort_keys=False) if suffix == "yaml" else json.dumps(document)
    parse = policy_files._PARSERS[f".{suffix}"]
    wanted = policies.parse(parse(text), "p")
    (only,) = wanted
    assert dict(only.policies) == {
        "retraining": retraining,
        "gates": gates,
        "rollout": rollout,
        "capture": capture,
    }
    assert policies.compare(store, wanted, "p") == []


def test_every_policy_of_a_deployment_is_in_the_document() -> None:
    named = {name for name in Deployment.model_fields if name == "policy" or name.endswith("_policy")}
    assert {section.field for section in SECTIONS.values()} == named


# ------------------------------------------------------------------------------------------------- faults


def test_every_fault_is_named_with_its_place_value_and_remedy(store: MemoryStore, tmp_path: Path) -> None:
    said = faults(
        tmp_path,
        """
deploymets: {}
deployments:
  pets:
    retraning: {}
    retraining: {min_label: 100, window: "100", windows_per_false_alarm: .nan}
    capture: {keep_days: 2020-01-01}
    rollout: {canary: [0.5, 0.1]}
    gates: [1]
  cats:
    retraining: {window: "100", windows_per_false_alarm: 2, time_zone: Europe/Berln, budget_s: 10, budget_day_s: 5}
    rollout: {approval: bot}
""",
    ).splitlines()
    assert said == [
        "p.yaml: deploymets: there is no such key; did you mean 'deployments'?; the only one here is 'deployments'",
        "p.yaml: deployments.pets.retraning: there is no such section; did you mean 'retraining'?; known are "
        "retraining, gates, rollout, capture",
        "p.yaml: deployments.pets.retraining.min_label: there is no such key; did you mean 'min_labels' or "
        "'volume_labels' or 'min_labels_per_class' or 'schedule_labels'?",
        "p.yaml: deployments.pets.retraining.windows_per_false_alarm: nan is not finite; give a number, or "
        "none for no limit",
        "p.yaml: deployments.pets.capture.keep_days: datetime.date(2020, 1, 1) is a date; give a text in quotes, a "
        "number, true, false or a list",
        "p.yaml: deployments.pets.rollout: the shares of a canary rise, so that no caller goes back and forth, not "
        "(0.5, 0.1)",
        "p.yaml: deployments.pets.gates: [1] stands there; it takes a mapping of keys to values",
        "p.yaml: deployments.cats.retraining.time_zone: no time zone 'Europe/Berln'; did you mean 'Europe/Berlin' or "
        "'Europe/Belfast' or 'Europe/Helsinki' or 'Europe/Guernsey'?; give a name of the IANA database, such as "
        "'Europe/Berlin' or 'UTC' (got 'Europe/Berln')",
        "p.yaml: deployments.cats.retraining.window: give a whole number, without quotes (got '100')",
        "p.yaml: deployments.cats.retraining.windows_per_false_alarm: Input should be greater than or "
        "equal to 10 (got 2)",
        "p.yaml: deployments.cats.rollout.approval: Input should be 'automatic', 'manual' or 'both' (got 'bot')",
    ]


@pytest.mark.parametrize(
    ("text", "name", "why"),
    [
        ("deployments:\n  pets:\n    retraining: {window: 5, window: 6}", "p.yaml", "line 3: 'window' is there twice"),
        ('{"deployments": {}, "deployments": {}}', "p.json", "'deployments' is there twice"),
        ("deployments = 1\ndeployments = 2", "p.toml", "p.toml: Cannot overwrite"),
        ("deployments:\n  pets: {retraining: {schedule: *x}}", "p.yaml", r"line 2: '\*' begins an alias"),
        ("a: &a [1]\nb: *a", "p.yaml", "begins an alias"),
        ("deployments:\n\tpets: {}", "p.yaml", "line 2, column 1: no YAML: .*; indent with spaces"),
        ("deployments: [", "p.yaml", "p.yaml: line 1, column 15: no YAML"),
        ("deployments: !!python/object:os.system {}", "p.yaml", "no YAML: could not determine a constructor"),
        ('{"deployments": ', "p.json", "p.json: Expecting value"),
        ("[" * 100_000, "p.json", "p.json: "),
        ("[" * 100_000, "p.yaml", "p.yaml: "),
        ("- 1", "p.yaml", "holds no mapping; begin it with 'deployments:'"),
        ("", "p.yaml", "holds no mapping"),
        ("1: {}", "p.yaml", "line 1: the key 1 is no text"),
        ("deployments: 5", "p.yaml", "deployments: 5 stands there; it takes a mapping"),
        ("{}", "p.yaml", "deployments: nothing stands there"),
        ("deployments: {pets: {retraining: {window: true}}}", "p.yaml", "retraining.window: .*got True"),
        ("deployments: {pets: {retraining: {budget_s: 10, budget_day_s: 5}}}", "p.yaml", "budget_day_s is 5 s"),
        ("deployments: {}", "p.txt", "'.txt' is none of them; name it p.yaml"),
        ("deployments: {}", "p", "'no suffix' is none of them; name it p.yaml"),
        ("#" + "x" * 1_000_000, "p.yaml", "has 1,000,001 bytes, and a policy file at most"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, name: str, why: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InvalidInput, match=why):
        policies.parse(policy_files.read(path), name)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.yaml", tmp_path / "folder.yaml"):
        (tmp_path / "folder.yaml").mkdir(exist_ok=True)
        with pytest.raises(InvalidInput, match=rf"{path}: .*name a file that can be read"):
            policy_files.read(path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4")
    with pytest.raises(InvalidInput, match="is not UTF-8"):
        policy_files.read(tmp_path / "latin.yaml")


def test_nothing_is_applied_if_anything_is_wrong(store: MemoryStore, tmp_path: Path) -> None:
    before = {key: store.get(key) for key in store.list()}
    good = "cats: {retraining: {window: 60}}"
    wanted = parsed(tmp_path, f"deployments: {{{good}, dogs: {{}}}}")
    with pytest.raises(NotFound, match=r"p: deployments.dogs: no deployment 'dogs'"):
        policies.apply(store, wanted, "p")
    wanted = parsed(tmp_path, f"deployments: {{{good}, pets: {{capture: {{keep_requests: 50}}}}}}")
    with pytest.raises(
        InvalidInput, match=r"p: deployments.pets: 50 requests are to be kept.*windows of 100"
    ):
        policies.apply(store, wanted, "p")
    assert {key: store.get(key) for key in store.list()} == before


def test_a_detector_that_does_not_exist_is_refused(store: MemoryStore, tmp_path: Path) -> None:
    """Its alarms would count for ever, and none would ever come."""
    wanted = parsed(tmp_path, "deployments: {pets: {retraining: {drift_detectors: [inputs]}}}")
    with pytest.raises(
        InvalidInput, match=r"p: deployments.pets: .*no detector 'inputs'; did you mean 'input'"
    ):
        policies.apply(store, wanted, "p")
    with pytest.raises(InvalidInput, match="no detector 'inputs'"):
        deployments.create(store, "cows", "cows", {}, RetrainingPolicy(drift_detectors=("inputs",)))
    assert set(DETECTORS) == set(rates.SHARES)


def test_window_and_capture_are_judged_together(store: MemoryStore, tmp_path: Path) -> None:
    both = "deployments: {pets: {retraining: {window: 40}, capture: {keep_requests: 50}}}"
    assert len(policies.apply(store, parsed(tmp_path, both), "p")) == 2
    with pytest.raises(InvalidInput, match="windows of 100"):
        policies.apply(store, parsed(tmp_path, "deployments: {pets: {retraining: {}}}"), "p")


def test_what_changes_meanwhile_stays(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer comes between the look and the write."""
    put_if = store.put_if
    raced = []

    def race(key: str, data: bytes, etag: str) -> str:
        if not raced:
            raced.append(key)
            deployments.set_gate_policy(store, "pets", GatePolicy(margin=0.01))
        return put_if(key, data, etag)

    monkeypatch.setattr(store, "put_if", race)
    changes = policies.apply(store, parsed(tmp_path, "deployments: {pets: {capture: {share: 0.5}}}"), "p")
    pets = deployments.get(store, "pets")
    assert (pets.gate_policy.margin, pets.capture_policy.share, pets.revision) == (0.01, 0.5, 2)
    assert changes == [Change("pets", "capture.share", 1.0, 0.5)]


def as_old(policy: RetrainingPolicy) -> dict[str, Any]:
    """As versions wrote it that knew of drift and volume alone."""
    names = (
        "window",
        "windows_per_false_alarm",
        "min_labels",
        "volume_labels",
        "cooldown_s",
        "budget_s",
        "max_trials",
        "subgroup",
    )
    return {name: value for name, value in policy.model_dump(mode="json").items() if name in names}


def test_a_policy_of_an_older_store_is_read() -> None:
    for number in (1000, None):
        policy = RetrainingPolicy(window=50, cooldown_s=60, volume_labels=number)
        read = RetrainingPolicy.model_validate_json(json.dumps(as_old(policy)))
        assert read == policy and read.volume_share is None, "a share is what it did not ask for"


def test_a_section_at_the_top_is_told_where_it_belongs(tmp_path: Path) -> None:
    assert faults(tmp_path, "retraining: {window: 60}") == (
        "p.yaml: retraining: there is no such key; the only one here is 'deployments'; it belongs below deployments, "
        "and there below a deployment's name"
    )
