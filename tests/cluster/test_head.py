"""The head is killed with SIGKILL while a cluster searches and serves, and starts again: nobody else lifts a hand.

With its records on disk (Ray's RocksDB) the head knows its nodes again. Without, Ray ends all that there was: a node
manager starts the node anew, as KubeRay would, and `autovision serve` and `autovision controller run` come back alone.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from autovision import runtime
from autovision.api import AutoVision
from autovision.errors import AutoVisionError
from autovision.records.searches import SearchState, SearchStatus
from autovision.records.trials import TrialState
from autovision.search.begun import Begun
from autovision.serving.client import Client
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.trial.train import rung_epochs
from tests.cluster.network import GCS_PORT, Network, Node, kept, kill, network, tree, until  # noqa: F401
from tests.integration.conftest import Tiny
from tests.slow.searches import Both, colours

TRIALS = 10
PLAINLY: dict[str, bool] = {"confirm": False, "refit": False, "soup": False}
"""its end is not what this is about"""
AWAY_S = 5.0
"""between the end of the head and its next start"""
EVERY_S = 0.1
"""between two requests"""
STEADY = 30
"""requests in a row that are answered, before anything is lost"""
PORT = 8000


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a champion."""
    root = tmp_path_factory.mktemp("searched")
    av = AutoVision(root / "store")
    av.import_dataset(colours(root / "images"), "colours", seed=0)
    model = av.search("colours", space=Tiny(), budget_s=600.0, max_trials=1, **PLAINLY).model
    assert model is not None
    av.promote(model, "door", force=True)
    runtime.disconnect()
    return root


@pytest.fixture
def av(searched: Path, tmp_path: Path) -> AutoVision:
    shutil.copytree(searched / "store", tmp_path / "store")
    return AutoVision(tmp_path / "store")


@pytest.fixture
def image(searched: Path) -> bytes:
    return next((searched / "images" / "red").glob("*.png")).read_bytes()


@dataclass
class Caller:
    """Asks one request after the other, and never a second time; what became of each."""

    url: str
    image: bytes
    answers: list[tuple[float, float, str]] = field(default_factory=list)
    """when it was sent, when it was answered, and by which model"""
    lost: list[tuple[float, str]] = field(default_factory=list)

    @contextmanager
    def calling(self) -> Iterator[None]:
        over = threading.Event()

        def call() -> None:
            with Client(self.url, timeout_s=120.0, retry_for_s=0.0) as client:
                while not over.wait(EVERY_S):
                    sent = time.monotonic()
                    try:
                        answer = client.predict(self.image)
                    except AutoVisionError as error:
                        self.lost.append((sent, str(error)))
                    else:
                        self.answers.append((sent, time.monotonic(), answer.model))

        thread = threading.Thread(target=call)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @property
    def steady(self) -> bool:
        """Whether the last so many requests were answered."""
        last = self.answers[-STEADY:]
        return len(last) == STEADY and not any(at >= last[0][0] for at, _ in self.lost)

    def since(self, at: float) -> list[tuple[float, float, str]]:
        return [each for each in self.answers if each[0] >= at]


@dataclass
class World:
    """A head without places, a node with them, and what runs on that."""

    av: AutoVision
    network: Network
    storage: Mapping[str, str]
    head: Node
    node: Node
    ray: psutil.Popen
    nodes: list[psutil.Popen]
    caller: Caller
    commands: list[list[psutil.Popen]] = field(default_factory=list)

    def kill_head(self) -> None:
        kill(self.ray)

    def start_head(self) -> None:
        self.ray = self.head.start_ray(0, head=True, environment=self.storage)
        until(self._answers)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((self.head.address, GCS_PORT), 2):
            return True
        return False

    def state(self, search: str) -> SearchState:
        return self.av.search_of(search)[1]

    def lines(self, search: str) -> dict[str, bytes]:
        return {key: self.av.store.get(key).data for key in self.av.store.list(keys.trials(search))}

    def serving(self, app: str) -> dict[int, psutil.Process]:
        """Processes on the node that Ray Serve looks after for an application, by their ids."""
        found = {}
        for each in tree(self.nodes[-1]):
            with suppress(psutil.Error):
                if f"ServeReplica:autovision-{app}" in " ".join(each.cmdline()):
                    found[each.pid] = each
        return found


@contextmanager
def world(
    network: Network,  # noqa: F811
    av: AutoVision,
    image: bytes,
    storage: Mapping[str, str],
) -> Iterator[World]:
    head, node = network.node("head"), network.node("node")
    caller = Caller(f"http://{node.address}:{PORT}", image)
    with ExitStack() as ends:
        made = World(av, network, storage, head, node, psutil.Process(), [], caller)
        made.start_head()
        made.nodes = ends.enter_context(kept(lambda: node.start_ray(3)))
        until(lambda: len(network.alive()) == 2)
        store = ("--store", av.store.uri)
        # On every interface, as the head's node has an edge, too. On a slow machine the first start takes too long.
        words = ("serve", "door", "--host", "0.0.0.0", "--port", str(PORT), "--no-require-token", *store)
        made.commands = [
            ends.enter_context(kept(lambda: node.autovision(*words))),
            ends.enter_context(kept(lambda: node.autovision("controller", "run", *store))),
        ]

        def answered() -> bool:
            with suppress(AutoVisionError), Client(caller.url, retry_for_s=0.0) as client:
                return client.health().status != "waiting"
            return False

        until(answered)
        ends.enter_context(caller.calling())
        until(lambda: caller.steady)
        caller.lost.clear()
        commands = [list(each) for each in made.commands]
        yield made
        assert made.commands == commands, "nobody started a command anew but it itself"


