"""Searches that are killed in the middle: what is searched, and what was on record before and after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from autovision.api import AutoVision
from autovision.errors import Conflict
from autovision.records.searches import SearchState
from autovision.records.trials import CurvePoint, TrialResult
from autovision.search.begun import Begun
from autovision.space import Choice, Float, Integer, Space
from autovision.store import keys, records

COMMAND = """
import functools, sys, ray
ray.init = functools.partial(ray.init, num_cpus=int(sys.argv.pop(1)))
from autovision.cli.main import main
main()
"""
"""`autovision`, on a Ray of so many CPUs, whatever the machine has"""


class Tunings(Space):
    """Of one kind, so that only the sampler decides what is tried: nothing depends on what anything takes."""

    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    unfreeze = 1
    lr = Float(1e-5, 1e-1, log=True)
    dropout = Float(0.0, 0.6)
    epochs = 18
    batch_size = 16


class Both(Space):
    """Heads, trained together, and fine-tunings, which are paused and promoted."""

    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    unfreeze = Choice(0, 1)
    lr = Float(1e-5, 1e-1, log=True)
    epochs = Integer(18, 27)
    batch_size = 16


@dataclass(frozen=True)
class Plan:
    """A search to be killed: its space, the options of its command, Ray's CPUs, and after how many trials."""

    space: Space
    options: tuple[str, ...]
    cpus: int
    after: int


IN_ORDER = Plan(Tunings(), ("--max-trials", "11", "--scheduler", "none", "--seed", "3"), cpus=1, after=9)
"""its ninth trial is past those that are drawn at random: what is drawn depends on what was told"""
AT_ONCE = Plan(
    # Heads that are judged once more on other images may win though another has the best value.
    Both(),
    ("--max-trials", "12", "--scheduler", "halving", "--seed", "3", "--no-confirm"),
    cpus=2,
    after=2,
)


def colours(root: Path) -> Path:
    """Class folders with 70 images each, one a little bluer than the other: no model is always right at once."""
    for number in range(140):
        pixels = np.random.default_rng(number).integers(60, 160, (72, 72, 3)).astype(np.uint8)
        pixels[..., 2] += 2 * (number % 2)
        path = root / ("red", "blue")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


class Killed:
    """A search in a store of its own, the process that runs it, and what was on record before the kill.

    Args:
        address: of the Ray it runs on; None: one of its own.
    """

    def __init__(self, plan: Plan, folder: Path, root: Path, address: str | None = None) -> None:
        self.plan = plan
        self._address = address
        self.av = AutoVision(root / "store")
        self.av.import_dataset(folder, "colours", seed=0)
        self._space = root / "space.json"
        self._space.write_text(json.dumps(plan.space.to_json()))
        self.search = ""
        self.ledger: dict[str, bytes] = {}
        self.begun: dict[str, tuple[CurvePoint, ...]] = {}

    # --------------------------------------------------------------------------------------------- running

    @contextmanager
    def submitted(self) -> Iterator[psutil.Popen]:
        words = ["search", "submit", "colours", "--space", str(self._space), "--budget-s", "1200", "--wait"]
        with self._running([*words, *self.plan.options]) as process:
            wait_until(lambda: self.av.searches(), process)
            self.search = self.av.searches()[0][0].id
            yield process

    def resumed(self) -> SearchState:
        """Resume it, again and again while the lease of the killed process lasts."""
        while True:
            with self._running(["search", "resume", self.search]) as process:
                code = process.wait()
            if code != Conflict.exit_code:
                break
            time.sleep(1.0)
        assert code == 0
        return self.state

    @contextmanager
    def _running(self, words: list[str]) -> Iterator[psutil.Popen]:
        command = [sys.executable, "-c", COMMAND, str(self.plan.cpus)]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        if self._address is not None:
            command = [sys.executable, "-m", "autovision"]
            environment["RAY_ADDRESS"] = self._address
        command += [*words, "--store", self.av.store.uri]
        with psutil.Popen(command, stderr=subprocess.STDOUT, env=environment) as process:
            try:
                yield process
            finally:
                kill([process, *descendants(process)])

    # ----------------------------------------------------------------------------------- what is on record

    @property
    def state(self) -> SearchState:
        return self.av.search_of(self.search)[1]

    @property
    def trials(self) -> list[TrialResult]:
        return self.av.trials(self.search)

    def going(self) -> dict[str, tuple[CurvePoint, ...]]:
        """Trials that were begun and have not ended, each with its rungs."""
        begun = records.read_all(self.av.store, keys.begun(self.search), Begun)
        return {member.trial: member.curve for each in begun for member in each.members}

    def in_the_middle(self) -> bool:
        """Whether so many trials have ended, and one that has not is past a rung."""
        return len(self.lines()) >= self.plan.after and any(self.going().values())

    def lines(self) -> dict[str, bytes]:
        return {key: self.av.store.get(key).data for key in self.av.store.list(keys.trials(self.search))}

    def note(self) -> None:
        self.ledger, self.begun = self.lines(), self.going()

    @property
    def last_s(self) -> float:
        """The search's second at which the last rung on record was over."""
        ended = [TrialResult.model_validate_json(line).curve for line in self.ledger.values()]
        return max(point.search_s for curve in [*ended, *self.begun.values()] for point in curve)


def wait_until(done: Callable[[], object], process: psutil.Popen) -> None:
    """However slow the machine is: the test's own time limit is the end."""
    while not done():
        assert process.poll() is None, f"it ended with {process.returncode} meanwhile"
        time.sleep(0.05)


def descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=30)
