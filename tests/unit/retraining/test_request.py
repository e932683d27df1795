"""Retraining as an act."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from autovision.dataset import catalog, manifest
from autovision.records.deployments import Deployment, DriftReport, Label, RetrainingPolicy
from autovision.records.searches import SearchStatus
from autovision.registry import deployments
from autovision.retraining import request as retraining
from autovision.search import requests
from autovision.space import Space
from autovision.space.continual import for_successor
from autovision.store import MemoryStore, captures, keys, labels, records
from autovision.trial.splits import load_splits

if TYPE_CHECKING:
    from tests.unit.conftest import History, Scenes

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def deployed(tiny: History) -> tuple[MemoryStore, Deployment]:
    """The first model serves; the second search never happened."""
    store = tiny.copy()
    for key in [*store.list("searches/"), *store.list("datasets/")]:
        if tiny.searches[1].id in key or key == keys.dataset_version("colours", 2):
            store.delete(key)
    policy = RetrainingPolicy(window=40, min_labels=20, budget_s=77.0, max_trials=3)
    deployments.create(store, "door", "colours", tiny.space.to_json(), policy)
    return store, deployments.set_champion(store, "door", tiny.models[0].id, expected=None)


@pytest.fixture
def labelled(
    deployed: tuple[MemoryStore, Deployment],
    serve_images: Callable[..., list[tuple[str, str]]],
    tmp_path: Path,
) -> tuple[MemoryStore, Deployment]:
    """Thirty captured images, all of them labelled."""
    store, deployment = deployed
    assert deployment.model is not None
    for request_id, label in serve_images(store, deployment.model, tmp_path, 30, seed=3, shifted=True):
        labels.add(store, "door", Label(request_id=request_id, label=label, received_at=NOW))
    return store, deployment


def report(store: MemoryStore, deployment: Deployment, *, at: datetime = NOW, **changes: Any) -> DriftReport:
    fields = {
        "id": keys.timestamped_id(at),
        "deployment": deployment.name,
        "model": deployment.model,
        "n": 40,
        "reference_n": 100,
        "first_request": "a",
        "last_request": "b",
        "window_start": at,
        "window_end": at,
        "score": 0.5,
        "threshold": 0.02,
        "p_value": 0.0001,
        "alpha": 0.001,
        "alarm": True,
        "created_at": at,
    }
    made = DriftReport.model_validate(fields | changes)
    records.create(store, keys.report(deployment.name, made.id), made)
    return made


def observe(store: MemoryStore, deployment: Deployment) -> retraining.Situation:
    return retraining.observe(store, deployment, lambda: NOW)


def test_a_quiet_deployment_has_nothing_to_say(deployed: tuple[MemoryStore, Deployment]) -> None:
    found = observe(*deployed)
    assert (found.snapshot.labels, found.snapshot.report, found.snapshot.running_search) == (0, None, None)
    assert found.snapshot.now == NOW
    assert found.version.id == "colours@1"
    assert found.snapshot.last_search_at is None, "the first search is no re-search"


def test_labels_of_new_images_are_counted_by_class(labelled: tuple[MemoryStore, Deployment]) -> None:
    found = observe(*labelled)
    assert found.snapshot.labels == 30
    assert found.snapshot.labels_per_class == {"red": 15, "blue": 15}


def test_the_report_is_the_latest_about_the_model_that_is_served(
    deployed: tuple[MemoryStore, Deployment],
) -> None:
    store, deployment = deployed
    report(store, deployment, at=NOW - timedelta(days=2))
    latest = report(store, deployment, at=NOW - timedelta(days=1), alarm=False)
    report(store, deployment, model="another")
    assert retraining.latest_report(store, deployment) == latest
    assert retraining.latest_report(store, deployment.with_(model="nobody")) is None


def test_an_alarm_is_answered_by_any_search_that_was_asked_for_because_of_it(
    labelled: tuple[MemoryStore, Deployment],
) -> None:
    store, deployment = labelled
    report(store, deployment)
    before = observe(store, deployment)
    assert not before.snapshot.answered
    request = retraining.build(store, deployment, before, reason="drift", seed=0)
    state = requests.submit(store, request)
    queued = observe(store, deployment).snapshot
    assert (queued.answered, queued.running_search, queued.labels) == (True, request.id, 0)
    assert queued.last_search_at == state.created_at
    requests.set_state(store, request.id, status=SearchStatus.FAILED)
    failed = observe(store, deployment).snapshot
    assert (failed.answered, failed.running_search, failed.labels) == (False, None, 30), (
        "it may be tried again"
    )
    assert (failed.failures, failed.failed_at is not None) == (1, True)
    assert failed.last_search_at is None, "a pause of its own follows a failure, not the cooldown"


def test_a_search_of_another_deployment_does_not_count(
    labelled: tuple[MemoryStore, Deployment],
) -> None:
    store, deployment = labelled
    report(store, deployment)
    request = retraining.build(store, deployment, observe(store, deployment), reason="drift", seed=0)
    requests.submit(store, request.with_(deployment="gate"))
    found = observe(store, deployment).snapshot
    assert (found.answered, found.running_search) == (False, None)


def test_the_next_version_holds_old_and_new_and_every_old_image_keeps_its_split(
    labelled: tuple[MemoryStore, Deployment],
) -> None:
    store, deployment = labelled
    found = observe(store, deployment)
    old = {row.image: row for row in manifest.read(store, found.version)}
    retraining.build(store, deployment, found, reason="because", seed=0)
    version = catalog.latest(store, "colours")
    assert (version.version, version.parent, version.n) == (2, 1, found.version.n + 30)
    new = {row.image: row for row in manifest.read(store, version)}
    assert all(new[image] == row for image, row in old.items())
    added = [row for image, row in new.items() if image not in old]
    assert {row.metadata["line"] for row in added} == {"new"}
    assert {str(row.split) for row in added} == {"train", "validation", "test"}
    assert all(row.source.startswith("capture r-3-") for row in added)


def test_the_request_says_what_is_wanted_and_why(labelled: tuple[MemoryStore, Deployment]) -> None:
    store, deployment = labelled
    alarm = report(store, deployment)
    request = retraining.build(store, deployment, observe(store, deployment), reason="because", seed=5)
    version = catalog.latest(store, "colours")
    assert (request.dataset, request.dataset_version, request.dataset_digest) == (
        "colours",
        version.version,
        version.digest,
    )
    assert (request.budget_s, request.max_trials, request.seed) == (77.0, 3, 5)
    assert (request.parent_model, request.deployment) == (deployment.model, "door")
    assert (request.reason, request.nonce, request.warm_start) == ("because", alarm.id, True)
    train = load_splits(store, f"colours@{request.dataset_version}", deployment.model).train
    assert train.new is not None
    new = int(train.new.sum())
    assert 0 < new < len(train)
    assert request.space == for_successor(deployment.space, len(train) - new, new)
    added = Space.from_json(request.space).parameters.keys() - Space.from_json(deployment.space).parameters
    assert added == {"new_weight", "distill"}
    assert (request.margin, request.subgroup) == (deployment.gate_policy.margin, deployment.policy.subgroup)
    gates = deployment.gate_policy
    asked = request.robustness_margin, request.robustness_images
    assert asked == (gates.robustness_margin, gates.robustness_images)
    assert gates.robustness_margin is not None


def test_a_re_search_is_held_to_what_the_search_that_made_the_champion_was_and_works_as_it_did(
    deployed: tuple[MemoryStore, Deployment], tiny: History
) -> None:
    store, deployment = deployed
    situation = observe(store, deployment)
    plain = retraining.build(store, deployment, situation, reason="because", seed=0)
    assert (plain.licenses, plain.workers_per_trial, plain.runtime) == ((), 1, "evaluated")
    asked: dict[str, object] = {
        "licenses": ("mit",),
        "workers_per_trial": 4,
        "max_size_mb": 9.0,
        "runtime": "eager-f32",
        "objectives": ("latency",),
        "max_cost": 3.0,
        "patience_s": 40.0,
        "converged": True,
        "sampler": "random",
        "scheduler": "asha",
        "soup": False,
        "confirm": False,
        "priority": 2,
    }
    key = keys.search_request(tiny.searches[0].id)
    store.delete(key)
    records.create(store, key, tiny.searches[0].with_(**asked))
    again = retraining.build(store, deployment, situation, reason="because", seed=0)
    assert {name: getattr(again, name) for name in asked} == asked
    assert (again.max_latency_ms, again.max_memory_mb, again.refit) == (None, None, True)
    # Of this search alone, and no rule for those that follow.
    assert (again.budget_s, again.max_trials) == (plain.budget_s, plain.max_trials)


def test_doing_it_again_gives_the_same_version_and_the_same_request(
    labelled: tuple[MemoryStore, Deployment],
) -> None:
    store, deployment = labelled
    found = observe(store, deployment)
    first = retraining.build(store, deployment, found, reason="because", seed=0)
    before = list(store.list())
    again = retraining.build(store, deployment, found, reason="because", seed=0)
    assert again == first
    assert list(store.list()) == before


def test_a_controller_that_was_killed_between_version_and_request_asks_again(
    labelled: tuple[MemoryStore, Deployment],
) -> None:
    """Its labels are in a version that no search has seen: they still count."""
    store, deployment = labelled
    report(store, deployment)
    found = observe(store, deployment)
    request = retraining.build(store, deployment, found, reason="because", seed=0)
    later = observe(store, deployment)
    assert later.version.id == "colours@2"
    assert later.snapshot.labels == found.snapshot.labels == 30
    assert retraining.build(store, deployment, later, reason="because", seed=0).id == request.id
    assert catalog.version_numbers(store, "colours") == [1, 2]


def test_labels_that_come_later_are_the_only_new_ones(
    labelled: tuple[MemoryStore, Deployment],
    serve_images: Callable[..., list[tuple[str, str]]],
    tmp_path: Path,
) -> None:
    store, deployment = labelled
    found = observe(store, deployment)
    requests.submit(store, retraining.build(store, deployment, found, reason="because", seed=0))
    assert deployment.model is not None
    for request_id, label in serve_images(
        store, deployment.model, tmp_path / "later", 4, seed=4, shifted=True
    ):
        labels.add(store, "door", Label(request_id=request_id, label=label, received_at=NOW))
    later = observe(store, deployment)
    assert later.snapshot.labels == 4
    retraining.build(store, deployment, later, reason="again", seed=0)
    assert catalog.latest(store, "colours").n == found.version.n + 34


def test_a_label_that_annotators_agree_on_otherwise_later_is_corrected_in_the_next_version(
    labelled: tuple[MemoryStore, Deployment],
    serve_images: Callable[..., list[tuple[str, str]]],
    tmp_path: Path,
) -> None:
    store, deployment = labelled
    other = {"red": "blue", "blue": "red"}
    requests.submit(store, retraining.build(store, deployment, observe(store, deployment), reason="", seed=0))
    before = {row.image: row for row in manifest.read(store, catalog.latest(store, "colours"))}
    wrong, reviewed = [each.image for each in captures.read(store, "door").captures[:2]]
    for each in captures.read(store, "door").captures[:2]:
        for annotator in ("ann", "bob", "eve"):
            said = other[str(before[each.image].label)]
            word = Label(request_id=each.request_id, label=said, annotator=annotator, received_at=NOW)
            labels.add(store, "door", word)
    kept = Label(request_id=reviewed, label=str(before[reviewed].label), review=True, received_at=NOW)
    labels.correct(store, "colours", kept)
    later = observe(store, deployment)
    assert later.snapshot.labels == 0, "no new image"
    assert deployment.model is not None
    for request_id, label in serve_images(store, deployment.model, tmp_path / "5", 4, seed=5, shifted=True):
        labels.add(store, "door", Label(request_id=request_id, label=label, received_at=NOW))
    request = retraining.build(store, deployment, observe(store, deployment), reason="", seed=0)
    version = catalog.get(store, f"colours@{request.dataset_version}")
    after = {row.image: row for row in manifest.read(store, version)}
    assert after[wrong].label == other[str(before[wrong].label)]
    assert {image for image, row in before.items() if after[image].label != row.label} == {wrong}
    assert {image: row.split for image, row in before.items()} == {
        image: after[image].split for image in before
    }
    (told,) = version.corrections
    assert (told.image, told.by) == (wrong, "ann, bob, eve")
    again = retraining.build(store, deployment, observe(store, deployment), reason="", seed=0)
    assert (again.id, catalog.latest(store, "colours").id) == (request.id, version.id)


def test_labels_of_several_classes_make_the_next_version_too(
    scenes: Scenes, tiny_space: Space, answer_images: Callable[..., list[str]]
) -> None:
    store = scenes.copy()
    deployments.create(store, "door", "scenes", tiny_space.to_json(), RetrainingPolicy(volume_labels=10))
    deployment = deployments.set_champion(store, "door", scenes.model.id, expected=None)
    files = [path.read_bytes() for path, _ in scenes.new]
    asked = answer_images(store, scenes.model.id, files)
    for request_id, (_, marks) in zip(asked, scenes.new, strict=True):
        labels.add(store, "door", Label(request_id=request_id, label=marks, received_at=NOW))
    found = observe(store, deployment)
    assert (found.snapshot.labels, found.snapshot.images) == (40, 160)
    assert found.snapshot.labels_per_class == {"blue": 20, "red": 20, "striped": 20}
    request = retraining.build(store, deployment, found, reason="volume", seed=0)
    version = catalog.get(store, f"scenes@{request.dataset_version}")
    assert (version.multi_label, version.n, version.parent) == (True, 200, 1)
    rows = {row.source: row.labels for row in manifest.read(store, version)}
    assert [rows[f"capture {request_id}"] for request_id in asked] == [marks for _, marks in scenes.new]


def test_near_duplicates_follow_into_their_split_and_consensus_is_confidence(
    deployed: tuple[MemoryStore, Deployment], answer_images: Callable[..., list[str]]
) -> None:
    store, deployment = deployed
    version = catalog.latest(store, "colours")
    old = [row for row in manifest.read(store, version) if row.split == "test"][:4]
    files = []
    for row in old:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(store.get(keys.image(row.image)).data)).save(buffer, "BMP")
        files.append(buffer.getvalue())
    assert deployment.model is not None
    asked = answer_images(store, deployment.model, files)
    for request_id, row in zip(asked, old, strict=True):
        for annotator in ("ann", "bob", "eve"):
            wrong = annotator == "eve" and request_id == asked[0]
            label = {"red": "blue", "blue": "red"}[str(row.label)] if wrong else str(row.label)
            word = Label(request_id=request_id, label=label, annotator=annotator, received_at=NOW)
            labels.add(store, "door", word)
    found = observe(store, deployment)
    request = retraining.build(store, deployment, found, reason="because", seed=0)
    after = catalog.get(store, f"colours@{request.dataset_version}")
    rows = {row.source: row for row in manifest.read(store, after)}
    new = [rows[f"capture {request_id}"] for request_id in asked]
    assert [(row.label, row.split) for row in new] == [(row.label, "test") for row in old]
    assert new[0].confidence < 1 and [row.confidence for row in new[1:]] == [1.0] * 3
    assert after.problem_counts == {"near_duplicate": 4}


def test_captured_images_become_the_data_sets_and_those_that_are_gone_are_counted(
    labelled: tuple[MemoryStore, Deployment],
) -> None:
    store, deployment = labelled
    seen = captures.read(store, "door").captures
    for capture in seen[:3]:
        store.delete(captures.image_key(capture))
    situation = observe(store, deployment)
    assert situation.joined is not None
    assert (situation.snapshot.labels, situation.joined.without_image) == (27, 3)
    kept = [capture.image for capture in seen[3:]]
    assert not any(store.exists(keys.image(image)) for image in kept)
    request = retraining.build(store, deployment, situation, reason="", seed=0)
    version = catalog.get(store, f"colours@{request.dataset_version}")
    assert set(kept) <= {row.image for row in manifest.read(store, version)}
    assert all(store.exists(keys.image(image)) for image in kept)


def test_each_subgroup_has_its_share_of_every_split(
    deployed: tuple[MemoryStore, Deployment],
    answer_images: Callable[..., list[str]],
    paint_images: Callable[..., list[Path]],
    tmp_path: Path,
) -> None:
    """What grows the golden set: 4 of 16 new images of each class in each subgroup, and none of it is ever moved."""
    store, deployment = deployed
    deployment = deployment.with_(policy=deployment.policy.with_(subgroup="line"))
    assert deployment.model is not None
    for number, line in enumerate(("a", "b"), 20):
        paths = paint_images(tmp_path / line, 16, seed=number, shifted=True)
        files = [path.read_bytes() for path in paths]
        asked = answer_images(store, deployment.model, files, seed=number, line=line)
        for request_id, path in zip(asked, paths, strict=True):
            labels.add(store, "door", Label(request_id=request_id, label=path.parent.name, received_at=NOW))
    found = observe(store, deployment)
    request = retraining.build(store, deployment, found, reason="because", seed=0)
    before = {row.image for row in manifest.read(store, found.version) if row.split == "test"}
    rows = manifest.read(store, catalog.get(store, f"colours@{request.dataset_version}"))
    golden = [row for row in rows if row.split == "test"]
    new = [row for row in golden if row.image not in before]
    kinds = Counter((row.metadata["line"], row.label) for row in new)
    assert kinds == {(line, name): 4 for line in ("a", "b") for name in ("red", "blue")}
    assert before <= {row.image for row in golden}


def test_a_class_that_is_new_is_in_the_next_version(
    labelled: tuple[MemoryStore, Deployment],
    answer_images: Callable[..., list[str]],
    paint_images: Callable[..., list[Path]],
    tmp_path: Path,
) -> None:
    store, deployment = labelled
    assert deployment.model is not None
    files = [path.read_bytes() for path in paint_images(tmp_path / "green", 5, seed=31)]
    for request_id in answer_images(store, deployment.model, files, seed=31):
        labels.add(store, "door", Label(request_id=request_id, label="green", received_at=NOW))
    request = retraining.build(store, deployment, observe(store, deployment), reason="because", seed=0)
    version = catalog.get(store, f"colours@{request.dataset_version}")
    assert version.classes == ("blue", "green", "red")
    assert {split for split, counts in version.counts.items() if counts.get("green")} == {
        "train",
        "validation",
        "test",
    }