@dataclass(frozen=True)
class Lost:
    """What a lost head left.

    Attributes:
        requests: that nobody answered.
        replica: the process that answered once the head was back, until it was killed.
    """

    search: str
    requests: int
    replica: int


def lose_the_head(world: World, say: Callable[[str], None]) -> Lost:
    """Search, kill the head, start it again; all that was promised holds in the end."""
    av, caller = world.av, world.caller
    search = av.search(
        "colours",
        space=Both(),
        budget_s=1200.0,
        max_trials=TRIALS,
        seed=3,
        wait=False,
        **PLAINLY,
    ).search
    until(lambda: len(world.lines(search)) >= 3)
    until(lambda: any(each.members[0].curve for each in begun(av, search)) or over(world, search))
    assert not over(world, search), "it ended before there was anything to lose"

    before = world.lines(search)
    killed = time.monotonic()
    world.kill_head()
    time.sleep(AWAY_S)
    world.start_head()
    started = time.monotonic()

    until(lambda: len(world.lines(search)) > len(before) or over(world, search))
    another_trial = time.monotonic()
    until(lambda: over(world, search))
    finished = time.monotonic()
    state = world.state(search)
    assert state.status is SearchStatus.FINISHED, state.error
    trials, after = av.trials(search), world.lines(search)
    assert {key: after[key] for key in before} == before, "what had ended is as it was"
    assert sorted(trial.number for trial in trials) == list(range(TRIALS))
    assert len({TrialConfig.model_validate(trial.config).digest for trial in trials}) == TRIALS
    assert begun(av, search) == []
    for trial in trials:
        assert trial.state is not TrialState.FAILED, trial.error
        if trial.state is TrialState.COMPLETE:
            assert [point.epoch for point in trial.curve] == rung_epochs(trial.config["epochs"])

    # It serves, and follows the store.
    av.promote(str(state.model), "door", force=True)
    promoted = time.monotonic()
    until(lambda: any(model == state.model for _, _, model in caller.since(promoted)))
    # Ray Serve looks after it again.
    until(lambda: world.serving("door"))
    gone = next(iter(world.serving("door").values()))
    over_with = time.monotonic()
    kill(gone)
    until(lambda: world.serving("door").keys() - {gone.pid})
    replaced = time.monotonic()
    until(lambda: len(caller.since(replaced)) >= 20)

    early = [(at - killed, said) for at, said in caller.lost if at < killed]
    assert not early, (len(early), early[:2], early[-2:])
    # What is lost with the replica is another thing.
    lost = [at for at, _ in caller.lost if at < over_with]
    last = max(lost, default=killed)
    first_again = min(answered for _, answered, _ in caller.since(last))
    answered = [each for each in caller.since(killed) if each[0] < over_with]
    say(
        f"the head was away for {started - killed:.1f} s; a further trial ended {another_trial - killed:.1f} s after "
        f"the kill, the search {finished - killed:.1f} s (attempt {state.attempt}); "
        f"{len(lost)} of {len(lost) + len(answered)} requests were lost at one every {EVERY_S:g} s and one at a time, "
        f"and none from {first_again - killed if lost else 0:.1f} s after the kill on; the longest time without an "
        f"answer was {longest_gap_s(answered):.1f} s"
    )
    return Lost(search, len(lost), gone.pid)


def longest_gap_s(answers: list[tuple[float, float, str]]) -> float:
    """Between two answers."""
    return max(later - earlier for (_, earlier, _), (_, later, _) in pairwise(answers))


def begun(av: AutoVision, search: str) -> list[Begun]:
    return records.read_all(av.store, keys.begun(search), Begun)


def over(world: World, search: str) -> bool:
    return world.state(search).status not in (SearchStatus.QUEUED, SearchStatus.RUNNING)


@pytest.fixture
def say(
    capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> Callable[[str], None]:
    def said(line: str) -> None:
        record_property("measured", line)
        with capsys.disabled():
            print(f"\n{line}")

    return said


@pytest.mark.timeout(1500)
def test_a_head_that_knows_its_nodes_again_is_not_missed(
    network: Network,  # noqa: F811
    av: AutoVision,
    image: bytes,
    tmp_path: Path,
    say: Callable[[str], None],
) -> None:
    storage = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(tmp_path / "gcs")}
    with world(network, av, image, storage) as made:
        replica, edge = made.serving("door").keys(), made.serving("edge").keys()
        lost = lose_the_head(made, say)
        assert len(made.nodes) == 1, "its node has lived through it"
        assert {lost.replica} == replica, "so has what answers"
        assert made.serving("edge").keys() == edge
        assert lost.requests == 0, made.caller.lost


@pytest.mark.timeout(1500)
def test_a_head_that_has_forgotten_everything_is_followed_by_what_the_store_knows(
    network: Network,  # noqa: F811
    av: AutoVision,
    image: bytes,
    say: Callable[[str], None],
) -> None:
    with world(network, av, image, {}) as made:
        lost = lose_the_head(made, say)
        assert made.state(lost.search).attempt >= 2, "another process went on with it"
        assert len(made.nodes) >= 2, "its node was started anew"
