"""Trials of two workers, with a real Ray: searched, compared with one worker, killed, pruned, stopped, refused."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load

from autovision.api import AutoVision
from autovision.errors import Interrupted, InvalidInput
from autovision.records.searches import SearchState, SearchStatus
from autovision.records.trials import TrialResult, TrialState
from autovision.search.begun import Begun
from autovision.search.schedulers import Halving, Verdict
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.trial.assignment import Assignment
from autovision.trial.execution import Execution
from autovision.trial.workbench import Workbench

BUDGET_S = 900.0
"""not used up: so long even a busy machine does not take"""


class Fine(Space):
    """Stages of a small random network, unfrozen."""

    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    unfreeze = 1
    optimizer = "sgd"
    mixup = 0.4
    dropout = 0.2
    lr = 1e-2
    epochs = 9
    batch_size = 16


class Long(Fine):
    """So many epochs that there is time to disturb them."""

    epochs = 80
    batch_size = 4


@pytest.fixture(scope="module")
def av(ray_here: None, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AutoVision:
    av = AutoVision(tmp_path_factory.mktemp("distributed") / "store")
    av.import_dataset(folder, "colours", seed=0)
    return av


def search(av: AutoVision, space: Space, *, workers: int = 2, **options: object) -> SearchState:
    return av.search(
        "colours", space=space, budget_s=BUDGET_S, max_trials=1, workers_per_trial=workers, **options
    )  # type: ignore[arg-type]


TRAIN_WORKER = "RayTrainWorker"


def train_workers() -> list[psutil.Process]:
    """The processes that train together."""
    return processes(TRAIN_WORKER)


def processes(name: str) -> list[psutil.Process]:
    """Ray's processes of that name."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any(name in word for word in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_until(done: Callable[[], object]) -> None:
    """However slow the machine is: the test's own time limit is the end."""
    while not done():
        time.sleep(0.1)


def kill_one(name: str) -> None:
    """Of Ray's processes of that name: as soon as there is one, for one that is changing its title has no name."""
    found: list[psutil.Process] = []

    def seen() -> list[psutil.Process]:
        found[:] = processes(name)
        return found

    wait_until(seen)
    os.kill(found[0].pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def ended(av: AutoVision) -> tuple[SearchState, TrialResult]:
    """A search of one trial of two workers."""
    state = search(av, Fine())
    (result,) = av.trials(state.search)
    return state, result


def test_a_search_with_two_workers_per_trial_ends_with_a_model(
    av: AutoVision, ended: tuple[SearchState, TrialResult]
) -> None:
    state, result = ended
    assert state.status is SearchStatus.FINISHED
    assert state.model is not None and av.model(state.model).metrics["test"].accuracy.value > 0.9
    assert (result.state, result.error, result.notes) == (
        TrialState.COMPLETE,
        None,
        ("trained by 2 workers",),
    )
    assert [(point.rung, point.epoch) for point in result.curve] == [(0, 1), (1, 3), (2, 9)]
    assert 0 < result.feature_s < result.seconds < state.spent_s


def test_one_worker_gives_what_two_gave(av: AutoVision, ended: tuple[SearchState, TrialResult]) -> None:
    _, result = ended
    task = Assignment(
        store=av.store.uri,
        search="alone",
        trial="alone",
        number=0,
        dataset="colours@1",
        config=TrialConfig.model_validate(result.config),
        metric="accuracy",
        seed=result.seed,
        deadline=time.time() + BUDGET_S,
        must_report=True,
        search_started=time.time(),
        initial_model=None,
        threads=1,
    )
    execution, reports = Execution(Workbench(av.store, 1), task), []
    while not reports or not reports[-1]["done"]:
        reports.append(execution.step())
    alone = [json.loads(report["point"]) for report in reports]
    assert [point["train_loss"] for point in alone] == pytest.approx(
        [point.train_loss for point in result.curve], rel=1e-4
    )
    for mine, theirs in zip(alone, result.curve, strict=True):
        assert mine["metrics"] == pytest.approx(theirs.metrics, rel=1e-4)
    assert result.weights_key is not None
    weights = load(av.store.get(result.weights_key).data)
    for name, tensor in load(av.store.get(reports[-1]["weights_key"]).data).items():
        np.testing.assert_allclose(tensor, weights[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_killed_worker_goes_on_from_the_checkpoint(av: AutoVision) -> None:
    state = search(av, Long(), wait=False)

    def kill() -> None:
        wait_until(lambda: list(av.store.list(keys.checkpoints(state.search))))
        kill_one(TRAIN_WORKER)

    killer = threading.Thread(target=kill)
    killer.start()
    state = av.resume(state.search)
    killer.join()
    (result,) = av.trials(state.search)
    assert (state.status, result.state, result.error) == (SearchStatus.FINISHED, TrialState.COMPLETE, None)
    first, second, third = result.notes
    assert first == "trained by 2 workers"
    assert second == "a worker was lost, and all were started again"
    assert third.startswith("went on from a checkpoint after epoch ")
    assert 0 < int(third.rpartition(" ")[2]) < 80
    epochs = [point.epoch for point in result.curve]
    assert epochs == sorted(set(epochs)) and epochs[-1] == 80
    assert not list(av.store.list(keys.checkpoints(state.search)))


def test_a_trial_of_one_worker_that_was_killed_is_begun_once_more(av: AutoVision) -> None:
    state = search(av, Long(), workers=1, seed=3, wait=False)

    def kill() -> None:
        kept = f"{keys.SEARCHES}{state.search}/weights/"
        wait_until(lambda: list(av.store.list(kept)))
        kill_one("ResourceTrainable")  # what Tune makes of a `TrialWorker`

    killer = threading.Thread(target=kill)
    killer.start()
    state = av.resume(state.search)
    killer.join()
    (result,) = av.trials(state.search)
    assert (state.status, result.state, result.error) == (SearchStatus.FINISHED, TrialState.COMPLETE, None)
    assert result.notes[0] == (
        "a worker was lost, and the trial was begun again, each batch in 2 parts for less memory"
    )
    assert [point.rung for point in result.curve] == [0, 1, 2]


def test_pruning_ends_the_workers(av: AutoVision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Halving, "judge", lambda self, report: Verdict.STOP)
    state = search(av, Long(), seed=1)
    (result,) = av.trials(state.search)
    assert (result.state, len(result.curve), result.error) == (TrialState.PRUNED, 1, None)
    assert state.model is not None, "what was trained before is kept"
    wait_until(lambda: not train_workers())


def test_a_stop_ends_the_workers_in_the_middle_of_training(av: AutoVision) -> None:
    state = search(av, Long(), seed=2, wait=False)
    with pytest.raises(Interrupted):
        av.resume(
            state.search,
            should_stop=lambda: bool(list(av.store.list(keys.checkpoints(state.search)))),
        )
    wait_until(lambda: not train_workers())
    assert av.trials(state.search) == [], "it is not over"
    (begun,) = records.read_all(av.store, keys.begun(state.search), Begun)
    assert list(av.store.list(keys.checkpoints(state.search))), "and goes on from its checkpoint"
    assert not begun.paused


def test_more_workers_than_the_cluster_has_room_for_are_refused(av: AutoVision) -> None:
    with pytest.raises(
        InvalidInput, match=r"1000 workers per trial need 1000 CPUs at once, .* cluster has \d+"
    ):
        search(av, Fine(), workers=1000)
