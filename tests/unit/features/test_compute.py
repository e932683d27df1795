"""Features on demand: right in every row, and computed once, whoever asks."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from autovision import image
from autovision.dataset import manifest
from autovision.dataset.importer import extend, import_dataset
from autovision.dataset.listing import SourceImage
from autovision.dataset.loader import load_pixels
from autovision.features import compute, fill
from autovision.features.compute import FeatureSource
from autovision.features.extract import FrozenPrefix
from autovision.features.prefix import Prefix
from autovision.features.spec import FeatureSpec
from autovision.features.views import Views
from autovision.model import backbone as backbones
from autovision.records.base import digest_of
from autovision.space.config import TrialConfig
from autovision.store import LocalStore, lease
from autovision.store.protocol import Store
from autovision.trial.workbench import Workbench

EVER = math.inf


def config(**changes: object) -> TrialConfig:
    return TrialConfig.model_validate(
        {"backbone": "test_resnet", "weights": "random", "resolution": 64, **changes}
    )


def source_of(store: Store, wanted: TrialConfig) -> FeatureSource:
    """As every process has its own."""
    return FeatureSource(
        store, backbones.load(wanted), wanted.backbone, backbones.preprocessing(wanted), threads=1
    )


def pooled(
    source: FeatureSource, images: Sequence[str], views: str, columns: np.ndarray, *, deadline: float = EVER
) -> np.ndarray:
    """Pooled rows of all views: (V, N, len(columns))."""
    prefix = source.prefix(images, Views(views), cut=None, columns=columns, deadline=deadline)  # type: ignore[arg-type]
    return everything(prefix, 1)


def at_cut(source: FeatureSource, images: Sequence[str], views: str, cut: int) -> np.ndarray:
    """Activations of all views: (V, N, *shape)."""
    return everything(source.prefix(images, Views(views), cut=cut, columns=None, deadline=EVER), 0)  # type: ignore[arg-type]


def everything(prefix: Prefix, which: int) -> np.ndarray:
    rows = np.arange(prefix.images)
    assert prefix.views is not None
    return np.stack([prefix.take(np.full_like(rows, view), rows)[which] for view in range(prefix.views)])  # type: ignore[arg-type]


def stored_rows(store: Store) -> Counter[tuple[str, str]]:
    """(spec, image) -> how many shards hold that row."""
    found: Counter[tuple[str, str]] = Counter()
    for key in store.list("features/"):
        table = pa.ipc.open_file(pa.BufferReader(store.get(key).data)).read_all()
        found.update((key.split("/")[1], name) for name in table.column("image").to_pylist())
    return found


def every_column(source: FeatureSource) -> np.ndarray:
    with torch.inference_mode():
        size = source.preprocessing.height
        row = FrozenPrefix(
            source.loaded.staged, source.preprocessing, None, range(len(source.loaded.staged))
        )(torch.zeros(1, size, size, 3, dtype=torch.uint8))
    return np.arange(row.shape[1])


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """f32 also where the processor would do bf16, so that what is left is the rounding to float16."""
    monkeypatch.setattr(compute, "native_precision", lambda: "f32")


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    ("backbone", "augmentation", "cuts"),
    [
        ("test_resnet", "dihedral", [0, 3, 5]),
        ("test_resnet", "crop", [2]),
        ("test_efficientnet", "flip", [4]),
        ("test_vit", "flip", [1, 5]),
    ],
)
def test_what_is_stored_is_what_the_backbone_computes_of_every_view(
    bench: Workbench, backbone: str, augmentation: str, cuts: list[int]
) -> None:
    source = bench.source(config(backbone=backbone))
    staged, prep = source.loaded.staged, source.preprocessing
    images = bench.splits("shades@1").train.images[:6]
    pixels = load_pixels(bench.store, images, prep, threads=1)
    views = [image.apply_view(pixels, augmentation, i) for i in range(image.view_count(augmentation))]

    def recomputed(module: torch.nn.Module) -> np.ndarray:
        with torch.inference_mode():
            return np.stack([module(torch.from_numpy(view)).numpy() for view in views])

    def assert_close(found: np.ndarray, module: torch.nn.Module) -> None:
        expected = recomputed(module)
        # Half a unit in the last place of float16 is 1/2048 of a value; the compiler adds some of its own.
        np.testing.assert_allclose(
            found.astype(np.float32), expected, rtol=1e-3, atol=2e-4 * abs(expected).max()
        )

    columns = every_column(source)
    assert_close(
        pooled(source, images, augmentation, columns),
        FrozenPrefix(staged, prep, None, range(len(staged))).eval(),
    )
    for cut in cuts:
        assert_close(at_cut(source, images, augmentation, cut), FrozenPrefix(staged, prep, cut, []).eval())


def test_columns_are_chosen_while_reading(bench: Workbench) -> None:
    source, images = bench.source(config()), bench.splits("shades@1").train.images
    whole = pooled(source, images, "flip", every_column(source))
    some = np.array([5, 0, 17])
    np.testing.assert_array_equal(pooled(source, images, "flip", some), whole[:, :, some])


def test_when_images_are_added_only_they_are_computed(
    bench: Workbench, paint_images: Callable[..., list[Path]], tmp_path: Path
) -> None:
    wanted, store = config(), bench.store
    old = bench.splits("shades@1")
    source = bench.source(wanted)
    columns = every_column(source)[:3]
    before = pooled(source, old.train.images, "flip", columns)
    assert source.computed == 2 * len(old.train)
    rows = stored_rows(store)

    paths = paint_images(tmp_path / "more", 5)
    sources = [
        SourceImage(label=label, path=path) for path, label in zip(paths, ["dark", "bright"] * 5, strict=True)
    ]
    extend(store, old.version, sources, seed=0)
    new = bench.splits("shades@2")
    added = len(new.train) - len(old.train)
    assert added > 0
    # Another process, so that nothing but the store can know what is there.
    other = source_of(store, wanted)
    after = pooled(other, new.train.images, "flip", columns)
    assert other.computed == 2 * added
    assert stored_rows(store) - rows == Counter(
        {(spec, name): 1 for spec, _ in rows for name in set(new.train.images) - set(old.train.images)}
    )
    at = [new.train.images.index(name) for name in old.train.images]
    np.testing.assert_array_equal(after[:, at], before)


def test_an_image_that_is_asked_for_twice_is_computed_once(bench: Workbench) -> None:
    source, images = bench.source(config()), bench.splits("shades@1").train.images
    found = pooled(source, [*images[:3], *images[:3]], "none", np.arange(4))
    assert source.computed == 3
    np.testing.assert_array_equal(found[:, :3], found[:, 3:])


@pytest.mark.parametrize(
    "changes", [{"resolution": 96}, {"backbone": "test_efficientnet"}], ids=["resolution", "backbone"]
)
def test_another_configuration_shares_no_rows(bench: Workbench, changes: dict[str, object]) -> None:
    images = bench.splits("shades@1").train.images
    pooled(bench.source(config()), images, "none", np.arange(2))
    assert bench.source(config(**changes)).missing(images, Views("none"), None) == len(images)


def test_other_weights_another_precision_and_another_cut_share_no_rows(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = bench.splits("shades@1").train.images
    source = bench.source(config())
    at_cut(source, images, "none", 2)
    assert source.missing(images, Views("none"), 2) == 0
    assert source.missing(images, Views("none"), 1) == len(images)
    assert source.missing(images, Views("none"), None) == len(images)
    assert source.missing(images, Views("flip"), 2) == len(images), "of two views one is there"

    trained = replace(source.loaded, info=replace(source.loaded.info, digest="f" * 64))
    other = FeatureSource(bench.store, trained, source.name, source.preprocessing, threads=1)
    assert other.missing(images, Views("none"), 2) == len(images)

    monkeypatch.setattr(compute, "native_precision", lambda: "some other")
    assert source_of(bench.store, config()).missing(images, Views("none"), 2) == len(images)


def test_threads_share_the_work_and_compute_nothing_twice(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "_CHUNK", 3)
    rows = manifest.read(bench.store, bench.splits("shades@1").version)
    images = sorted(row.image for row in rows)
    sources = [source_of(bench.store, config()) for _ in range(3)]
    pooled(sources[0], images[:1], "none", np.arange(2))  # convert once
    found: list[np.ndarray] = []
    together = threading.Barrier(len(sources))

    def work(source: FeatureSource) -> None:
        together.wait()
        found.append(pooled(source, images, "flip", np.arange(9)))

    threads = [threading.Thread(target=work, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(sources)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    assert sum(source.computed for source in sources) == 2 * len(images)
    assert set(stored_rows(bench.store).values()) == {1}


ONE_PROCESS = """
import json, math, sys, time
from pathlib import Path
import numpy as np
from autovision.features import fill
from autovision.features.compute import FeatureSource
from autovision.features.views import Views
from autovision.model import backbone as backbones
from autovision.space.config import TrialConfig
from autovision.store import LocalStore

