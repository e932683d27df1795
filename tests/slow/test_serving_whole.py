"""The server on real Ray Serve: a whole test split asked over HTTP, and replicas that go when there is less to do."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from PIL import Image
from ray import cloudpickle

from autovision import runtime
from autovision.api import AutoVision
from autovision.dataset import catalog
from autovision.records.datasets import Split
from autovision.records.runtimes import EVALUATED
from autovision.registry.evaluate import predictions
from autovision.serving import deploy, scaling
from autovision.serving.client import Client
from autovision.serving.ports import claim_port
from autovision.serving.scaling import Scaling
from autovision.space import Float, Space
from autovision.store import keys
from tests.integration.shades import png, shades_store, under_load, until
from tests.integration.test_serving import slow_load

# Replicas cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ORIENTATION = 0x0112
NEARLY = 1e-3
"""lanes and batches round differently"""


class Tiny(Space):
    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    lr = Float(1e-3, 1e-1, log=True)
    epochs = 9
    batch_size = 16


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def encoded(pixels: np.ndarray, number: int) -> tuple[str, bytes]:
    """A file of one of the kinds that cameras, scanners and people make of grey pixels, (H, W) uint8."""
    sink, grey = io.BytesIO(), Image.fromarray(pixels)
    exif = Image.Exif()
    kinds: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("png", grey, {}),
        ("png", grey.convert("RGB"), {}),
        ("png", grey.convert("RGBA"), {}),
        ("png", grey.convert("P"), {}),
        ("png", Image.fromarray(pixels.astype(np.uint16) * 257), {}),
        ("jpeg", grey, {"quality": 90}),
        ("jpeg", grey.convert("RGB"), {"quality": 80}),
        ("jpeg", grey.convert("CMYK"), {"quality": 95}),
        # Held upright, and stored as the sensor lies.
        ("jpeg", grey.convert("RGB").rotate(90, expand=True), {"quality": 90, "exif": exif}),
        ("webp", grey.convert("RGB"), {"quality": 90}),
        ("bmp", grey.convert("RGB"), {}),
        ("tiff", grey.convert("RGB"), {}),
    ]
    exif[ORIENTATION] = 6
    name, image, options = kinds[number % len(kinds)]
    image.save(sink, name, **options)
    return name, sink.getvalue()


def stripes(folder: Path, number: int) -> Path:
    """Class folders of lying and standing stripes, of all sizes and kinds of file."""
    random = np.random.default_rng(0)
    for at in range(number):
        height, width = random.integers(40, 260, 2)
        standing = bool(random.integers(2))
        across = np.arange(width)[None, :] if standing else np.arange(height)[:, None]
        waves = 60 * np.sin(across / random.uniform(2, 6) + random.uniform(0, 6))
        pixels = np.broadcast_to(127 + waves, (height, width)) + random.normal(0, 25, (height, width))
        name, data = encoded(np.clip(pixels, 0, 255).astype(np.uint8), at)
        path = folder / ("lying", "standing")[standing] / f"{at}.{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[AutoVision, str]:
    """A store, and a model in it that was searched for."""
    folder = tmp_path_factory.mktemp("whole")
    av = AutoVision(folder / "store")
    av.import_dataset(stripes(folder / "images", 360), "stripes")
    with runtime.connected():
        search = av.search("stripes", space=Tiny(), budget_s=240, max_trials=1)
    assert search.model is not None
    return av, search.model


def test_what_is_answered_over_http_is_what_was_evaluated(
    trained: tuple[AutoVision, str], cluster: None
) -> None:
    av, model = trained
    said = predictions(av.store, model, catalog.get(av.store, "stripes"), Split.TEST)
    assert len(said) >= 40
    classes = av.model(model).classes
    with (
        deploy.start(av.store.uri, model=model, port=0, runtime=EVALUATED, cpus=0.5) as server,
        Client(server.url) as client,
    ):
        images = [av.store.get(keys.image(digest)).data for digest in said.images]
        answers = [client.predict(data) for data in images]
        together = [
            each for at in range(0, len(images), 16) for each in client.predict_all(images[at : at + 16])
        ]
    expected = said.probabilities
    for found in (answers, together):
        probabilities = np.array([[answer.probabilities[name] for name in classes] for answer in found])
        assert np.abs(probabilities - expected).max() <= NEARLY
        sure = np.abs(np.diff(expected, axis=1)[:, 0]) > 2 * NEARLY
        labels = np.array([classes.index(answer.label) for answer in found])
        assert (labels == said.decided.argmax(axis=1))[sure].all()
    assert expected.std() > 0.02, "a model that says the same of all images would prove nothing"


@pytest.mark.parametrize(("whom", "code"), [("it alone", 0), ("all", 7)])
def test_a_server_that_is_told_to_end_does_so_soon(
    trained: tuple[AutoVision, str], tmp_path: Path, whom: str, code: int
) -> None:
    """Also where the signal ends its Ray at the same time, as systemd sends it: nothing is waited for then."""
    av, model = trained
    command = [
        Path(sys.executable).with_name("autovision"),
        "serve",
        model,
        "--port",
        str(claim_port("127.0.0.1", 0)),
    ]
    with (tmp_path / "said").open("w+") as said:
        process = subprocess.Popen(
            [*command, "--store", av.store.uri], stdout=said, stderr=said, start_new_session=True
        )
        try:
            told = Path(said.name).read_text
            until(lambda: "Ctrl-C stops it" in told(), "that it serves", timeout_s=120)
            children = psutil.Process(process.pid).children(recursive=True)
            (os.kill if whom == "it alone" else os.killpg)(process.pid, signal.SIGTERM)
            assert process.wait(40) == code
            assert not psutil.wait_procs(children, timeout=20)[1], "nothing is left running"
        finally:
            process.kill()
            process.wait()
    assert "stopping; requests under way are answered" in told()
    assert ("KillMode=mixed" in told()) == (whom == "all")
    assert "Traceback" not in told()


def test_a_replica_that_is_no_longer_needed_goes_and_no_request_fails(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autovision.serving.applications.DOWN_AFTER_S", 6.0)
    assert scaling.DOWN_AFTER_S > 30, "it is not for a moment's pause that a replica goes"
    store = shades_store(tmp_path / "store")
    with (
        deploy.start(
            store.uri, model="shades-1", port=0, load=slow_load, scaling=Scaling(1, 2), cpus=0.5
        ) as server,
        Client(server.url) as client,
    ):

        def answering() -> int:
            # Each has a name of its own, and the edge sends to the one with less to do.
            return len({client.info().replica for _ in range(6)})

        under_load(server.url, lambda: until(lambda: answering() == 2, "a second replica", timeout_s=90))

        def asked_now_and_then() -> bool:
            assert client.predict(png(255)).label == "bright"
            return len(replicas()) == 1

        until(asked_now_and_then, "the end of the second replica", timeout_s=120)
        assert answering() == 1


def replicas() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ServeReplica:autovision-shades-1:ModelServer" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            pass  # it ended meanwhile
    return found
