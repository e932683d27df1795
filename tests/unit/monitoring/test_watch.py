"""Watching a deployment whose model was really trained, through the store."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from autovision.duplicates import MOST_BITS
from autovision.monitoring import watch as module
from autovision.monitoring.reference import load_reference
from autovision.monitoring.watch import reports_of, watch
from autovision.records.deployments import Deployment, DriftReport, Label, RetrainingPolicy
from autovision.registry import deployments
from autovision.registry.corruptions import KINDS
from autovision.store import MemoryStore, captures, keys, labels
from autovision.store.protocol import KeyNotFound

if TYPE_CHECKING:
    from tests.unit.conftest import History

NOW = datetime(2026, 6, 1, tzinfo=UTC)
Serve = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def store(tiny: History) -> MemoryStore:
    copied = tiny.copy()
    policy = RetrainingPolicy(window=40, windows_per_false_alarm=1000)
    deployments.create(copied, "door", "colours", tiny.space.to_json(), policy)
    deployments.set_champion(copied, "door", tiny.models[0].id, expected=None)
    return copied


@pytest.fixture
def look(store: MemoryStore) -> Callable[[], DriftReport | None]:
    ticks = iter(range(1000))

    def once() -> DriftReport | None:
        return watch(store, door(store), lambda: NOW + timedelta(minutes=next(ticks)))

    return once


def door(store: MemoryStore) -> Deployment:
    return deployments.get(store, "door")


def names(report: DriftReport) -> set[str]:
    return {each.name for each in report.detectors}


def test_all_detectors_speak_of_a_model_with_its_data(
    tiny: History, store: MemoryStore, serve_images: Serve, tmp_path: Path, look: Any
) -> None:
    truth = serve_images(store, tiny.models[0].id, tmp_path, 40, seed=1, shifted=False)
    for request, name in truth[:30]:
        labels.add(store, "door", Label(request_id=request, label=name, received_at=NOW))
    calm = look()
    assert calm is not None and not calm.alarm
    assert names(calm) == {"input", "quality", "prediction", "confidence", "accuracy"}
    assert calm.accuracy is not None and calm.accuracy.n == 30
    assert calm.estimate is not None and set(calm.estimate.tried) == set(KINDS), "the gates had them made"
    assert calm.rows is not None and store.exists(keys.window_rows("door", calm.rows))
    assert all(store.exists(keys.image(image)) for image in calm.typical)
    assert reports_of(store, "door", tiny.models[0].id) == [calm]
    assert look() is None, "each request is examined once"

    serve_images(store, tiny.models[0].id, tmp_path / "new", 40, seed=2, shifted=True)
    drift = look()
    assert drift is not None and drift.alarm
    assert {"input", "quality"} <= {each.name for each in drift.alarming}
    assert {"exposure", "contrast"} & {m.name for each in drift.alarming for m in each.moved}
    assert "line=new" in {m.name for each in drift.alarming for m in each.moved}
    assert drift.accuracy is None, "no label came since"


def test_one_image_that_is_sent_again_and_again_is_one_image(
    tiny: History, store: MemoryStore, serve_images: Serve, tmp_path: Path, look: Any
) -> None:
    truth = serve_images(store, tiny.models[0].id, tmp_path, 20, seed=1, shifted=False)
    sent = captures.read(store, "door").captures
    again = [
        each.with_(request_id=f"again-{n:03d}", received_at=sent[-1].received_at + timedelta(seconds=n))
        for n, each in enumerate([*sent, *sent], start=1)
    ][:20]
    captures.append(store, "door", again, at=again[-1].received_at)
    for request, name in [truth[0], *((each.request_id, truth[0][1]) for each in again[:1])]:
        labels.add(store, "door", Label(request_id=request, label=name, received_at=NOW))
    report = look()
    assert report is not None and report.n == 40
    assert next(each for each in report.detectors if each.name == "input").n <= 20
    assert any("different images" in note for note in report.notes)
    assert report.accuracy is not None and report.accuracy.n == 1


def test_a_burst_of_one_part_is_one_label_of_accuracy(
    tiny: History,
    store: MemoryStore,
    serve_images: Serve,
    tmp_path: Path,
    look: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        module, "_bits", lambda store, version: MOST_BITS
    )  # of images that are not alike by nature
    serve_images(store, tiny.models[0].id, tmp_path, 40, seed=1, shifted=False)
    last = captures.read(store, "door").captures[-1]
    rng = np.random.default_rng(0)
    parts = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    burst = []
    for n, part in enumerate([0] * 6 + [1, 2]):
        pixels = np.array(Image.fromarray(parts[part]).resize((64, 64), Image.Resampling.NEAREST))
        pixels[n, 0] ^= 1
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, "PNG")
        burst.append(
            last.with_(
                request_id=f"burst-{n}",
                image=hashlib.sha256(sink.getvalue()).hexdigest(),
                image_bytes=len(sink.getvalue()),
                received_at=last.received_at + timedelta(seconds=n + 1),
            )
        )
        store.put_immutable(captures.image_key(burst[-1]), sink.getvalue())
    captures.append(store, "door", burst, at=burst[-1].received_at)
    for each, name in zip(burst, ["red"] * 5 + ["blue"] + ["red"] * 2, strict=True):
        labels.add(store, "door", Label(request_id=each.request_id, label=name, received_at=NOW))
    report = look()
    assert report is not None and report.accuracy is not None
    assert report.accuracy.n == 4, "of six of one part five are labelled alike, and two are of other parts"


def test_damaged_and_deleted_images_do_not_stop_the_monitor(
    tiny: History, store: MemoryStore, serve_images: Serve, tmp_path: Path, look: Any
) -> None:
    serve_images(store, tiny.models[0].id, tmp_path, 40, seed=1, shifted=False)
    seen = captures.read(store, "door").captures
    for number, each in enumerate(seen[:12]):
        key = captures.image_key(each)
        store.delete(key)
        if number < 6:
            store.put_new(key, b"damaged")
    report = look()
    assert report is not None
    assert any("the images of 6 of 40 requests are not kept" in note for note in report.notes)
    assert next(each for each in report.detectors if each.name == "quality").n == 34


def test_a_model_whose_data_is_gone_is_still_watched_by_its_embeddings(
    tiny: History, store: MemoryStore, serve_images: Serve, tmp_path: Path, look: Any
) -> None:
    serve_images(store, tiny.models[0].id, tmp_path, 40, seed=1, shifted=True)
    store.delete(keys.dataset_version("colours", 1))
    report = look()
    assert report is not None and report.alarm and names(report) == {"input"}
    assert any(note.startswith("only inputs are compared: ") for note in report.notes)


def test_a_model_without_stored_predictions_says_how_to_get_them(tiny: History, store: MemoryStore) -> None:
    store.delete(keys.evaluation(tiny.models[0].id, tiny.versions[0].digest, "test"))
    reference = load_reference(store, tiny.models[0])
    assert len(reference.rows.figures) and not len(reference.rows.confidence)
    (note,) = reference.notes
    assert f"autovision model evaluate {tiny.models[0].id} --dataset colours@1" in note


def test_what_images_look_like_is_measured_once(tiny: History, store: MemoryStore) -> None:
    first = load_reference(store, tiny.models[0])
    kept = {key: store.get(key).data for key in store.list(f"models/{tiny.models[0].id}/reference/")}
    assert len(kept) == 2, "figures, and the projection"
    for image in first.images:
        store.delete(keys.image(image))
    again = load_reference(store, tiny.models[0])
    assert (again.rows.figures == first.rows.figures).all()
    assert (again.rows.embedded == first.rows.embedded).all()
    assert {key: store.get(key).data for key in store.list(f"models/{tiny.models[0].id}/reference/")} == kept


def test_images_that_are_gone_before_they_were_measured_are_told(tiny: History, store: MemoryStore) -> None:
    for key in list(store.list("images/")):
        store.delete(key)
    reference = load_reference(store, tiny.models[0])
    assert any("are gone" in note for note in reference.notes) and not len(reference.rows.figures)


def test_a_process_that_is_killed_before_its_report_leaves_nothing_that_counts(
    tiny: History,
    store: MemoryStore,
    serve_images: Serve,
    tmp_path: Path,
    look: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve_images(store, tiny.models[0].id, tmp_path, 40, seed=1, shifted=False)
    put = store.put_new

    def killed(key: str, data: bytes) -> str:
        if key.startswith(keys.reports("door")):
            raise KeyboardInterrupt
        return put(key, data)

    monkeypatch.setattr(store, "put_new", killed)
    with pytest.raises(KeyboardInterrupt):
        look()
    monkeypatch.setattr(store, "put_new", put)
    (rows,) = store.list("deployments/door/windows/")
    report = look()
    assert report is not None and keys.window_rows("door", report.rows or "") == rows


def test_a_deployment_without_a_model_is_not_watched(tiny: History, store: MemoryStore) -> None:
    deployments.create(store, "empty", "colours", tiny.space.to_json())
    assert watch(store, deployments.get(store, "empty"), lambda: NOW) is None
    with pytest.raises(KeyNotFound):
        store.get(keys.window_rows("door", "0" * 64))


def test_a_label_that_comes_while_a_window_is_examined_is_the_next_report_s(
    tiny: History, store: MemoryStore, serve_images: Serve, tmp_path: Path
) -> None:
    truth = serve_images(store, tiny.models[0].id, tmp_path, 80, seed=1, shifted=False)
    times = iter(NOW + timedelta(minutes=minute) for minute in range(100))

    class Slow(MemoryStore):
        """Where somebody labels a request after the labels were read, and before the report is stored."""

        def put_immutable(self, key: str, data: bytes) -> None:
            super().put_immutable(key, data)
            if "/windows/" in key and late:
                request, name = late.pop()
                labels.add(self, "door", Label(request_id=request, label=name, received_at=next(times)))

    slow, late = Slow(), [truth[0]]
    for key in store.list():
        slow.put_new(key, store.get(key).data)
    first = watch(slow, door(store), lambda: next(times))
    assert first is not None and first.accuracy is None and not late
    serve_images(slow, tiny.models[0].id, tmp_path / "more", 40, seed=3, shifted=False)
    second = watch(slow, door(store), lambda: next(times))
    assert second is not None and second.accuracy is not None and second.accuracy.n == 1
