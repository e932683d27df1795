"""The whole loop once, with real Ray, HTTP and records: search, promote, serve, drift, labels, search, promote."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from autovision.api import AutoVision
from autovision.dataset import manifest
from autovision.records.deployments import Decision, DecisionKind, DriftReport, RetrainingPolicy
from autovision.serving.client import Client
from autovision.space import Space

DOOR = "door"


@dataclass
class Story:
    """What happened, for the tests to look at."""

    av: AutoVision
    first_model: str = ""
    second_model: str = ""
    calm: DriftReport | None = None
    alarm: DriftReport | None = None
    waited: list[Decision] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    settled_before: list[str] = field(default_factory=list)
    settled_after: list[str] = field(default_factory=list)


def turn(av: AutoVision) -> list[object]:
    return [event.record for event in av.controller().step_without_search()]


@pytest.fixture(scope="module")
def story(
    ray_here: None,
    folder: Path,
    tiny: Space,
    draw_image: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Story]:
    av = AutoVision(tmp_path_factory.mktemp("loop") / "store")
    story = Story(av)
    av.import_dataset(folder, "colours", seed=0)
    policy = RetrainingPolicy(
        window=40, alpha=0.001, min_labels=30, volume_labels=None, budget_s=90, max_trials=10
    )
    av.create_deployment(DOOR, "colours", tiny, policy)
    av.search("colours", space=tiny, budget_s=90, seed=0, max_trials=6, deployment=DOOR, wait=False)
    for event in av.controller().run(once=True):
        assert event.stage != "error", event.text
    story.first_model = av.model(DOOR).id

    fresh = tmp_path_factory.mktemp("production")
    with av.serve(DOOR, port=0, cpus=0) as server, Client(server.url) as client:

        def send(n: int, start: int, *, shifted: bool) -> list[tuple[str, str]]:
            """Send images that nobody has seen; (request id, true label) of each."""
            sent = []
            for i in range(start, start + n):
                path = fresh / f"{i}.png"
                draw_image(path, i % 2, 90_000 + i, shifted=shifted)
                answer = client.predict(path.read_bytes(), metadata={"line": "new" if shifted else "old"})
                sent.append((answer.request_id, ("red", "blue")[i % 2]))
            server.flush()
            return sent

        send(40, 0, shifted=False)
        (story.calm,) = (r for r in turn(av) if isinstance(r, DriftReport))
        sent = send(100, 1000, shifted=True)
        records = turn(av)
        (story.alarm,) = (r for r in records if isinstance(r, DriftReport))
        story.waited = [r for r in records if isinstance(r, Decision)]
        for request_id, label in sent[:80]:
            assert client.feedback(request_id, label, annotator="inspector").new == 1

        over = threading.Event()
        image = (fresh / "1000.png").read_bytes()

        def keep_asking() -> None:
            while not over.wait(0.05):
                try:
                    story.answers.append(client.predict(image).model)
                except Exception as error:  # noqa: BLE001 - whatever goes wrong is what the test is about
                    story.failures.append(repr(error))

        asking = threading.Thread(target=keep_asking)
        asking.start()
        try:
            for event in av.controller().run(once=True):
                assert event.stage != "error", event.text
            story.second_model = av.model(DOOR).id
            deadline = threading.Event()
            for _ in range(600):
                if story.answers and story.answers[-1] == story.second_model:
                    break
                deadline.wait(0.1)
        finally:
            over.set()
            asking.join()
        server.flush()
    list(av.controller().run(once=True))
    story.settled_before = [key for key in av.store.list() if not key.startswith("leases/")]
    list(av.controller().run(once=True))
    story.settled_after = [key for key in av.store.list() if not key.startswith("leases/")]
    yield story


def test_the_first_model_is_promoted_because_it_beats_the_majority(story: Story) -> None:
    first = next(d for d in story.av.decisions(DOOR) if d.kind is DecisionKind.PROMOTE)
    assert (first.accepted, first.subject) == (True, story.first_model)
    assert "beats_majority" in first.why
    assert story.av.model(story.first_model).metrics["test"].accuracy.value > 0.9


def test_the_monitor_is_silent_on_what_the_model_knows_and_sees_what_it_does_not(story: Story) -> None:
    assert story.calm is not None
    assert story.alarm is not None
    assert not story.calm.alarm
    assert story.alarm.alarm
    assert story.alarm.score > story.alarm.threshold > story.calm.score


def test_an_alarm_without_labels_waits_and_says_what_is_missing(story: Story) -> None:
    (waited,) = story.waited
    assert (waited.kind, waited.accepted) == (DecisionKind.RETRAIN, False)
    assert "30 more of 30 are missing" in waited.why


def test_late_labels_make_the_next_version_and_old_images_keep_their_splits(story: Story) -> None:
    first, second = story.av.dataset("colours@1"), story.av.dataset("colours@2")
    old = {row.image: row for row in manifest.read(story.av.store, first)}
    new = {row.image: row for row in manifest.read(story.av.store, second)}
    assert second.parent == 1
    assert second.n == first.n + 80
    assert all(new[image].split == row.split and new[image].label == row.label for image, row in old.items())
    added = [row for image, row in new.items() if image not in old]
    assert {row.metadata["line"] for row in added} == {"new"}
    assert {row.split for row in added} == {"train", "validation", "test"}


def test_the_re_search_starts_from_what_is_known(story: Story) -> None:
    requests = {request.id: request for request, _ in story.av.searches()}
    second = story.av.model(story.second_model)
    request = requests[second.lineage.search]
    assert request.parent_model == story.first_model
    assert second.lineage.parents == (story.first_model,)
    assert request.reason.startswith("search again, because of drift")
    assert second.lineage.dataset == "colours@2"
    origins = [trial.origin for trial in story.av.trials(request.id)]
    assert origins[0] == "champion"
    assert "sampled" in origins


def test_the_challenger_is_promoted_on_evidence_and_no_request_is_dropped(story: Story) -> None:
    assert story.second_model != story.first_model
    promotions = [d for d in story.av.decisions(DOOR) if d.kind is DecisionKind.PROMOTE]
    assert [d.subject for d in promotions] == [story.first_model, story.second_model]
    assert promotions[1].numbers["champion"] == story.first_model
    assert story.failures == []
    assert set(story.answers) == {story.first_model, story.second_model}
    switch = story.answers.index(story.second_model)
    assert set(story.answers[switch:]) == {story.second_model}


def test_a_pass_over_a_settled_store_changes_nothing(story: Story) -> None:
    assert story.settled_after == story.settled_before


def test_rolling_back_serves_the_first_model_again(story: Story) -> None:
    decision = story.av.roll_back(DOOR)
    assert decision.subject == story.first_model
    assert story.av.model(DOOR).id == story.first_model
