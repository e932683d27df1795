"""What is remembered of labels is what would be read."""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from autovision.dataset import catalog, manifest
from autovision.duplicates import MOST_BITS, differing, perceptual_hash
from autovision.records.datasets import Split
from autovision.records.deployments import Capture, Deployment, Label
from autovision.registry import deployments
from autovision.retraining import alike
from autovision.retraining.accuracy import Share
from autovision.retraining.alike import Alike
from autovision.retraining.memory import Labelled, Memory
from autovision.store import MemoryStore, captures, keys, labels
from autovision.store.protocol import Blob, Store

if TYPE_CHECKING:
    from tests.unit.conftest import History

NOW = datetime(2026, 5, 1, tzinfo=UTC)
Serve = Callable[..., list[tuple[str, str]]]


class CountingStore(MemoryStore):
    """Counts what is read and listed."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.lists: list[str] = []

    def get(self, key: str) -> Blob:
        self.reads.append(key)
        return super().get(key)

    def list(self, prefix: str = ""):  # type: ignore[no-untyped-def]
        self.lists.append(prefix)
        return super().list(prefix)


@pytest.fixture
def store(tiny: History) -> CountingStore:
    store = CountingStore()
    for key in tiny.store.list():
        store.put_new(key, tiny.store.get(key).data)
    deployments.create(store, "door", "colours", tiny.space.to_json())
    deployments.set_champion(store, "door", tiny.models[0].id, expected=None)
    return store


def look(memory: Memory, store: CountingStore, since: datetime | None = None) -> Labelled:
    version = catalog.get(store, "colours@1")
    deployment: Deployment = deployments.get(store, "door")
    store.reads.clear()
    store.lists.clear()
    return memory.look(store, deployment, version, since=since)


def send(store: CountingStore, serve: Serve, folder: Path, seed: int, n: int = 6) -> list[tuple[str, str]]:
    model = deployments.get(store, "door").model
    return serve(store, model, folder / str(seed), n, seed=seed, shifted=True)


def say(store: CountingStore, words: list[tuple[str, str]]) -> None:
    for request_id, name in words:
        labels.add(store, "door", Label(request_id=request_id, label=name, received_at=NOW))


def test_nothing_is_read_again_while_nothing_changes(
    store: CountingStore, serve_images: Serve, tmp_path: Path
) -> None:
    memory = Memory()
    words = send(store, serve_images, tmp_path, 1)
    say(store, words[:4])
    first = look(memory, store)
    assert (first.labels, first.per_class) == (4, {"red": 2, "blue": 2})
    assert first.joined is not None and len(first.joined.rows) == 4
    again = look(memory, store)
    assert (again.labels, again.per_class, again.measured) == (first.labels, first.per_class, first.measured)
    assert again.joined is None
    assert store.reads == []
    send(store, serve_images, tmp_path, 2)
    assert look(memory, store).labels == 4
    assert store.reads == [], "more requests, of which no label speaks"
    say(store, words[4:])
    assert look(memory, store).labels == 6


def test_a_label_that_came_before_its_request_counts_when_that_is_there(
    store: CountingStore, serve_images: Serve, tmp_path: Path
) -> None:
    memory = Memory()
    say(store, [("r-3-000", "red"), ("never", "red")])
    assert look(memory, store).labels == 0
    send(store, serve_images, tmp_path, 2)
    assert look(memory, store).labels == 0
    send(store, serve_images, tmp_path, 3)
    assert look(memory, store).labels == 1


def test_accuracy_is_of_the_current_model_since_its_last_search(
    store: CountingStore, serve_images: Serve, tmp_path: Path, tiny: History
) -> None:
    memory = Memory()
    words = send(store, serve_images, tmp_path, 1, n=10)
    say(store, words)
    whole = look(memory, store).measured
    assert (whole.n, 0 <= whole.right <= 10) == (10, True)
    assert look(memory, store, since=NOW).measured == Share(0, 0), "another question is asked anew"
    deployments.set_champion(store, "door", tiny.models[1].id, expected=tiny.models[0].id)
    assert look(memory, store).measured == Share(0, 0)


def test_accuracy_is_of_images_and_of_labels_that_are_likely(
    store: CountingStore, serve_images: Serve, tmp_path: Path
) -> None:
    words = send(store, serve_images, tmp_path, 1)
    sent = captures.read(store, "door").captures
    again = [
        each.with_(request_id=f"again-{number}", received_at=each.received_at + timedelta(days=1))
        for number, each in enumerate([sent[0]] * 50)
    ]
    captures.append(store, "door", again, at=again[-1].received_at)
    name = dict(words)[sent[0].request_id]
    say(store, [*words[:4], *((each.request_id, name) for each in again)])
    for request_id, name in words[4:]:
        unlikely = Label(request_id=request_id, label=name, confidence=0.3, received_at=NOW)
        labels.add(store, "door", unlikely)
    found = look(Memory(), store)
    assert (found.measured.n, found.labels) == (4, 6)


def test_images_that_are_nearly_the_same_and_labelled_so_are_one_label(
    store: CountingStore, answer_images: Callable[..., list[str]]
) -> None:
    def png(number: int, brightness: int) -> bytes:
        pixels = np.random.default_rng(900_000 + number).integers(60, 160, (72, 72, 3)) + brightness
        sink = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(sink, "PNG")
        return sink.getvalue()

    model = deployments.get(store, "door").model
    burst = answer_images(store, model, [png(1, level) for level in range(20)], seed=1)
    others = answer_images(store, model, [png(number, 0) for number in range(2, 6)], seed=2)
    say(store, [*((each, "red") for each in burst), *((each, "blue") for each in others)])
    memory = Memory()
    found = look(memory, store)
    assert (found.labels, found.per_class, found.alike) == (5, {"red": 1, "blue": 4}, 19)
    assert found.joined is not None and len(found.joined.rows) == 24, "all of them are learnt from"
    said = {each.label for each in captures.read(store, "door").captures if each.request_id in burst}
    assert found.measured.n == len(said) + 4, "each answer to what is nearly the same is one"
    # What looks the same and is labelled differently is another thing.
    labels.add(store, "door", Label(request_id=burst[0], label="blue", received_at=NOW + timedelta(days=1)))
    again = look(memory, store)
    assert (again.labels, again.per_class, again.alike) == (6, {"red": 1, "blue": 5}, 18)
    assert not [key for key in store.reads if "images/" in key], "no image is read twice"
    assert look(memory, store).alike == 18


def test_labels_from_a_camera_whose_images_all_look_alike_count_one_by_one(
    store: CountingStore, answer_images: Callable[..., list[str]], tiny: History
) -> None:
    """However many other images the data set has: else a camera that was put up a week ago leads to no re-search."""
    always = np.random.default_rng(0).normal(0, 1, (16, 16))

    def png(number: int) -> bytes:
        own = np.random.default_rng(1 + number).normal(0, 0.09, (16, 16))
        pixels = (128 + 30 * (always + own)).clip(0, 255).astype(np.uint8)
        sink = io.BytesIO()
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(sink, "PNG")
        return sink.getvalue()

    sent = answer_images(store, deployments.get(store, "door").model, [png(n) for n in range(40)], seed=1)
    say(store, [(each, "red" if n % 2 else "blue") for n, each in enumerate(sent)])
    hashes = {str(n): perceptual_hash(Image.open(io.BytesIO(png(n)))) for n in range(40)}
    pairs = differing(hashes, {}, MOST_BITS)
    assert len(pairs) > 0.99 * 40 * 39 / 2, "each is a near-duplicate of each, taken by itself"
    found = look(Memory(), store)
    assert found.labels + found.alike == 40 and found.labels > 20
    old = [
        manifest.Row(
            image=f"{n:064x}",
            source="before",
            label="red",
            split=Split.TRAIN,
            perceptual_hash=np.random.default_rng(n).bytes(32).hex(),
        )
        for n in range(2500)
    ]
    families = Alike().families(store, "door", captures.read(store, "door").captures, old, tiny.versions[0])
    assert len(set(families.values())) + 40 - len(families) > 20


def test_what_was_compared_is_not_compared_again(
    store: CountingStore, answer_images: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []
    real = alike.differing

    def watched(new: Any, old: Any, bits: int) -> Any:
        compared.append(len(new))
        return real(new, old, bits)

    monkeypatch.setattr(alike, "differing", watched)
    rng = np.random.default_rng(0)
    images = []
    for _ in range(6):
        sink = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(sink, "PNG")
        images.append(sink.getvalue())
    sent = answer_images(store, deployments.get(store, "door").model, images, seed=1)
    memory = Memory()
    say(store, [(each, "red") for each in sent[:4]])
    assert look(memory, store).labels == 4
    for each in sent[4:]:
        labels.add(store, "door", Label(request_id=each, label="red", received_at=NOW + timedelta(days=1)))
    assert look(memory, store).labels == 6
    assert compared == [4, 2]


def test_a_picture_of_what_the_data_set_has_is_no_new_label(
    store: CountingStore, answer_images: Callable[..., list[str]], tiny: History
) -> None:
    row = next(row for row in manifest.read(store, tiny.versions[0]) if row.label == "red")
    with Image.open(io.BytesIO(store.get(keys.image(row.image)).data)) as image:
        sink = io.BytesIO()
        image.convert("RGB").point(lambda value: value + 3).save(sink, "PNG")
    (asked,) = answer_images(store, deployments.get(store, "door").model, [sink.getvalue()], seed=1)
    say(store, [(asked, "red")])
    memory = Memory()
    assert (look(memory, store).labels, look(memory, store).alike) == (0, 1)
    labels.add(store, "door", Label(request_id=asked, label="blue", received_at=NOW + timedelta(days=1)))
    assert look(memory, store).per_class == {"blue": 1}


def test_listing_takes_a_share_of_the_time(store: CountingStore, serve_images: Serve, tmp_path: Path) -> None:
    at = [0.0]

    def clock() -> float:
        at[0] += 1.0  # each look at the clock is a second later: a look takes one
        return at[0]

    memory = Memory(clock=clock, share=0.1, most_saved_s=2.0)
    words = send(store, serve_images, tmp_path, 1)
    say(store, words[:2])
    listed = 0
    for _ in range(100):
        look(memory, store)
        listed += any("labels" in prefix for prefix in store.lists)
    assert 5 <= listed <= 30
    say(store, words[2:4])
    found = [look(memory, store).labels for _ in range(40)]
    assert found[-1] == 4, "it is seen in the end"


def test_requests_without_a_label_are_not_kept_in_memory_while_those_with_one_are_looked_for(
    store: CountingStore, serve_images: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [send(store, serve_images, tmp_path, seed, n=4) for seed in range(1, 7)]
    say(store, [each[0] for each in words])
    seen_of: list[weakref.ref[Capture]] = []
    most: list[int] = []

    def read_file(store: Store, key: str) -> list[Capture]:
        most.append(sum(each() is not None for each in seen_of))
        found = real(store, key)
        seen_of.extend(map(weakref.ref, found))
        return found

    real = captures.read_file
    monkeypatch.setattr(captures, "read_file", read_file)
    seen = look(Memory(), store)
    assert seen.labels == 6 and len(most) == 6
    assert max(most) <= 4, "no more than those of the file before"
