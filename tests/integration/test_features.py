"""Frozen features with real processes and a real Ray: killed, concurrent, and helped by tasks."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from autovision.dataset import manifest
from autovision.dataset.importer import import_dataset
from autovision.features import fill, tasks
from autovision.features.compute import FeatureSource, Work
from autovision.features.prefix import Prefix
from autovision.features.views import Views
from autovision.model import backbone as backbones
from autovision.space.config import TrialConfig
from autovision.store import LocalStore, MemoryStore, keys
from autovision.store.protocol import Store

CUT = 2
COLUMNS = np.arange(30)


@pytest.fixture
def store(folder: Path, tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    import_dataset(store, folder, "colours", seed=0)
    return store


def images_in(store: Store) -> list[str]:
    from autovision.dataset import catalog

    return sorted(row.image for row in manifest.read(store, catalog.get(store, "colours@1")))


def source_in(store: Store, **options: object) -> FeatureSource:
    config = TrialConfig(backbone="test_resnet", weights="random", resolution=64)
    loaded, prep = backbones.load(config), backbones.preprocessing(config)
    return FeatureSource(store, loaded, "test_resnet", prep, 1, **options)  # type: ignore[arg-type]


def prefix_of(source: FeatureSource, images: list[str], views: Views) -> Prefix:
    return source.prefix(images, views, cut=CUT, columns=COLUMNS, deadline=math.inf)


def everything(prefix: Prefix) -> np.ndarray:
    """Activation and pooled columns of all images and views, flattened."""
    assert prefix.views is not None
    views, rows = (part.ravel() for part in np.mgrid[0 : prefix.views, 0 : prefix.images])
    activation, pooled = prefix.take(views, rows)
    assert activation is not None
    assert pooled is not None
    return np.concatenate([activation.reshape(len(rows), -1), pooled], 1)


FILLS = """
import math, sys
from pathlib import Path
import numpy as np
from autovision.features import fill
from autovision.features.budget import FeatureBudget
from autovision.features.compute import FeatureSource
from autovision.features.views import Views
from autovision.model import backbone as backbones
from autovision.space.config import TrialConfig
from autovision.store import LocalStore

fill._CHUNK, fill._LEASE_S = 3, 1.0
config = TrialConfig(backbone="test_resnet", weights="random", resolution=64)
prep = backbones.preprocessing(config)
source = FeatureSource(LocalStore(Path(sys.argv[1])), backbones.load(config), "test_resnet", prep, 1)
put = FeatureBudget.put

def told(*args, **options):
    put(*args, **options)
    print("stored", flush=True)

