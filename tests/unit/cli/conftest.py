"""Command lines, run in this process as `main` runs them, on a small data set in a store of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from autovision.cli.main import TRACEBACK_VARIABLE, run
from autovision.cli.options import STORE_VARIABLE

START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        """stdout, which must be one JSON document and nothing else."""
        return json.loads(self.out)


Cli = Callable[..., Ran]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (STORE_VARIABLE, TRACEBACK_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run a command line. `at=False` leaves out `--store`."""

    def run_line(*arguments: object, at: bool = True) -> Ran:
        capfd.readouterr()
        store = ["--store", str(tmp_path / "store")] if at else []
        code = run([*map(str, arguments), *store])
        return Ran(code, *capfd.readouterr())

    return run_line


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two classes with 12 images each, all different."""
    folder = tmp_path / "photos"
    for label, red in (("cat", 10), ("dog", 200)):
        (folder / label).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (40, 40), (red, 5 * number, 90)).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture
def at() -> Callable[[float], datetime]:
    """A time so many seconds after the first of March."""
    return lambda seconds: START + timedelta(seconds=seconds)


# --------------------------------------------------------------------- a store in which a search was done


@dataclass(frozen=True)
class World:
    """What a search in this process left behind, without Ray: real trials and a real model."""

    folder: Path
    search: str
    model: str
    photos: Path


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Cats and dogs of two kinds of fur, searched with two trials of a tiny random network."""
    from autovision.api import AutoVision
    from autovision.dataset.importer import SourceImage, import_images
    from autovision.records.searches import SearchStatus
    from autovision.search import requests
    from autovision.search.finishing.finish import finish
    from autovision.search.select import best_trial
    from autovision.space import Choice, Float, Space
    from autovision.trial.workbench import Workbench

    class Tiny(Space):
        backbone = "test_resnet"
        weights = "random"
        resolution = 32
        augmentation = Choice("none", "flip")
        lr = Float(1e-3, 1e-1, default=0.05)
        epochs = 4

    folder = tmp_path_factory.mktemp("searched")
    av = AutoVision(folder / "store")
    sources = [
        SourceImage(label=label, path=path, metadata={"fur": "short" if number % 2 else "long"})
        for label, red in (("cat", 10), ("dog", 220))
        for number in range(64)
        for path in [_photo(folder / "photos" / f"{label}-{number}.png", red, number)]
    ]
    import_images(av.store, "pets", sources, seed=0, positive_class="cat")
    state = av.search("pets", space=Tiny(), budget_s=30, seed=1, max_trials=5, wait=False)
    request, _ = av.search_of(state.search)
    bench = Workbench(av.store, 1)
    ledger = [_trial(av, bench, request, number, lr) for number, lr in enumerate((0.01, 0.05))]
    ledger.append(_failed_trial(av, request, 2))
    model = finish(av.store, request, ledger, bench)
    best = best_trial(ledger)
    assert best is not None
    requests.set_state(
        av.store,
        state.search,
        status=SearchStatus.FINISHED,
        trials=len(ledger),
        spent_s=12.5,
        best_trial=best.trial,
        best_value=best.metrics["accuracy"],
        model=model.id,
    )
    return World(folder / "store", state.search, model.id, folder / "photos")


@pytest.fixture
def world(searched: World, tmp_path: Path) -> World:
    """A copy of it, in the store that `cli` uses."""
    shutil.copytree(searched.folder, tmp_path / "store")
    return World(tmp_path / "store", searched.search, searched.model, searched.photos)


def _photo(path: Path, red: int, number: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (40, 40), (red, 4 * number, 90)).save(path)
    return path


def _trial(av: Any, bench: Any, request: Any, number: int, lr: float) -> Any:
    """Run one trial here, and write it into the ledger as a search's driver does."""
    from autovision.records.base import now
    from autovision.records.trials import CurvePoint, TrialResult, TrialState
    from autovision.space import Space
    from autovision.store import keys, records
    from autovision.trial.trial import Trial, weights_key

    space = Space.from_json(request.space)
    point = {**space.default(), "lr": lr}
    config = space.config(point)
    trial = Trial(bench, f"{request.dataset}@{request.dataset_version}", config, request.seed, 2e9)
    curve = [
        CurvePoint(
            rung=report.rung,
            epoch=report.epoch,
            seconds=report.epoch,
            search_s=10 * number + report.epoch,
            train_loss=report.train_loss,
            metrics=report.metrics,
        )
        for report in trial.run()
    ]
    name, data = f"01-{number:05d}", trial.trained()
    key = weights_key(request.id, name, data)
    av.store.put_immutable(key, data)
    result = TrialResult(
        search=request.id,
        trial=name,
        number=number,
        state=TrialState.COMPLETE,
        config=config.model_dump(mode="json"),
        parameters=point,
        origin="sampled",
        curve=tuple(curve),
        value=curve[-1].metrics["accuracy"] - 0.01 * number,
        metrics=curve[-1].metrics,
        weights_key=key,
        seconds=curve[-1].seconds,
        created_at=now(),
    )
    records.create(av.store, keys.trial(request.id, name), result)
    return result


def _failed_trial(av: Any, request: Any, number: int) -> Any:
    from autovision.records.base import now
    from autovision.records.trials import TrialResult, TrialState
    from autovision.space import Space
    from autovision.store import keys, records

    space = Space.from_json(request.space)
    result = TrialResult(
        search=request.id,
        trial=f"01-{number:05d}",
        number=number,
        state=TrialState.FAILED,
        config=space.config(space.default()).model_dump(mode="json"),
        parameters=space.default(),
        origin="sampled",
        error="Traceback (most recent call last):\n  …\nNotFinite: the loss is not finite at epoch 2",
        created_at=now(),
    )
    records.create(av.store, keys.trial(request.id, result.trial), result)
    return result
