"""A search's process and the controller are killed, one after the other: the search ends with a model all the same."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
from PIL import Image

from autovision import runtime
from autovision.api import AutoVision
from autovision.records.searches import SearchStatus
from autovision.space import Float, Space


class Small(Space):
    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    unfreeze = 1
    lr = Float(1e-4, 1e-1, log=True)
    epochs = 30
    batch_size = 8


@pytest.fixture
def av(tmp_path: Path) -> AutoVision:
    random = np.random.default_rng(0)
    for number in range(140):
        pixels = random.integers(60, 160, (72, 72, 3)).astype(np.uint8)
        pixels[..., 2 * (number % 2)] += 70
        path = tmp_path / "images" / ("red", "blue")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    av = AutoVision(tmp_path / "store")
    av.import_dataset(tmp_path / "images", "colours")
    return av


@pytest.fixture
def controller(av: AutoVision) -> Iterator[psutil.Popen]:
    """`autovision controller run` on a Ray that outlives it."""
    with runtime.connected():
        environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        command = "from autovision.cli.main import main; main()"
        words = ["controller", "run", "--store", av.store.uri]
        with psutil.Popen(
            [sys.executable, "-c", command, *words], env=environment, stderr=subprocess.STDOUT
        ) as ran:
            yield ran
            if ran.is_running():
                ran.kill()


def wait_until(done: Callable[[], object]) -> None:
    """However slow the machine is: the test's own time limit is the end."""
    while not done():
        time.sleep(0.2)


def test_a_search_survives_its_process_and_the_controller(av: AutoVision, controller: psutil.Popen) -> None:
    search = av.search("colours", space=Small(), budget_s=600.0, max_trials=6, wait=False).search
    wait_until(lambda: av.trials(search))
    below = controller.children(recursive=True)
    (process,) = [p for p in below if "autovision.search.job" in p.cmdline()]
    process.kill()
    before = len(av.trials(search))
    wait_until(lambda: len(av.trials(search)) > before)
    assert av.search_of(search)[1].attempt == 2, "another process went on with it"
    assert controller.is_running() and controller.status() != psutil.STATUS_ZOMBIE
    controller.kill()
    controller.wait()
    wait_until(lambda: av.search_of(search)[1].status.terminal)
    _, state = av.search_of(search)
    assert state.status is SearchStatus.FINISHED, state.error
    trials = av.trials(search)
    assert len(trials) == 6
    assert len({trial.number for trial in trials}) == 6, "no trial was repeated"
