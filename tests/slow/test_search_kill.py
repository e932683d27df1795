"""A search that the command line runs on its own Ray is killed with SIGKILL, piece by piece, and resumed.

The driver, a worker with a running trial, and all of Ray: nothing that had ended is done again, no trial loses more
than a rung, and one that is undisturbed ends with the same trials. Only processes that a test started are killed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from autovision.records.searches import SearchStatus
from autovision.records.trials import TrialResult, TrialState
from autovision.space.config import TrialConfig
from autovision.store import keys
from autovision.trial.train import rung_epochs
from tests.slow.searches import AT_ONCE, IN_ORDER, Killed, Plan, colours, descendants, kill, wait_until

ENDS_S = 120.0
"""a driver whose Ray is gone has ended by then"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colours(tmp_path_factory.mktemp("images"))


def called(process: psutil.Process, name: re.Pattern[str]) -> bool:
    """Whether a process is called so: Ray's say in their command line what they do."""
    try:
        return any(name.fullmatch(each) for each in (process.name(), *process.cmdline()[:1]))
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


AGENTS = re.compile(r"ray::\w+Agent")
"""of Ray, which end by themselves a minute after the raylet; they train nothing"""
AT_WORK = re.compile(r"ray::\w+\.train")
"""the worker of a trial, in the middle of a rung"""
RAYLET, GCS = re.compile("raylet"), re.compile("gcs_server")


# ------------------------------------------------------------------------------------------------------ who dies


def kill_driver(killed: Killed, process: psutil.Popen) -> None:
    ray = descendants(process)
    process.kill()
    process.wait()
    killed.note()  # nobody else writes these records
    try:
        _, alive = psutil.wait_procs([each for each in ray if not called(each, AGENTS)], timeout=60)
        assert not alive, "nobody goes on training without the driver"
    finally:
        kill(ray)


def kill_worker(killed: Killed, process: psutil.Popen) -> None:
    found: list[psutil.Process] = []

    def at_work() -> bool:
        found[:] = [child for child in descendants(process) if called(child, AT_WORK)]
        return bool(found) and any(killed.going().values())

    wait_until(at_work, process)
    killed.note()
    kill(found[:1])
    assert process.wait() == 0, "the search goes on by itself"


def kill_ray(killed: Killed, process: psutil.Popen) -> None:
    ray = descendants(process)
    assert all(any(called(each, name) for each in ray) for name in (RAYLET, GCS))
    killed.note()
    kill(ray)
    process.wait(ENDS_S)
    assert process.returncode != 0


KILLS = [kill_driver, kill_worker, kill_ray]


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[TrialResult]:
    """The ledger of the same search when nobody is killed."""
    search = Killed(IN_ORDER, folder, tmp_path_factory.mktemp("undisturbed"))
    with search.submitted() as process:
        assert process.wait() == 0
    return sorted(search.trials, key=lambda trial: trial.number)


@pytest.fixture(params=KILLS, ids=lambda how: how.__name__)
def how(request: pytest.FixtureRequest) -> Callable[[Killed, psutil.Popen], None]:
    return request.param


def ended(plan: Plan, how: Callable[[Killed, psutil.Popen], None], folder: Path, root: Path) -> Killed:
    """A search that was killed so, resumed, and has ended; whatever the plan is, it lost nothing."""
    killed = Killed(plan, folder, root)
    with killed.submitted() as process:
        wait_until(killed.in_the_middle, process)
        how(killed, process)
    state = killed.resumed() if how is not kill_worker else killed.state
    trials = killed.trials

    most = int(plan.options[plan.options.index("--max-trials") + 1])
    assert state.status is SearchStatus.FINISHED, state.error
    assert state.attempt == (1 if how is kill_worker else 2)
    model = killed.av.model(str(state.model))
    assert model.lineage.trial == state.best_trial == max(trials, key=lambda trial: trial.value or -1.0).trial

    after = killed.lines()
    assert {key: after[key] for key in killed.ledger} == killed.ledger, "what had ended is as it was"
    assert state.trials == len(trials) == most
    assert sorted(trial.number for trial in trials) == list(range(most))
    assert len({TrialConfig.model_validate(trial.config).digest for trial in trials}) == most

    by_id = {trial.trial: trial for trial in trials}
    for trial, curve in killed.begun.items():
        result = by_id[trial]
        assert result.state is not TrialState.FAILED, result.error
        assert result.curve[: len(curve)] == curve, "every rung on record before is there, unchanged"
        # A worker takes only its own trial with it. A head alone has a checkpoint only if it takes long; others train
        # again what takes less than that.
        interrupted = how is not kill_worker or any("a worker was lost" in note for note in result.notes)
        if interrupted and curve and result.curve[len(curve) :] and result.ladder != "probe":
            went_on = [int(note.split()[-1]) for note in result.notes if "went on from a checkpoint" in note]
            assert went_on and went_on[0] >= curve[-1].epoch, (
                f"it lost a rung on record: {result}, had {curve}"
            )
    for trial in trials:
        if trial.state is TrialState.COMPLETE:
            passed = [point.epoch for point in trial.curve]
            assert passed == rung_epochs(trial.config["epochs"]), "no rung is missing, or there twice"

    assert state.spent_s > killed.last_s
    later = {key: trial.curve for key, trial in by_id.items() if key not in killed.begun}
    news = [curve for key, curve in later.items() if keys.trial(killed.search, key) not in killed.ledger]
    assert all(point.search_s > killed.last_s for curve in news for point in curve), "seconds are counted on"
    assert killed.going() == {} and list(killed.av.store.list(keys.checkpoints(killed.search))) == []
    return killed


@pytest.mark.timeout(1500)
def test_in_order_the_same_trials_come_of_it(
    how: Callable[[Killed, psutil.Popen], None], undisturbed: list[TrialResult], folder: Path, tmp_path: Path
) -> None:
    killed = ended(IN_ORDER, how, folder, tmp_path)
    trials = sorted(killed.trials, key=lambda trial: trial.number)
    assert [trial.config for trial in trials] == [trial.config for trial in undisturbed]
    # A worker that is lost is begun again with half of each batch at a time: the same but for rounding.
    exact = how is not kill_worker
    for trial, before in zip(trials, undisturbed, strict=True):
        assert trial.value == (before.value if exact else pytest.approx(before.value, abs=1e-3))
    best = max(undisturbed, key=lambda trial: trial.value or -1.0)
    winner = {trial.trial: trial for trial in trials}[str(killed.state.best_trial)]
    assert (winner.number, winner.config) == (best.number, best.config)


@pytest.mark.timeout(1500)
def test_at_once_nothing_is_lost(
    how: Callable[[Killed, psutil.Popen], None], folder: Path, tmp_path: Path
) -> None:
    ended(AT_ONCE, how, folder, tmp_path)
