"""Stored and computed prefixes give the same numbers, those of the network itself."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from autovision.dataset.loader import load_pixels
from autovision.features import budget, compute, fill, prefix
from autovision.features.budget import used_bytes
from autovision.features.compute import FeatureSource
from autovision.features.extract import FrozenPrefix
from autovision.features.fill import OutOfTime
from autovision.features.prefix import ComputedPrefix, HeldPrefix, Prefix, StoredPrefix
from autovision.features.views import Views, apply
from autovision.model import backbone as backbones
from autovision.space.config import TrialConfig
from autovision.store import LocalStore, MemoryStore, keys
from autovision.store.protocol import Store
from autovision.trial.workbench import Workbench

FIXED = [Views(), Views("flip"), Views("crop"), Views("randaugment", 9, 2), Views("trivialaugment", count=1)]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """f32 also where the processor would do bf16, so that what is left is the rounding to float16."""
    monkeypatch.setattr(compute, "native_precision", lambda: "f32")


@pytest.fixture
def images(bench: Workbench) -> tuple[str, ...]:
    return bench.splits("shades@1").train.images[:8]


def source_in(store: Store, budget_bytes: int | None = None, backbone: str = "test_resnet") -> FeatureSource:
    config = TrialConfig(backbone=backbone, weights="random", resolution=64)
    return FeatureSource(
        store, backbones.load(config), backbone, backbones.preprocessing(config), 1, budget_bytes
    )


def prefix_of(
    source: FeatureSource,
    images: tuple[str, ...],
    views: Views,
    cut: int | None = 2,
    columns: np.ndarray | None = None,
) -> Prefix:
    return source.prefix(images, views, cut=cut, columns=columns, deadline=math.inf)


def draws(given: Prefix, n: int = 20, most: int = 1 << 31) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, given.views or most, n), rng.integers(0, given.images, n)


def assert_close(found: np.ndarray | None, expected: np.ndarray | None) -> None:
    """Half a unit in the last place of float16 is 1/2048 of a value; the compiler adds some of its own."""
    assert found is not None
    assert expected is not None
    tolerance = 2e-4 * float(abs(expected).max())
    np.testing.assert_allclose(
        found.astype(np.float32), expected.astype(np.float32), rtol=1e-3, atol=tolerance
    )


def recomputed(
    source: FeatureSource, images: tuple[str, ...], views: Views, cut: int, at: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """What the network itself makes of each image and view, one at a time."""
    pixels = load_pixels(source.store, images, source.preprocessing, threads=1)
    seen = np.concatenate(
        [apply(pixels[r : r + 1], images[r : r + 1], views.name(int(v))) for v, r in zip(*at, strict=True)]
    )
    with torch.inference_mode():
        batch = torch.from_numpy(seen)
        activation = FrozenPrefix(source.loaded.staged, source.preprocessing, cut, []).eval()(batch)
        pooled = FrozenPrefix(
            source.loaded.staged, source.preprocessing, None, range(len(source.loaded.staged))
        ).eval()(batch)
    return activation.numpy(), pooled.numpy()


@pytest.mark.parametrize("views", FIXED, ids=lambda views: views.augmentation)
def test_stored_and_computed_are_what_the_network_computes(
    bench: Workbench, images: tuple[str, ...], views: Views
) -> None:
    stored_by, computed_by = source_in(bench.store), source_in(bench.store, budget_bytes=0)
    columns = np.array([40, 41, 3, 4, 5, 90])
    computed = prefix_of(computed_by, images, views, 2, columns)
    stored = prefix_of(stored_by, images, views, 2, columns)
    assert isinstance(stored, StoredPrefix)
    assert isinstance(computed, ComputedPrefix)
    at = draws(stored)
    activation, pooled = recomputed(stored_by, images, views, 2, at)
    for given in (stored, computed):
        assert (given.images, given.views, given.width) == (8, views.number, 6)
        assert given.activation_shape == activation.shape[1:]
        maps, below = given.take(*at)
        assert maps is not None
        assert below is not None
        assert maps.dtype == below.dtype == np.float16
        assert_close(maps, activation)
        assert_close(below, pooled[:, columns])


@pytest.mark.parametrize("budget_bytes", [None, 0], ids=["stored", "computed"])
def test_what_is_not_wanted_is_not_given(
    bench: Workbench, images: tuple[str, ...], budget_bytes: int | None
) -> None:
    source = source_in(bench.store, budget_bytes)
    alone = prefix_of(source, images, Views("flip"), cut=3)
    assert alone.width == 0
    assert alone.take(*draws(alone))[1] is None
    flat = prefix_of(source, images, Views("flip"), cut=None, columns=np.arange(4))
    assert (flat.activation_shape, flat.width) == (None, 4)
    maps, below = flat.take(*draws(flat))
    assert maps is None
    assert below is not None
    assert below.shape == (20, 4)


def test_views_that_are_drawn_afresh_are_computed_and_repeat_exactly(
    bench: Workbench, images: tuple[str, ...]
) -> None:
    source, views = source_in(bench.store), Views("randaugment")
    given = prefix_of(source, images, views, 2, np.arange(5))
    assert given.views is None
    at = draws(given)
    first, again = given.take(*at), given.take(*at)
    np.testing.assert_array_equal(first[0], again[0])
    activation, pooled = recomputed(source, images, views, 2, at)
    assert_close(first[0], activation)
    assert_close(first[1], pooled[:, :5])
    # Some other process, in another order, of another selection.
    other = prefix_of(source_in(bench.store), images, views, 2, np.arange(5))
    assert_close(other.take(at[0][::-1], at[1][::-1])[0], first[0][::-1])  # type: ignore[index]
    assert not any("cut" in spec for spec in stored_outputs(bench.store)), "they are not stored"


def stored_outputs(store: Store) -> set[str]:
    import pyarrow as pa

    found = set()
    for key in store.list(keys.FEATURES):
        schema = pa.ipc.open_file(pa.BufferReader(store.get(key).data)).schema
        found.add(schema.metadata[b"spec"].decode().partition('"output":"')[2].partition('"')[0])
    return found


@pytest.mark.parametrize("views", [Views("flip"), Views("randaugment")], ids=lambda views: views.augmentation)
def test_at_cut_0_pixels_are_stored_and_normalized_when_they_are_taken(
    bench: Workbench, images: tuple[str, ...], views: Views
) -> None:
    source = source_in(bench.store)
    given = prefix_of(source, images, views, cut=0)
    at = draws(given)
    found, _ = given.take(*at)
    expected, _ = recomputed(source, images, views, 0, at)
    assert found is not None
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert stored_outputs(bench.store) == {"pixels"}
    assert used_bytes(bench.store) < 8 * (64 * 64 * 3 + 1000), "a byte a value, of the image itself alone"


def test_pixels_are_those_of_every_backbone_with_the_same_geometry(
    bench: Workbench, images: tuple[str, ...]
) -> None:
    source = source_in(bench.store)
    prefix_of(source, images, Views(), cut=0)
    before = set(bench.store.list(keys.FEATURES))
    other = source_in(bench.store)
    other.preprocessing = source.preprocessing.with_(mean=(0.4, 0.4, 0.4))
    assert other.missing(images, Views(), 0) == 0
    found = prefix_of(other, images, Views(), cut=0).take(
        *(at := draws(prefix_of(source, images, Views(), cut=0)))
    )[0]
    assert set(bench.store.list(keys.FEATURES)) == before
    assert_close(found, recomputed(other, images, Views(), 0, at)[0])
    other.preprocessing = source.preprocessing.with_(crop_pct=0.5)
    assert other.missing(images, Views(), 0) == len(images)


def test_a_long_take_is_computed_in_parts(
    bench: Workbench, images: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prefix_of(source_in(bench.store, 0), images, Views("flip"), 2)
    at = draws(whole)
    expected = whole.take(*at)[0]
    monkeypatch.setattr(prefix, "BATCH", 3)
    assert_close(whole.take(*at)[0], expected)


def test_time_and_work_of_computing_are_counted(bench: Workbench, images: tuple[str, ...]) -> None:
    source = source_in(bench.store, 0)
    given = prefix_of(source, images, Views(), 2)
    assert source.computed == 0
    seconds = source.seconds
    given.take(*draws(given))
    assert source.computed == 20
    assert source.seconds > seconds
    stored = source_in(bench.store)
    rows = prefix_of(stored, images, Views("flip"), 2)
    assert stored.computed == 16
    before = stored.seconds
    rows.take(*draws(rows))
    assert (stored.computed, stored.seconds) == (16, before), "reading is not computing"


# ------------------------------------------------------------------------------------------------ the budget


def test_what_does_not_fit_is_recomputed_and_noted(bench: Workbench, images: tuple[str, ...]) -> None:
    source = source_in(bench.store, budget_bytes=150_000)  # pixels of 8 images fit, activations do not
    given = prefix_of(source, images, Views("flip"), 1)
    assert isinstance(given, ComputedPrefix)
    (note,) = source.take_notes()
    assert note.startswith("features of cut 1 need ")
    assert note.endswith("and the budget is 150 KB: recomputed in every epoch")
    assert source.take_notes() == ()
    assert stored_outputs(bench.store) == {"pixels"}
    assert used_bytes(bench.store) <= 150_000


def test_what_is_stored_already_is_read_whatever_the_budget(
    bench: Workbench, images: tuple[str, ...]
) -> None:
    prefix_of(source_in(bench.store), images, Views(), 2)
    source = source_in(bench.store, budget_bytes=0)
    assert isinstance(prefix_of(source, images, Views(), 2), StoredPrefix)
    assert source.computed == 0


def test_without_room_for_pixels_images_are_decoded_again(bench: Workbench, images: tuple[str, ...]) -> None:
    source = source_in(bench.store, budget_bytes=1000)
    given = prefix_of(source, images, Views(), 2)
    assert [note.partition(" need ")[0] for note in source.take_notes()] == [
        "features of cut 2",
        "decoded images",
    ]
    assert used_bytes(bench.store) == 0
    at = draws(given)
    assert_close(given.take(*at)[0], recomputed(source, images, Views(), 2, at)[0])


def test_peak_bytes_stay_within_the_budget_and_values_stay_right(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials of different cuts take turns in a budget that holds one of them at a time."""
    store = LocalStore(tmp_path / "store")
    images = bench.splits("shades@1").train.images
    for name in images:
        store.put_immutable(keys.image(name), bench.store.get(keys.image(name)).data)
    monkeypatch.setattr(fill, "_CHUNK", 4)
    monkeypatch.setattr(budget, "_IN_USE_S", 0.0)  # as if each had ended a minute ago
    peaks = []
    put_immutable = LocalStore.put_immutable

    def watched(self: LocalStore, key: str, data: bytes) -> None:
        put_immutable(self, key, data)
        peaks.append(sum(path.stat().st_size for path in (tmp_path / "store/features").rglob("*.arrow")))

    monkeypatch.setattr(LocalStore, "put_immutable", watched)
    shapes = source_in(store).shapes.activations
    row = max(2 * math.prod(shapes[cut]) for cut in (2, 3, 4))
    limit = int(len(images) * row * 1.2) + 50_000
    for cut in (2, 3, 4, 2, 3):
        source = source_in(store, limit)
        given = prefix_of(source, images, Views(), cut)
        assert isinstance(given, StoredPrefix)
        at = draws(given)
        assert_close(given.take(*at)[0], recomputed(source, images, Views(), cut, at)[0])
    assert max(peaks) <= limit
    assert len(peaks) > 3 * len(images) / 4, "what was removed was computed again"