root, images = Path(sys.argv[1]), json.loads(sys.argv[2])
fill._CHUNK = 3
config = TrialConfig(backbone="test_resnet", weights="random", resolution=64)
source = FeatureSource(
    LocalStore(root / "store"), backbones.load(config), "test_resnet", backbones.preprocessing(config), threads=1
)

def pooled(images, views):
    prefix = source.prefix(images, views, cut=None, columns=np.arange(9), deadline=math.inf)
    rows = np.arange(len(images))
    return np.stack([prefix.take(np.full_like(rows, view), rows)[1] for view in range(prefix.views)])

pooled(images[:1], Views())  # convert and compile
(root / sys.argv[3]).touch()
while not all((root / name).exists() for name in ("first", "second")):
    time.sleep(0.005)
values = pooled(images, Views("flip"))
print(json.dumps([source.computed, values.astype(float).sum()]))
"""


def test_processes_share_the_work_and_compute_nothing_twice(
    paint_images: Callable[..., list[Path]], tmp_path: Path
) -> None:
    paint_images(tmp_path / "images", 15)
    store = LocalStore(tmp_path / "store")
    version = import_dataset(store, tmp_path / "images", "colours", seed=0)
    images = json.dumps([row.image for row in manifest.read(store, version)])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_PROCESS, str(tmp_path), images, name], stdout=subprocess.PIPE
        )
        for name in ("first", "second")
    ]
    (first, sum_of_first), (second, sum_of_second) = (
        json.loads(process.communicate()[0]) for process in processes
    )
    assert first + second == 2 * version.n
    assert sum_of_first == sum_of_second
    assert set(stored_rows(store).values()) == {1}


def chunk_lease(source: FeatureSource, images: Sequence[str]) -> str:
    """The name under which a chunk of pooled features is worked on."""
    spec = FeatureSpec(
        backbone=source.name,
        weights_digest=source.loaded.info.digest,
        preprocessing=source.preprocessing,
        view="identity",
        output="pooled",
        precision=compute.native_precision(),
    )
    return f"features-{spec.digest}-{digest_of(list(images))[:12]}"


def test_what_a_killed_process_left_undone_is_done_when_its_lease_ends(bench: Workbench) -> None:
    source, images = bench.source(config()), bench.splits("shades@1").train.images
    name = chunk_lease(source, images)
    dead = lease.acquire(bench.store, name, "killed:1", 1.0)
    assert dead is not None
    began = time.monotonic()
    pooled(source, images, "none", np.arange(2))
    assert time.monotonic() - began >= 0.5, "it did not wait for the chunk that another one held"
    assert source.computed == len(images)
    assert not list(bench.store.list("leases/")), "leases of chunks that are done are of no use to anybody"


def test_rows_that_come_at_their_pace_are_given_up_only_if_it_is_too_slow(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pace is looked at after every chunk, and each takes a twentieth of a second."""
    monkeypatch.setattr(fill, "_CHUNK", 3)
    monkeypatch.setattr(fill, "_TELLING_S", 0.0)
    values = FeatureSource._values

    def slow(self: FeatureSource, *given: object) -> np.ndarray:
        time.sleep(0.05)
        return values(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(FeatureSource, "_values", slow)
    source, images = bench.source(config(resolution=32)), bench.splits("shades@1").train.images
    assert len(images) >= 9
    pooled(source, images, "none", np.arange(2), deadline=time.time() + 60.0)
    assert source.computed == len(images)

    other, began = bench.source(config(resolution=40)), time.time()
    monkeypatch.setattr(fill, "_LATE", 1e-4)  # as if hardly any time were left
    with pytest.raises(compute.OutOfTime):
        pooled(other, images, "none", np.arange(2), deadline=time.time() + 60.0)
    assert time.time() - began < 30.0
    assert 0 < other.computed < len(images), "what was computed is stored"


def test_waiting_for_another_process_ends_with_the_deadline(bench: Workbench) -> None:
    source, images = bench.source(config()), bench.splits("shades@1").train.images
    assert lease.acquire(bench.store, chunk_lease(source, images), "busy:1", 600.0) is not None
    with pytest.raises(compute.OutOfTime):
        pooled(source, images, "none", np.arange(2), deadline=time.time() + 0.3)
    assert source.computed == 0
    assert source.seconds >= 0.2
