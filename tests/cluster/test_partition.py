"""A node that is cut off from the others in the middle of a search, for a moment and for long, and comes back.

All nodes reach the store, also the one that is cut off: what runs there goes on writing while others do its work again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from autovision.api import AutoVision
from autovision.records.searches import SearchStatus
from autovision.records.trials import TrialState
from autovision.search.begun import Begun
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.trial.train import rung_epochs
from tests.cluster.network import Network, Node, network, until  # noqa: F401
from tests.slow.searches import Tunings, colours

TRIALS = 40
"""that last for longer than the workers of all three nodes take to start"""
MOMENT_S = 3.0


@pytest.fixture
def av(tmp_path: Path) -> AutoVision:
    av = AutoVision(tmp_path / "store")
    av.import_dataset(colours(tmp_path / "images"), "colours", seed=0)
    return av


@pytest.fixture
def nodes(network: Network) -> list[Node]:  # noqa: F811
    """A head and two more, of one place each."""
    made = [network.node(name) for name in ("head", "one", "two")]
    made[0].start_ray(1, head=True)
    until(lambda: network.alive() == [made[0].address], pause_s=1.0)
    for node in made[1:]:
        node.start_ray(1)
    until(lambda: len(network.alive()) == 3, pause_s=1.0)
    return made


def begun(av: AutoVision, search: str) -> list[Begun]:
    return records.read_all(av.store, keys.begun(search), Begun)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("how", ["for a moment", "until it is given up"])
def test_a_search_ends_with_its_ledger_though_a_node_is_cut_off(
    network: Network,  # noqa: F811
    nodes: list[Node],
    av: AutoVision,
    how: str,
) -> None:
    search = av.search(
        "colours",
        space=Tunings(),
        budget_s=1200.0,
        max_trials=TRIALS,
        seed=3,
        confirm=False,
        refit=False,
        soup=False,
        wait=False,
    ).search
    head, _, cut = nodes
    process = head.autovision("search", "resume", search, "--store", av.store.uri)

    def lines() -> dict[str, bytes]:
        return {key: av.store.get(key).data for key in av.store.list(keys.trials(search))}

    def goes_on_until(true: Callable[[], object]) -> None:
        until(lambda: true() or process.poll() is not None)
        assert process.poll() is None, head.log.read_text()

    goes_on_until(lambda: len(lines()) >= 2 and sum(not each.paused for each in begun(av, search)) >= 3)
    before = lines()
    cut.cut()
    since = time.monotonic()
    if how == "for a moment":
        time.sleep(MOMENT_S)
    else:
        until(lambda: cut.address not in network.alive(), pause_s=1.0)
        goes_on_until(lambda: len(lines()) > len(before))
    away_s = time.monotonic() - since
    ended = len(lines()) - len(before)
    cut.connect()

    assert process.wait() == 0, head.log.read_text()
    state, trials, after = av.search_of(search)[1], av.trials(search), lines()
    assert (state.status, state.attempt) == (SearchStatus.FINISHED, 1), state.error
    assert {key: after[key] for key in before} == before, "what had ended is as it was"
    assert sorted(trial.number for trial in trials) == list(range(TRIALS))
    assert len({TrialConfig.model_validate(trial.config).digest for trial in trials}) == TRIALS
    assert begun(av, search) == [] and list(av.store.list(keys.checkpoints(search))) == []
    for trial in trials:
        assert trial.state is not TrialState.FAILED, trial.error
        if trial.state is TrialState.COMPLETE:
            assert [point.epoch for point in trial.curve] == rung_epochs(trial.config["epochs"])
        # What a zombie wrote, and what was written in its place, are told apart by their digests.
        assert trial.weights_key is None or av.store.exists(trial.weights_key)
    model = av.model(str(state.model))
    assert model.lineage.trial == state.best_trial
    assert len(av.models()) == 1
    again = [trial for trial in trials if any("a worker was lost" in note for note in trial.notes)]
    print(
        f"\ncut off {how}, {away_s:.1f} s: {ended} trials ended meanwhile, {len(again)} of {TRIALS} were begun again"
    )
    if how != "for a moment":
        # A node that is told that it was given up ends itself; nothing of it goes on.
        until(lambda: not [each for each in cut.processes if alive(each)], pause_s=1.0)


def alive(process: psutil.Popen) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