def test_what_is_removed_while_it_is_used_stays_readable_and_is_computed_for_the_next(
    bench: Workbench, images: tuple[str, ...], tmp_path: Path
) -> None:
    source = source_in(bench.store)
    given = prefix_of(source, images, Views("flip"), 2)
    at = draws(given)
    before = given.take(*at)[0]
    for key in list(bench.store.list(keys.FEATURES)):
        bench.store.delete(key)
    np.testing.assert_array_equal(given.take(*at)[0], before)  # type: ignore[arg-type]
    again = prefix_of(source, images, Views("flip"), 2)
    assert source.computed == 32
    np.testing.assert_array_equal(again.take(*at)[0], before)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["truncated", "a bit turned"])
def test_a_damaged_shard_is_computed_again_with_a_note(
    bench: Workbench, images: tuple[str, ...], tmp_path: Path, how: str
) -> None:
    store = LocalStore(tmp_path / "store")
    for name in images:
        store.put_immutable(keys.image(name), bench.store.get(keys.image(name)).data)
    given = prefix_of(source_in(store), images, Views("flip"), 2)
    at = draws(given)
    expected = given.take(*at)[0]
    path = store.local_path(next(store.list(keys.FEATURES)))
    data = path.read_bytes()
    middle = len(data) // 2
    path.unlink()  # a new file: what is mapped is not to change under its reader
    path.write_bytes(
        data[:middle]
        if how == "truncated"
        else data[:middle] + bytes([data[middle] ^ 64]) + data[middle + 1 :]
    )
    source = source_in(store)
    found = prefix_of(source, images, Views("flip"), 2).take(*at)[0]
    np.testing.assert_array_equal(found, expected)  # type: ignore[arg-type]
    assert source.computed == len(images)
    assert source.take_notes() == ("1 damaged shards of frozen features were found, and computed again",)


