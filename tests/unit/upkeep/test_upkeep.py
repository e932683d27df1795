"""A store that really came about is sound; what is broken, missing or left over is found, removed, or copied round."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from autovision.dataset.importer import import_dataset
from autovision.errors import CorruptObject, InvalidInput
from autovision.records.base import now
from autovision.store import LocalStore, MemoryStore, Store, keys, open_store
from autovision.upkeep.check import check
from autovision.upkeep.collect import collect
from autovision.upkeep.transfer import Outcome, copy


@pytest.fixture
def store(tiny: Any, tmp_path: Path, serve_images: Callable[..., Any]) -> MemoryStore:
    """Two searches, their models, a deployment's captured requests: a copy of one's own."""
    store: MemoryStore = tiny.copy()
    serve_images(store, tiny.models[1].id, tmp_path / "served", 4, seed=7, shifted=False)
    return store


def damage(store: Store, key: str, data: bytes = b"damaged") -> None:
    store.delete(key)
    store.put_new(key, data)


def first(store: Store, prefix: str, part: str = "") -> str:
    return next(key for key in store.list(prefix) if part in key)


def leave_orphans(store: Store, model: str) -> set[str]:
    """One of each kind that can be left over."""
    made = {
        keys.image("0" * 64): b"an image that no manifest names",
        keys.dataset_manifest("colours", "abc"): b"rows that no version names",
        keys.trial_weights("colours-1", "00-0", "0" * 16): b"tensors that no trial names",
        keys.checkpoint("colours-1", "c" * 64, 0): b"of a search that has ended",
        keys.model_file(model, "model.safetensors", "1" * 64): b"a file that no model names",
        keys.model_file(
            "gone-m-1", "model.safetensors", "2" * 64
        ): b"a file of a model that was not revealed",
        keys.evaluation("gone-m-1", "d" * 64, "test"): b"of no model",
        keys.weights_file("3" * 64): b"tensors that no name leads to",
        keys.window_rows("door", "4" * 64): b"of a window that no report speaks of",
        keys.reference_part("gone-m-1", "5" * 64): b"of no model",
        keys.probe("0123456789abcdef"): b"of a process that was killed while it asked",
    }
    for key, data in made.items():
        store.put_new(key, data)
    return set(made)


# --------------------------------------------------------------------------------------------------- check


def test_what_really_came_about_is_sound(store: MemoryStore) -> None:
    seen: list[tuple[int, int]] = []
    report = check(store, progress=lambda done, total: seen.append((done, total)))
    assert report.sound and report.damaged == () == report.dangling
    # Of a trial that went on, the weights of its last rung are of use.
    assert all("/weights/" in entry.key for entry in report.orphans)
    assert report.objects == len(list(store.list()))
    assert report.digests == sum(keys.content_digest(key) is not None for key in store.list()) > 240
    assert seen[-1][0] == seen[-1][1] > 0


def test_damage_is_found_wherever_it_is(store: MemoryStore) -> None:
    broken = {
        first(store, "images/"),
        first(store, "models/", "/files/"),
        first(store, "datasets/", "manifests"),
        first(store, "deployments/", "captures"),
        first(store, "searches/", "trials"),
    }
    for key in broken:
        damage(store, key)
    report = check(store)
    assert not report.sound
    assert {each.key for each in report.damaged} == broken
    assert all(each.fault for each in report.damaged)


def test_a_reference_to_nothing_names_who_refers(store: MemoryStore, tiny: Any) -> None:
    model, version = tiny.models[1], tiny.versions[0]
    gone = {
        first(store, "images/"): "manifests/",
        keys.model_file(model.id, "model.safetensors", model.files["model.safetensors"]): model.id,
        # by a trial or by a finish: both may start from these
        first(store, "searches/", "/weights/"): "searches/",
        keys.model(tiny.models[0].id): "searches/",
        version.manifest_key: keys.dataset_version("colours", 1),
    }
    for key in gone:
        store.delete(key)
    report = check(store)
    found = {each.key: each.fault for each in report.dangling}
    assert found.keys() >= gone.keys()
    for key, by in gone.items():
        assert by in found[key]


# ------------------------------------------------------------------------------------------------- collect


def test_only_what_nothing_refers_to_is_removed_and_only_when_told(store: MemoryStore, tiny: Any) -> None:
    superseded = {entry.key for entry in check(store).orphans}
    before = set(store.list()) - superseded
    left = leave_orphans(store, tiny.models[1].id) | superseded
    assert {entry.key for entry in check(store).orphans} == left
    tomorrow = lambda: now() + timedelta(hours=25)  # noqa: E731
    looked = collect(store, clock=tomorrow)
    assert {entry.key for entry in looked.removed} == left <= set(store.list())
    done = collect(store, delete=True, clock=tomorrow)
    assert {entry.key for entry in done.removed} == left
    assert set(store.list()) == before
    assert collect(store, delete=True, clock=tomorrow).removed == ()


def test_what_is_young_stays_and_what_becomes_young_while_it_is_looked_at(
    store: MemoryStore, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(store, delete=True, older_than_h=-1.0)
    left = leave_orphans(store, tiny.models[1].id)
    found = collect(store, delete=True)
    assert found.removed == () and {entry.key for entry in found.young} == left
    image = keys.image("0" * 64)
    data = store.get(image).data
    remove = store.delete_unchanged

    def writer_is_faster(entry: Any) -> bool:
        store.put_immutable(image, data)  # found in place: an import that is about to name it
        return remove(entry)

    monkeypatch.setattr(store, "delete_unchanged", writer_is_faster)
    found = collect(store, delete=True, clock=lambda: now() + timedelta(hours=25))
    assert {entry.key for entry in found.removed} == left - {image}
    assert store.get(image).data == data


@pytest.mark.parametrize("part", ["manifests", "trials", "captures"])
def test_nothing_is_removed_while_it_is_not_known_what_is_referred_to(
    store: MemoryStore, tiny: Any, part: str
) -> None:
    left = leave_orphans(store, tiny.models[1].id)
    damage(store, first(store, "", part))
    with pytest.raises(CorruptObject, match="nothing is removed"):
        collect(store, delete=True, older_than_h=0.0)
    assert left <= set(store.list())


# ---------------------------------------------------------------------------------------------------- copy


def contents(store: Store) -> dict[str, bytes]:
    return {key: store.get(key).data for key in store.list()}


def test_a_copy_is_the_same_store_less_caches_and_who_works_on_it(store: MemoryStore, tmp_path: Path) -> None:
    store.put_new("leases/controller.json", b"{}")
    store.put_new("live/search.json", b"{}")
    target = LocalStore(tmp_path / "target")
    seen: list[tuple[int, int, int]] = []
    copied = copy(store, target, progress=lambda *each: seen.append(each))
    left = {key for key in store.list() if key.split("/")[0] in ("leases", "live", "clusters", "features")}
    assert contents(target) == {key: data for key, data in contents(store).items() if key not in left}
    assert any(key.startswith("features/") for key in left)
    assert copied.objects[Outcome.COPIED] == len(list(target.list())) == seen[-1][0] == seen[-1][1]
    assert copied.bytes == seen[-1][2] == sum(entry.size_bytes for entry in target.entries())
    assert check(target).sound
    again = copy(store, target, features=True)
    assert again.objects[Outcome.PRESENT] == copied.objects[Outcome.COPIED]
    assert again.objects[Outcome.COPIED] == sum(key.startswith("features/") for key in left)


def test_a_copy_that_was_interrupted_is_a_true_store_and_goes_on(store: MemoryStore, tmp_path: Path) -> None:
    target = LocalStore(tmp_path / "target")

    class Interrupted(Exception):
        pass

    def until(done: int, total: int, size: int) -> None:
        if done == total - 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        copy(store, target, workers=1, progress=until)
    partly = check(target)
    assert partly.damaged == () and not any("images/" in each.key for each in partly.dangling)
    copy(store, target)
    assert check(target).sound


def test_what_is_damaged_or_differs_is_named_and_the_rest_is_copied(
    store: MemoryStore, tmp_path: Path
) -> None:
    target = LocalStore(tmp_path / "target")
    image, record = first(store, "images/"), first(store, "searches/", "state.json")
    damage(store, image)
    target.put_new(record, b"{}")
    copied = copy(store, target)
    assert {each.key for each in copied.problems} == {image, record}
    assert (copied.objects[Outcome.DAMAGED], copied.objects[Outcome.DIFFERS]) == (1, 1)
    assert not target.exists(image) and target.get(record).data == b"{}"
    copied = copy(store, target, overwrite=True)
    assert [each.key for each in copied.problems] == [image]
    assert target.get(record).data == store.get(record).data
    with pytest.raises(InvalidInput, match="onto itself"):
        copy(store, store)


def test_there_and_back_through_s3(
    paint_images: Callable[..., Any], tmp_path: Path, s3_server_url: str, make_bucket: Callable[[], str]
) -> None:
    store = MemoryStore()
    paint_images(tmp_path / "images", 10)
    import_dataset(store, tmp_path / "images", "colours", seed=0)
    uri = f"s3://{make_bucket()}/copy?region=us-east-1&endpoint={s3_server_url}"
    there, back = open_store(uri, cached=False), LocalStore(tmp_path / "back")
    copy(store, there, features=True)
    copy(there, back, features=True)
    assert contents(back) == contents(store)
    assert check(there).sound
    left = keys.image("0" * 64)
    there.put_new(left, hashlib.sha256().digest())
    assert collect(there, delete=True).removed == ()
    assert [entry.key for entry in collect(there, delete=True, older_than_h=-1.0).removed] == [left]
    assert not there.exists(left)
