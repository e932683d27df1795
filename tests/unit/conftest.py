"""Unit tests cannot start Ray: whatever needs it belongs into tests/integration.

`tiny` is a whole small history that tests share: two searches whose trials really trained, by the worker's own
code, one after the other in this process, and the two models that came of them.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from autovision.records.datasets import DatasetVersion, Split
from autovision.records.deployments import Capture
from autovision.records.models import ModelVersion
from autovision.records.searches import SearchRequest, SearchStatus
from autovision.space import Choice, Float, Space
from autovision.store import MemoryStore
from autovision.store.protocol import Store

if TYPE_CHECKING:
    from autovision.search.driver import Driver
    from autovision.trial.workbench import Workbench


# How long one example takes on a busy machine says nothing about the code.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a unit test tried to start Ray; move it to tests/integration")

    monkeypatch.setattr(ray, "init", refuse)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """What tests compute is small: threads that wait for each other would cost many times the work."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Converted networks, shared by all tests and forgotten after them: each conversion takes seconds.

    Processes that divide the tests (`-n`) share it, too, as those of a machine do.
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "cache"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


# ------------------------------------------------------------------------------------------------------- S3


@pytest.fixture(scope="session")
def s3_server_url(cache: Path) -> Iterator[str]:
    """A server that speaks S3, in a process of its own, and credentials for it."""
    from autovision.testing.s3_server import s3_server

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTEST0000")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-nobody-may-see")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", str(cache / "no-aws-config"))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(cache / "no-aws-credentials"))
        with s3_server() as url:
            yield url


@pytest.fixture(scope="session")
def make_bucket(s3_server_url: str) -> Callable[[], str]:
    """Makes a new bucket and tells its name."""
    import boto3

    client = boto3.client("s3", endpoint_url=s3_server_url, region_name="us-east-1")
    numbers = itertools.count()

    def make() -> str:
        name = f"bucket-{next(numbers)}"
        client.create_bucket(Bucket=name)
        return name

    return make


# --------------------------------------------------------------------------------------------------- images


def draw(label: int, seed: int, *, shifted: bool = False) -> Image.Image:
    """A square of noise: class 0 redder, class 1 bluer. Shifted: dark and grey, and class 1 has stripes."""
    pixels = np.random.default_rng(seed).integers(60, 160, (72, 72, 3)).astype(np.int16)
    if not shifted:
        pixels[..., 0 if label == 0 else 2] += 70
    else:
        pixels //= 3
        if label == 1:
            pixels[::4, :, 1] += 150
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


CLASSES = ("red", "blue")


def paint(folder: Path, per_class: int, *, seed: int = 0, shifted: bool = False) -> list[Path]:
    """PNG files in class folders, both classes in turn."""
    paths = []
    for i in range(2 * per_class):
        path = folder / CLASSES[i % 2] / f"{seed}-{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(i % 2, 10_000 * seed + i, shifted=shifted).save(path)
        paths.append(path)
    return paths


MARKS = ("blue", "red", "striped")


def paint_marks(folder: Path, n: int, *, seed: int = 0) -> list[tuple[Path, tuple[str, ...]]]:
    """PNG files that show any number of `MARKS`, all sets in turn; (path, marks) of each."""
    made = []
    for i in range(n):
        marks = tuple(mark for bit, mark in enumerate(MARKS) if i >> bit & 1)
        pixels = np.random.default_rng(10_000 * seed + i).integers(40, 120, (72, 72, 3)).astype(np.int16)
        pixels[..., 2] += 100 * ("blue" in marks)
        pixels[..., 0] += 100 * ("red" in marks)
        pixels[::8, :, 1] += 135 * ("striped" in marks)
        path = folder / f"{seed}-{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        made.append((path, marks))
    return made


@pytest.fixture(scope="session")
def paint_images() -> Callable[..., list[Path]]:
    return paint


# -------------------------------------------------------------------------------------------------- searches


class Tiny(Space):
    """Heads on a random network of a few thousand weights."""

    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    taps = 3
    pooling = Choice("avgmax", "avg")
    lr = Float(1e-3, 1e-1, log=True, default=3e-2)
    epochs = 9
    batch_size = 16


@pytest.fixture(scope="session")
def tiny_space() -> Space:
    return Tiny()


def run_alone(driver: Driver) -> None:
    """Do what Tune does with a driver, with one real worker in this process."""
    from autovision.trial.worker import TrialWorker

    worker = TrialWorker.__new__(TrialWorker)  # `Trainable.__init__` asks Ray for this node's address
    begun = False
    while (assignment := driver.next()) is not None:
        config = {"assignment": assignment.model_dump(mode="json")}
        if begun:
            worker.reset_config(config)
        else:
            worker.setup(config)
        begun = True
        while True:
            result = worker.step()
            if not driver.goes_on(assignment.trial, result) or result["done"]:
                break
        driver.ended(assignment.trial)


def search_alone(store: Store, request: SearchRequest, bench: Workbench) -> ModelVersion:
    """A search from its request to its model, without Ray."""
    from autovision.search import requests
    from autovision.search.costing.cost import CostModel
    from autovision.search.driver import Driver
    from autovision.search.finishing.finish import finish
    from autovision.search.warm import starting_points

    requests.submit(store, request)
    space = Space.from_json(request.space)
    driver = Driver(
        store=store,
        request=request,
        space=space,
        cost=CostModel(bench, bench.splits(f"{request.dataset}@{request.dataset_version}")),
        starts=starting_points(store, request, space),
        ledger=[],
        attempt=1,
        deadline=time.time() + request.budget_s,
        search_started=time.time(),
        threads=1,
    )
    run_alone(driver)
    model = finish(store, request, driver.ledger, bench)
    requests.set_state(
        store, request.id, status=SearchStatus.FINISHED, model=model.id, trials=len(driver.ledger)
    )
    return model