FeatureBudget.put = told
images = Path(sys.argv[2]).read_text().split()
source.prefix(images, Views("flip"), cut=2, columns=np.arange(30), deadline=math.inf)
print("complete", source.computed, flush=True)
"""


def test_killed_and_concurrent_processes_leave_nothing_wrong(store: LocalStore, tmp_path: Path) -> None:
    """Twice two processes fill the same tables, and both are killed at some moment; the last one may end."""
    draw, images = random.Random(0), images_in(store)
    listed = tmp_path / "images.txt"
    listed.write_text("\n".join(images))
    command = [sys.executable, "-c", FILLS, str(store.root), str(listed)]
    for _ in range(2):
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for process in both:
            with process:
                assert process.stdout is not None
                for _ in range(draw.randrange(1, 12)):
                    assert process.stdout.readline() == "stored\n"
                time.sleep(draw.uniform(0.0, 0.02))
                process.kill()
    kept = len(list(store.list(keys.FEATURES)))
    assert kept > 0
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=True
    ).stdout.splitlines()
    assert done[-1].startswith("complete ")
    assert int(done[-1].split()[1]) < 4 * len(images), "what the killed ones had stored is not computed again"
    found = everything(prefix_of(reader := source_in(store), images, Views("flip")))
    assert (reader.computed, reader.take_notes()) == (0, ())
    fresh = MemoryStore()
    for name in images:
        fresh.put_immutable(keys.image(name), store.get(keys.image(name)).data)
    np.testing.assert_array_equal(found, everything(prefix_of(source_in(fresh), images, Views("flip"))))


# ------------------------------------------------------------------------------------------------------- Ray


def work_of(source: FeatureSource, images: list[str]) -> Work:
    specs = tuple(source._activations(Views("flip"), CUT))
    return Work(specs, tuple(images), 4, -(-len(images) // 4), math.inf)


def wait_until_stored(source: FeatureSource, images: list[str]) -> None:
    deadline = time.monotonic() + 120
    while source.missing(images, Views("flip"), CUT):
        assert time.monotonic() < deadline, "no task did the work"
        time.sleep(0.1)


def idle_cpus() -> float:
    return float(ray.available_resources().get("CPU", 0.0))


@pytest.mark.usefixtures("ray_here")
def test_tasks_on_idle_cpus_do_the_work(store: LocalStore) -> None:
    source, images = source_in(store), images_in(store)
    with tasks.idle_workers(source, work_of(source, images)):
        wait_until_stored(source, images)  # nothing is computed here
    assert source.computed == 0
    expected = source_in(MemoryStore())
    for name in images:
        expected.store.put_immutable(keys.image(name), store.get(keys.image(name)).data)
    np.testing.assert_array_equal(
        everything(prefix_of(source, images, Views("flip"))),
        everything(prefix_of(expected, images, Views("flip"))),
    )


@pytest.mark.usefixtures("ray_here")
def test_nobody_waits_for_a_task(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks take seconds to begin: the caller has computed everything by then, and cancels what it asked for."""
    monkeypatch.setattr(fill, "_CHUNK", 4)
    asked: list[int] = []
    submit = tasks._submit

    def counted(source: FeatureSource, work: Work) -> list[ray.ObjectRef]:
        made = submit(source, work)
        asked.append(len(made))
        return made

    monkeypatch.setattr(tasks, "_submit", counted)
    source, images = source_in(store, helpers=tasks.idle_workers), images_in(store)
    prefix_of(source, images, Views("flip"))
    assert asked == [int(ray.cluster_resources()["CPU"])]
    assert source.missing(images, Views("flip"), CUT) == 0
    deadline = time.monotonic() + 60
    while idle_cpus() < ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, "a task was not cancelled"
        time.sleep(0.1)


@ray.remote(num_cpus=1)
def helped(root: str, images: list[str]) -> int:
    """As a trial of Tune: in a placement group that holds its one CPU, and that its tasks would be put into."""
    source = source_in(LocalStore(Path(root)))
    with tasks.idle_workers(source, work_of(source, images)):
        wait_until_stored(source, images)
    return source.computed


@pytest.mark.usefixtures("ray_here")
def test_tasks_of_a_trial_run_outside_its_placement_group(store: LocalStore) -> None:
    group = placement_group([{"CPU": 1}])
    ray.get(group.ready())
    try:
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
        trial = helped.options(scheduling_strategy=strategy).remote(str(store.root), images_in(store))
        assert ray.get(trial, timeout=180) == 0
    finally:
        remove_placement_group(group)


def test_without_ray_or_without_a_shared_store_nobody_is_asked(store: LocalStore) -> None:
    source, images = source_in(store), images_in(store)
    if not ray.is_initialized():
        assert tasks._submit(source, work_of(source, images)) == []
    assert tasks._submit(source_in(MemoryStore()), work_of(source, images)) == []


@pytest.mark.parametrize(
    ("idle", "most", "threads", "expected"),
    [
        ({}, 5, 1, (0, {"num_cpus": 1.0})),
        ({"CPU": 1.6}, 5, 1, (1, {"num_cpus": 1.0})),
        ({"CPU": 8.0}, 5, 4, (5, {"num_cpus": 1.0})),
        ({"CPU": 16.0, "GPU": 2.0}, 5, 8, (2, {"num_cpus": 8.0, "num_gpus": 1.0})),
        ({"CPU": 16.0, "GPU": 4.0}, 1, 8, (1, {"num_cpus": 8.0, "num_gpus": 1.0})),
        ({"CPU": 0.0, "GPU": 1.0}, 3, 8, (0, {"num_cpus": 1.0, "num_gpus": 1.0})),
    ],
)
def test_what_idle_resources_have_room_for(
    idle: dict[str, float], most: int, threads: int, expected: tuple[int, dict[str, float]]
) -> None:
    assert tasks.placement(idle, most, threads) == expected
