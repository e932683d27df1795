"""A trial of two workers on two nodes, one of which is killed: with another node to take its place, and without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

from autovision.records.searches import SearchStatus
from autovision.records.trials import TrialState
from autovision.space import Space
from autovision.store import keys
from tests.slow.searches import Killed, Plan, colours, descendants, wait_until


class Long(Space):
    """So many epochs that there is time to disturb them."""

    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    unfreeze = 1
    optimizer = "sgd"
    lr = 1e-2
    epochs = 80
    batch_size = 4


PLAN = Plan(
    Long(),
    ("--max-trials", "1", "--workers-per-trial", "2", "--no-confirm", "--no-refit", "--no-soup"),
    cpus=2,
    after=0,
)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head of one CPU, beside which the driver runs. Others join."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def raylet(node: Any) -> psutil.Process:
    (found,) = node.all_processes["raylet"]
    return psutil.Process(found.process.pid)


def trains(node: Any) -> bool:
    """Whether a worker of a trial is on the node."""
    for each in descendants(raylet(node)):
        with suppress(psutil.Error):
            if "RayTrainWorker" in " ".join(each.cmdline()):
                return True
    return False


def lose_a_worker(cluster: Cluster, search: Killed, process: psutil.Popen) -> None:
    """Kill a node, not the head, on which a worker of the trial is, once that has a checkpoint."""
    wait_until(lambda: list(search.av.store.list(keys.checkpoints(search.search))), process)
    wait_until(lambda: any(map(trains, cluster.worker_nodes)), process)
    cluster.remove_node(next(node for node in cluster.worker_nodes if trains(node)), allow_graceful=False)


@pytest.mark.timeout(900)
def test_a_trial_goes_on_from_its_checkpoint_on_the_nodes_that_are_left(
    cluster: Cluster, tmp_path: Path
) -> None:
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    search = Killed(PLAN, colours(tmp_path / "images"), tmp_path, cluster.address)
    with search.submitted() as process:
        lose_a_worker(cluster, search, process)
        assert process.wait() == 0
    (trial,) = search.trials
    assert (search.state.status, search.state.attempt) == (SearchStatus.FINISHED, 1)
    assert (trial.state, trial.error) == (TrialState.COMPLETE, None)
    assert "trained by 2 workers" in trial.notes
    assert any("lost" in note for note in trial.notes), trial.notes
    (at,) = [
        int(note.rpartition(" ")[2]) for note in trial.notes if note.startswith("went on from a checkpoint")
    ]
    assert 0 < at < 80
    epochs = [point.epoch for point in trial.curve]
    assert epochs == sorted(set(epochs)) and epochs[-1] == 80
    assert search.going() == {} and not list(search.av.store.list(keys.checkpoints(search.search)))


@pytest.mark.timeout(900)
def test_a_trial_whose_workers_have_no_room_any_more_fails_and_says_so(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    search = Killed(PLAN, colours(tmp_path / "images"), tmp_path, cluster.address)
    with search.submitted() as process:
        lose_a_worker(cluster, search, process)
        code = process.wait()
    (trial,), state = search.trials, search.state
    assert trial.state is TrialState.FAILED
    assert trial.error is not None and "its 2 workers need 1 CPUs each" in trial.error, trial.error
    assert state.attempt == 1 and search.going() == {}
    if trial.curve:  # the weights of the last rung that it passed are kept, and nothing is better
        assert (code, state.status) == (0, SearchStatus.FINISHED)
        assert search.av.model(str(state.model)).lineage.trial == trial.trial == state.best_trial
    else:
        assert code != 0 and state.status is SearchStatus.FAILED
        assert state.error is not None and trial.error in state.error, state.error
