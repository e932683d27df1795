"""From captures and labels to a queue, to files, and back."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autovision.dataset import catalog, manifest
from autovision.dataset.relabel import relabel
from autovision.errors import InvalidInput, NotFound
from autovision.records.datasets import labels_of
from autovision.records.deployments import Capture, Label
from autovision.registry import deployments
from autovision.report.review_page import render
from autovision.review import folder
from autovision.review import queue as review_queue
from autovision.review.queue import Reason, ReviewQueue, build, share_out
from autovision.store import MemoryStore, keys, labels

if TYPE_CHECKING:
    from tests.unit.conftest import History, Scenes

NOW = datetime(2026, 5, 1, tzinfo=UTC)
OTHER = {"red": "blue", "blue": "red"}


def say(store: MemoryStore, request: str, label: str, by: str = "ann") -> None:
    labels.add(store, "door", Label(request_id=request, label=label, annotator=by, received_at=NOW))


@pytest.fixture(scope="module")
def asked(
    tiny: History,
    serve_images: Callable[..., list[tuple[str, str]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[MemoryStore, list[tuple[str, str]], list[str]]:
    """A deployment with 40 requests: of the first 20, 16 have good labels, 2 wrong ones, and 2 are disputed; and the
    digests of 3 images of the data set that are labelled wrongly."""
    store = tiny.copy()
    deployments.create(store, "door", "colours", tiny.space.to_json())
    deployments.set_champion(store, "door", tiny.models[1].id, expected=None)
    rows = manifest.read(store, tiny.versions[1])
    wrong = [row for row in rows if row.metadata.get("line") is None][:3]
    relabel(
        store,
        tiny.versions[1],
        {
            row.image: Label(request_id=row.image, label=OTHER[str(row.label)], received_at=NOW)
            for row in wrong
        },
    )
    folder_ = tmp_path_factory.mktemp("asked")
    truth = serve_images(store, tiny.models[1].id, folder_, 40, seed=7, shifted=False)
    for number, (request, true) in enumerate(truth[:20]):
        say(store, request, OTHER[true] if number < 2 else true)
        if number in (2, 3):
            say(store, request, OTHER[true], "bob")
    return store, truth, [row.image for row in wrong]


@pytest.fixture(scope="module")
def queue(asked: tuple[MemoryStore, list[tuple[str, str]], list[str]]) -> ReviewQueue:
    return build(asked[0], "door", 20)


def test_the_queue_holds_what_is_disputed_wrong_and_unsure(
    asked: tuple[MemoryStore, list[tuple[str, str]], list[str]], queue: ReviewQueue
) -> None:
    store, truth, wrong = asked
    by_reason = {reason: [e for e in queue.entries if e.reason is reason] for reason in Reason}
    assert len(queue.entries) == 20
    assert {e.request_id for e in by_reason[Reason.DISPUTED]} == {request for request, _ in truth[2:4]}
    assert "ann: 'red'" in by_reason[Reason.DISPUTED][0].why + by_reason[Reason.DISPUTED][1].why
    suspected = {e.request_id or e.image for e in by_reason[Reason.ERROR]}
    assert {*wrong, *(request for request, _ in truth[:2])} <= suspected
    first = by_reason[Reason.ERROR][0]
    assert first.suggested != first.label and "cross-validation: 5 folds" in first.judged_by
    unsure = by_reason[Reason.UNSURE]
    assert {e.request_id for e in unsure} <= {request for request, _ in truth[20:]}
    assert all(e.label is None and e.judged_by.endswith("as it answered") for e in unsure)
    assert build(store, "door", 20) == queue


def test_a_queue_is_filled_in_and_taken_back(
    asked: tuple[MemoryStore, list[tuple[str, str]], list[str]], queue: ReviewQueue, tmp_path: Path
) -> None:
    store, _, wrong = asked
    page = render(queue, lambda digest: store.get(keys.image(digest)).data)
    assert page.count("<img") == 20 and "http" not in page.partition("</head>")[2]
    folder.write(store, queue, tmp_path / "queue", page)
    with pytest.raises(InvalidInput, match="no empty folder"):
        folder.write(store, queue, tmp_path / "queue", page)
    with (tmp_path / "queue" / "queue.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert all((tmp_path / "queue" / row["file"]).read_bytes() for row in rows)
    assert [folder.verdict_of(row, multi_label=False) for row in rows] == [None] * 20
    row = next(row for row in rows if row["image"] in wrong)
    verdict = folder.verdict_of({**row, "new_label": " red ", "reviewer": "eve"}, multi_label=False)
    assert verdict is not None
    assert (verdict.request_id, verdict.dataset, verdict.label, verdict.reviewer) == (
        None,
        "colours",
        "red",
        "eve",
    )
    several = folder.verdict_of({**row, "new_label": "a| b"}, multi_label=True)
    none = folder.verdict_of({**row, "new_label": "|"}, multi_label=True)
    assert several is not None and none is not None and (several.label, none.label) == (("a", "b"), ())
    with pytest.raises(InvalidInput, match="neither a request_id nor an image"):
        folder.verdict_of({"new_label": "red", "request_id": "", "image": ""}, multi_label=False)


def test_an_annotators_name_is_no_formula(
    asked: tuple[MemoryStore, list[tuple[str, str]], list[str]], queue: ReviewQueue, tmp_path: Path
) -> None:
    formula = '=HYPERLINK("http://example.test","look")'
    first = queue.entries[0].with_(by=formula, why=f"{formula}: 'red'")
    folder.write(asked[0], queue.with_(entries=(first,)), tmp_path / "queue", "")
    with (tmp_path / "queue" / "queue.csv").open(encoding="utf-8-sig", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["labelled_by"], row["why"]) == (f"'{formula}", f"'{formula}: 'red'")


def test_what_was_reviewed_does_not_come_again(
    asked: tuple[MemoryStore, list[tuple[str, str]], list[str]], queue: ReviewQueue
) -> None:
    before = asked[0]
    store = MemoryStore()
    for key in before.list():
        store.put_new(key, before.get(key).data)
    for entry in queue.entries:
        word = Label(
            request_id=entry.request_id or entry.image,
            label="red",
            annotator="eve",
            review=True,
            received_at=NOW,
        )
        if entry.request_id:
            labels.add(store, "door", word)
        else:
            labels.correct(store, "colours", word)
    again = build(store, "door", 50)
    assert not {e.image for e in again.entries} & {e.image for e in queue.entries}


def test_several_labels_are_reviewed_too(scenes: Scenes, answer_images: Callable[..., list[str]]) -> None:
    store = scenes.copy()
    deployments.create(store, "door", "scenes", {})
    deployments.set_champion(store, "door", scenes.model.id, expected=None)
    answer_images(store, scenes.model.id, [path.read_bytes() for path, _ in scenes.new])
    row = manifest.read(store, scenes.version)[0]
    flipped = tuple(sorted({*labels_of(row.label)} ^ {"red"}))
    word = Label(request_id=row.image, label=flipped, received_at=NOW)
    assert relabel(store, scenes.version, {row.image: word}).version == 2
    found = build(store, "door", 12)
    error = next(entry for entry in found.entries if entry.image == row.image)
    assert (error.label, error.suggested) == (flipped, row.label)
    assert found.multi_label and any(entry.reason is Reason.UNSURE for entry in found.entries)


def test_the_budget_is_used_up_where_there_is_enough() -> None:
    there = {Reason.DISPUTED: 3, Reason.ERROR: 100, Reason.UNSURE: 1000}
    assert share_out(100, there) == {Reason.DISPUTED: 3, Reason.ERROR: 34, Reason.UNSURE: 63}
    assert sum(share_out(1, there).values()) == 1
    assert share_out(100, {Reason.DISPUTED: 60, Reason.ERROR: 0, Reason.UNSURE: 10}) == {
        Reason.DISPUTED: 60,
        Reason.ERROR: 0,
        Reason.UNSURE: 10,
    }


def test_of_very_many_captures_the_least_sure_are_kept_and_all_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(review_queue, "MOST", 10)
    found = review_queue._Unlabelled("m", multi_label=False)
    for number in range(200):
        p = 0.5 + (number * 37 % 200) / 400
        capture = Capture(
            request_id=f"r{number}",
            deployment="door",
            model="m" if number % 4 else "before",
            received_at=NOW,
            latency_ms=1.0,
            image=f"i{number}",
            pixels=number % 5 > 0,
            label="a",
            probabilities={"a": p, "b": 1 - p},
            embedding=(p, number),
        )
        found.see(capture)
        assert len(found.found) <= 20
    left = found.without({"i0", "i1"})
    assert (len(found.images), len(found.current), len(found.usable)) == (198, 149, 119)
    assert len(left) >= 9 and not any(capture.embedding for _, capture, _ in left)
    for unsure, _, embedding in left:
        assert embedding[0] == pytest.approx(0.5 + (1 - unsure) / 2)
    least = sorted(0.5 + (n * 37 % 200) / 400 for n in range(2, 200) if n % 4 and n % 5)[:8]
    assert set(least) <= {capture.probabilities["a"] for _, capture, _ in left}


def test_a_deployment_without_a_model_has_no_queue(tiny: History) -> None:
    store = tiny.copy()
    deployments.create(store, "door", "colours", {})
    with pytest.raises(NotFound, match="no model yet"):
        build(store, "door", 5)


def test_a_correction_keeps_splits_and_tells_who_and_when(tiny: History) -> None:
    store, version = tiny.copy(), tiny.versions[1]
    rows = manifest.read(store, version)
    said = {
        rows[0].image: Label(
            request_id=rows[0].image,
            label=OTHER[str(rows[0].label)],
            annotator="eve",
            confidence=0.8,
            received_at=NOW,
        ),
        "f" * 64: Label(request_id="f" * 64, label="red", received_at=NOW),
    }
    new = relabel(store, version, said)
    assert (new.version, new.parent, new.n) == (3, 2, version.n)
    after = manifest.read(store, new)
    assert [(row.image, row.split) for row in after] == [(row.image, row.split) for row in rows]
    assert (after[0].label, after[0].confidence) == (OTHER[str(rows[0].label)], 0.8)
    (correction,) = new.corrections
    assert (correction.was, correction.by, correction.at) == (rows[0].label, "eve", NOW)
    assert relabel(store, version, said) == new == relabel(store, new, said)
    assert catalog.latest(store, "colours") == new
    with pytest.raises(InvalidInput, match="no image of 'colours' would be left of the class 'blue'"):
        relabel(
            store, version, {r.image: Label(request_id=r.image, label="red", received_at=NOW) for r in rows}
        )