@pytest.fixture(scope="session")
def run_search_alone() -> Callable[[Store, SearchRequest, Workbench], ModelVersion]:
    return search_alone


@dataclass(frozen=True)
class History:
    """What the shared store holds: data set `colours`, of which version 2 adds images of another kind."""

    store: MemoryStore
    """never to be written by a test: `copy` it"""
    versions: tuple[DatasetVersion, DatasetVersion]
    searches: tuple[SearchRequest, SearchRequest]
    models: tuple[ModelVersion, ModelVersion]
    """the second one was trained on version 2, and is better on it"""
    space: Space

    def copy(self) -> MemoryStore:
        """A store of one's own with the same objects."""
        return self.store.copy()


@pytest.fixture(scope="session")
def tiny(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> History:
    from autovision.dataset.importer import SourceImage, extend, import_dataset
    from autovision.registry.evaluate import predictions
    from autovision.registry.robustness import corrupted_predictions
    from autovision.search.requests import make_request
    from autovision.trial.workbench import Workbench

    store = MemoryStore()
    folder = tmp_path_factory.mktemp("colours")
    paint(folder / "plain", 60)
    first = import_dataset(store, folder / "plain", "colours", seed=0)
    others = paint(folder / "shifted", 60, seed=1, shifted=True)
    bench, space = Workbench(store, threads=2), Tiny()
    options = {"budget_s": 600.0, "max_trials": 2, "deployment": "door"}
    request = make_request(store, "colours@1", space, **options)
    model = search_alone(store, request, bench)
    second = extend(
        store,
        first,
        [SourceImage(label=path.parent.name, path=path, metadata={"line": "new"}) for path in others],
        seed=0,
    )
    again = make_request(store, "colours@2", space, parent_model=model.id, **options)
    better = search_alone(store, again, bench)
    for version in (first, second):
        for each in (model, better):  # as gates ask for it, so that each test does not do it again
            predictions(store, each.id, version, Split.TEST)
            corrupted_predictions(store, each.id, version, Split.TEST, 100)
    return History(store, (first, second), (request, again), (model, better), space)


@dataclass(frozen=True)
class Scenes:
    """A store with a data set `scenes` whose images have any number of classes, and a model of it."""

    store: MemoryStore
    """never to be written by a test: `copy` it"""
    version: DatasetVersion
    model: ModelVersion
    new: list[tuple[Path, tuple[str, ...]]]
    """images that are not in it, with their classes"""

    def copy(self) -> MemoryStore:
        return self.store.copy()


@pytest.fixture(scope="session")
def scenes(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    from autovision.dataset.importer import SourceImage, import_images
    from autovision.search.requests import make_request
    from autovision.trial.workbench import Workbench

    store, folder = MemoryStore(), tmp_path_factory.mktemp("scenes")
    images = [SourceImage(label=marks, path=path) for path, marks in paint_marks(folder / "old", 160)]
    version = import_images(store, "scenes", images, seed=0)
    request = make_request(store, "scenes", Tiny(), budget_s=600.0, max_trials=2, deployment="door")
    model = search_alone(store, request, Workbench(store, threads=2))
    return Scenes(store, version, model, paint_marks(folder / "new", 40, seed=1))


# ------------------------------------------------------------------------------------------------ production

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def answer(
    store: Store,
    model: str,
    files: list[bytes],
    *,
    seed: int = 0,
    deployment: str = "door",
    dated: bool = False,
    **metadata: str,
) -> list[str]:
    """Let a deployment answer and capture images, a second apart; the id of each request.

    Args:
        dated: ids begin with the time of the request, as a server makes them.
    """
    from autovision.model.predictor import Prediction, Predictor
    from autovision.store import captures, keys

    sent = []
    for i, (data, said) in enumerate(zip(files, Predictor.load(store, model).predict(files), strict=True)):
        assert isinstance(said, Prediction)
        digest = hashlib.sha256(data).hexdigest()
        at = NOON + timedelta(seconds=1000 * seed + i)
        sent.append(
            Capture(
                request_id=keys.derived_id(at, digest) if dated else f"r-{seed}-{i:03d}",
                deployment=deployment,
                model=model,
                received_at=at,
                latency_ms=5.0,
                image=digest,
                image_bytes=len(data),
                label=said.label,
                probabilities=said.probabilities,
                embedding=tuple(said.embedding.tolist()),
                metadata=metadata,
            )
        )
        store.put_immutable(captures.image_key(sent[-1]), data)
    captures.append(store, deployment, sent, at=sent[-1].received_at)
    return [capture.request_id for capture in sent]


def produce(
    store: Store,
    model: str,
    folder: Path,
    n: int,
    *,
    seed: int,
    shifted: bool,
    deployment: str = "door",
    dated: bool = False,
) -> list[tuple[str, str]]:
    """Images that a deployment answered and captured; (request id, true class) of each."""
    paths = paint(folder, n // 2, seed=seed, shifted=shifted)
    files, line = [path.read_bytes() for path in paths], "new" if shifted else "old"
    asked = answer(store, model, files, seed=seed, deployment=deployment, dated=dated, line=line)
    return [(request, path.parent.name) for request, path in zip(asked, paths, strict=True)]


@pytest.fixture(scope="session")
def answer_images() -> Callable[..., list[str]]:
    return answer


@pytest.fixture(scope="session")
def serve_images() -> Callable[..., list[tuple[str, str]]]:
    return produce