def test_images_of_a_memory_store_work_too() -> None:
    assert source_in(MemoryStore()).missing(["a" * 64], Views("flip"), 2) == 2


def test_pooled_rows_that_have_no_room_are_computed_once_and_held(
    bench: Workbench, images: tuple[str, ...]
) -> None:
    columns = np.array([40, 3, 90, 91])
    fixed = {"cut": None, "columns": columns, "deadline": math.inf}
    source = source_in(bench.store, budget_bytes=1000)
    held = source.prefix(images, Views("flip"), **fixed)  # type: ignore[arg-type]
    assert isinstance(held, HeldPrefix)
    assert source.take_notes()[0].endswith("computed for this trial alone")
    computed = source.computed
    at = draws(held)
    stored = source_in(bench.store).prefix(images, Views("flip"), **fixed)  # type: ignore[arg-type]
    assert isinstance(stored, StoredPrefix)
    assert (held.views, held.images, held.width) == (stored.views, stored.images, stored.width)
    assert_close(held.take(*at)[1], stored.take(*at)[1])
    assert held.take(*at)[0] is None
    assert source.computed == computed, "reading is not computing"
    late = {**fixed, "deadline": 0.0}
    with pytest.raises(OutOfTime):
        source.prefix(images, Views("dihedral"), **late)  # type: ignore[arg-type]
