"""A whole turn of the loop on a store that can be killed at any write: drift, re-search, rollout, retention.

Searches are simulated: they write what a search writes that matters to the loop, and register a real model.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from autovision import controller as controller_module
from autovision.controller import Controller, Event
from autovision.dataset import catalog
from autovision.errors import AutoVisionError, Conflict
from autovision.model import bundle
from autovision.model.predictor import Predictor
from autovision.model.version import read_version
from autovision.records.base import digest_of
from autovision.records.deployments import CapturePolicy, DriftReport, Label, RetrainingPolicy
from autovision.records.gates import GatePolicy
from autovision.records.rollouts import RolloutPolicy
from autovision.records.searches import SearchState, SearchStatus
from autovision.registry import deployments
from autovision.registry.searches import all_searches
from autovision.retraining import evaluation
from autovision.search import requests
from autovision.store import MemoryStore, captures, keys, labels, lease, records
from autovision.store.fence import FencedStore
from autovision.store.protocol import Store
from autovision.testing.clock import FakeClock
from autovision.testing.mortal import Killed, MortalStore

if TYPE_CHECKING:
    from tests.unit.conftest import History

START = datetime(2026, 6, 1, tzinfo=UTC)
_LEASE_S = 60.0


@dataclass(frozen=True)
class Turn:
    """A turn that nothing disturbed."""

    writes: list[str]
    left: list[MemoryStore]
    """the store before each of them, and at the end"""

    def told(self, number: int) -> str:
        """Where somebody was killed who left `left[number]`."""
        after = f"after {self.writes[number - 1]}, " if number else ""
        before = f"before {self.writes[number]}" if number < len(self.writes) else "at the end"
        return f"killed {after}{before} ({number} of {len(self.writes)})"


@dataclass
class LoopWorld:
    """Deployment `door`, whose line has changed: sixty requests are captured, and forty of them labelled."""

    history: History
    begun: MemoryStore
    """as it is before the turn; never written"""
    lease_clock: FakeClock = field(default_factory=FakeClock)
    at: datetime = START
    lock: Any = field(default_factory=threading.Lock)

    def clock(self) -> datetime:
        """No two looks see the same time: ids are made of it."""
        with self.lock:
            self.at += timedelta(milliseconds=1)
            return self.at

    def fresh(self) -> MemoryStore:
        return self.begun.copy()

    def controller(self, store: Store) -> Controller:
        return Controller(store, clock=self.clock, lease_clock=self.lease_clock)

    def settle(self, store: Store) -> list[Event]:
        """Turn until nothing is left to do, or until killed."""
        return list(self.controller(store).run(once=True))

    def turn(self, store: MemoryStore) -> Turn:
        """Settle, undisturbed, and remember what a kill at any write would have left."""
        left: list[MemoryStore] = []
        mortal = MortalStore(store, before_each=lambda what: left.append(store.copy()))
        self.settle(mortal)
        return Turn(mortal.writes, [*left, store])

    def leases_end(self) -> None:
        self.lease_clock.advance(2 * _LEASE_S)

    def take_over(self, store: MemoryStore) -> None:
        """Settle what somebody left who was killed; its leases outlived it."""
        self.leases_end()
        self.settle(store)

    def killed(self, store: MemoryStore, at: int, *, before: bool) -> None:
        """A controller that dies at a write; its leases outlive it, and end."""
        mortal = MortalStore(store, dies_at=at, before=before)
        with pytest.raises(Killed):
            self.settle(mortal)
        self.leases_end()

    @contextmanager
    def sleeper(self, store: MemoryStore, at: int) -> Iterator[None]:
        """A leader that sleeps within a write, for longer than its leases; at the end of the block it wakes up."""
        mortal = MortalStore(store, sleeps_at=at)
        faults: list[BaseException] = []

        def lead() -> None:
            try:
                self.settle(mortal)
            except BaseException as error:  # noqa: BLE001 - told to the test
                faults.append(error)

        thread = threading.Thread(target=lead)
        thread.start()
        assert mortal.asleep.wait(60), faults
        self.leases_end()
        try:
            yield
        finally:
            begun = len(mortal.writes)
            mortal.awake.set()
            thread.join(60)
        assert not thread.is_alive()
        assert all(isinstance(fault, Conflict) for fault in faults), faults
        # What it had begun is all that came after it woke up.
        assert len(mortal.writes) == begun, mortal.writes[begun:]

    def end(self, store: Store) -> dict[str, Any]:
        """What a turn comes to, without what is drawn anew in each: ids and times."""
        door = deployments.get(store, "door")
        assert door.model is not None
        searches = [pair for pair in all_searches(store) if pair[0].parent_model]
        state = evaluation.read(store, "door").state
        return {
            "versions": [each.digest for each in catalog.versions(store, "colours")],
            "searches": [(r.dataset_version, r.parent_model, r.reason, str(s.status)) for r, s in searches],
            "models": len(list(store.folders(keys.MODELS))),
            "champion of": [door.model == s.model for _, s in searches],
            "previous": door.previous,
            "rollout": door.rollout,
            "revision": door.revision,
            "reports": [
                (each.id, each.alarm) for each in records.read_all(store, keys.reports("door"), DriftReport)
            ],
            "decisions": Counter(
                (str(each.kind), each.accepted, ", ".join(each.numbers.get("reasons", ())))
                for each in deployments.decisions(store, "door")
            ),
            "captures": [each.request_id for each in captures.read(store, "door").captures],
            "images": [*store.list(keys.captured_images("door"))],
            "asked for": state.request is not None,
        }

    def search(self, store: Store, search: str) -> SearchState:
        """Run a search: under its lease, from its state to its model."""
        request, state = requests.get(store, search)
        held = lease.acquire(store, f"search-{search}", "here", _LEASE_S, self.lease_clock)
        if held is None:
            raise Conflict(f"search {search} is being run by another process")
        with held:
            fenced = FencedStore(store, held)
            if requests.get(store, search)[1].status is SearchStatus.FINISHED:
                raise AutoVisionError("a search that is over was run again")
            requests.set_state(fenced, search, status=SearchStatus.RUNNING, attempt=state.attempt + 1)
            like = self.history.models[1]
            lineage = like.lineage.model_copy(
                update={"search": search, "dataset": f"{request.dataset}@{request.dataset_version}"}
            )
            model = like.model_copy(update={"id": f"colours-m-{search[-10:]}", "lineage": lineage})
            files = {
                name: store.get(keys.model_file(like.id, name, digest)).data
                for name, digest in like.files.items()
            }
            bundle.publish(fenced, model, files)
            return requests.set_state(
                fenced,
                search,
                status=SearchStatus.FINISHED,
                model=model.id,
                trials=1,
                best_value=1.0,
                spent_s=30.0,
            )


def _loaded_once(load: Callable[[Store, str], Predictor]) -> Callable[[Store, str], Predictor]:
    """Models of the same files answer alike: each is made ready once, which is a third of what a turn takes."""
    known: dict[str, Predictor] = {}

    def loaded(store: Store, model: str) -> Predictor:
        of = digest_of(dict(read_version(store, model).files))
        if of not in known:
            known[of] = load(store, model)
        return known[of]

    return loaded


def loop_world(
    history: History,
    serve: Callable[..., list[tuple[str, str]]],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> LoopWorld:
    """Its model is served, the line has changed, and the labels are there."""
    store = history.copy()
    for key in list(store.list()):
        if history.searches[1].id in key or key == keys.dataset_version("colours", 2):
            store.delete(key)
    policy = RetrainingPolicy(window=40, min_labels=30, volume_labels=None, budget_s=60.0, max_trials=1)
    deployments.create(store, "door", "colours", history.space.to_json(), policy)
    deployments.set_gate_policy(store, "door", GatePolicy(robustness_margin=None))
    deployments.set_capture_policy(store, "door", CapturePolicy(keep_days=1.0))
    deployments.set_rollout_policy(store, "door", RolloutPolicy(canary=(0.1, 0.5), step_requests=0, step_s=0))
    world = LoopWorld(history, store)
    monkeypatch.setattr(Predictor, "load", staticmethod(_loaded_once(Predictor.load)))
    monkeypatch.setattr(
        controller_module, "run_search", lambda store, search, **options: world.search(store, search)
    )
    first = list(world.controller(store).step_without_search())
    assert [event.stage for event in first] == ["promotion"]
    model = deployments.get(store, "door").model
    assert model == history.models[0].id and read_version(store, model)
    truth = serve(store, model, folder, 60, seed=2, shifted=True, dated=True)
    for request_id, name in truth[:40]:
        labels.add(store, "door", Label(request_id=request_id, label=name, received_at=START))
    for key in list(store.list("leases/")):
        store.delete(key)
    return world
