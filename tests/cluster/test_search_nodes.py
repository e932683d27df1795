"""A search on a cluster that loses its nodes one after the other; several raylets on this machine are the nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from autovision.errors import Interrupted
from autovision.records.searches import LiveSearch, SearchStatus
from autovision.records.trials import TrialState
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound
from autovision.trial.train import rung_epochs
from tests.slow.searches import Both, Killed, Plan, Tunings, colours, wait_until

KILLS = 3
LIVES_S = 2.0
"""of a node, once there is a trial that has ended since the last one was killed"""
PLAN = Plan(Both(), ("--max-trials", "40", "--seed", "3", "--no-confirm"), cpus=3, after=0)
LONG = Plan(Both(), ("--max-trials", "10000", "--seed", "3", "--no-confirm"), cpus=1, after=0)
"""is stopped"""
SHORT = Plan(
    Tunings(),
    ("--max-trials", "60", "--seed", "3", "--no-confirm", "--no-refit", "--no-soup"),
    cpus=3,
    after=0,
)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head and two more nodes, of one CPU each. The driver runs beside the head."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


@pytest.mark.timeout(1500)
def test_nodes_that_are_killed_take_no_ended_trial_with_them(cluster: Cluster, tmp_path: Path) -> None:
    search = Killed(PLAN, colours(tmp_path / "images"), tmp_path, cluster.address)
    kept: dict[str, bytes] = {}
    killed = 0
    with search.submitted() as process:
        while killed < KILLS and process.poll() is None:
            before = len(search.lines())
            wait_until(lambda before=before: len(search.lines()) > before or over(process), process)
            time.sleep(LIVES_S)
            if over(process):
                break
            search.note()
            kept |= search.ledger
            cluster.remove_node(worker_of(cluster), allow_graceful=False)
            killed += 1
            cluster.add_node(num_cpus=1)
        assert process.wait() == 0

    assert killed >= 2, "it ended before there was anything to lose"
    state, trials = search.state, search.trials
    assert state.status is SearchStatus.FINISHED, state.error
    assert state.attempt == 1, "nobody had to resume it"
    after = search.lines()
    assert {key: after[key] for key in kept} == kept, "what had ended is as it was"
    assert sorted(trial.number for trial in trials) == list(range(40))
    assert len({TrialConfig.model_validate(trial.config).digest for trial in trials}) == 40
    assert search.going() == {}
    for trial in trials:
        assert trial.state is not TrialState.FAILED, trial.error
        if trial.state is TrialState.COMPLETE:
            assert [point.epoch for point in trial.curve] == rung_epochs(trial.config["epochs"])


@pytest.mark.timeout(900)
def test_trials_that_are_shorter_than_a_start_of_a_worker_have_one_on_every_node(
    cluster: Cluster, tmp_path: Path
) -> None:
    search = Killed(SHORT, colours(tmp_path / "images"), tmp_path, cluster.address)
    with search.submitted() as process:
        wait_until(lambda: training() == 3, process)
        assert process.wait() == 0
    assert sorted(trial.number for trial in search.trials) == list(range(60))


@pytest.mark.timeout(900)
def test_a_node_that_joins_while_a_search_runs_is_used(tmp_path: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        search = Killed(LONG, colours(tmp_path / "images"), tmp_path, cluster.address)
        with search.submitted() as process:
            wait_until(lambda: bool(search.lines()), process)
            assert at_work(search) <= 1
            cluster.add_node(num_cpus=1)
            wait_until(lambda: at_work(search) == 2, process)
            search.av.stop(search.search)
            assert process.wait() == Interrupted.exit_code
    finally:
        cluster.shutdown()


def at_work(search: Killed) -> int:
    """Trials that a search says it runs; heads that are trained together are one."""
    try:
        return records.read(search.av.store, keys.live_search(search.search), LiveSearch).running
    except KeyNotFound:
        return 0


def training() -> int:
    """Processes that are in the middle of a trial."""
    found = 0
    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += "Trainable.train" in " ".join(each.cmdline())
    return found


def worker_of(cluster: Cluster) -> object:
    """One that is not the head."""
    return next(iter(cluster.worker_nodes))


def over(process: psutil.Popen) -> bool:
    return process.poll() is not None
