"""A challenger takes over step by step, whoever looks, is killed, or wants to change something else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from autovision.errors import Conflict, InvalidInput
from autovision.promotion import rollout
from autovision.records.deployments import Capture, Decision, DecisionKind, Label, ShadowAnswer
from autovision.records.rollouts import (
    LATENCY_EDGES_S,
    ArmCounts,
    ReplicaCounts,
    Rollout,
    RolloutPolicy,
    Stage,
)
from autovision.registry import deployments
from autovision.store import MemoryStore, captures, keys, labels, records

if TYPE_CHECKING:
    from tests.unit.conftest import History

NOW = datetime(2026, 5, 1, tzinfo=UTC)
STEPS = RolloutPolicy(shadow_requests=20, canary=(0.1, 0.5), step_requests=30, step_s=60)


@pytest.fixture
def store(tiny: History) -> MemoryStore:
    """A deployment with a champion, whose challengers go through steps."""
    store = tiny.copy()
    deployments.create(store, "door", "colours", tiny.space.to_json())
    deployments.set_champion(store, "door", tiny.models[0].id, expected=None)
    deployments.set_rollout_policy(store, "door", STEPS)
    return store


@pytest.fixture
def models(tiny: History) -> tuple[str, str]:
    return tiny.models[0].id, tiny.models[1].id


@pytest.fixture
def begun(store: MemoryStore, models: tuple[str, str]) -> Rollout:
    return begin(store, models[1])


def begin(store: MemoryStore, model: str) -> Rollout:
    assert rollout.consider(store, "door", model, clock=lambda: NOW).accepted
    return under_way(store)


def under_way(store: MemoryStore) -> Rollout:
    found = deployments.get(store, "door").rollout
    assert found is not None
    return found


def go_on(store: MemoryStore, seconds: float = 0.0, **options: Any) -> Decision | None:
    return rollout.go_on(store, "door", clock=lambda: NOW + timedelta(seconds=seconds), **options)


def arm(answered: int, failed: int = 0) -> ArmCounts:
    latency = (answered,) + (0,) * len(LATENCY_EDGES_S)
    return ArmCounts(answered=answered, failed=failed, latency=latency)


def tell(store: MemoryStore, begun: Rollout, replica: str, stable: ArmCounts, challenger: ArmCounts) -> None:
    """What a replica has counted by now."""
    counts = ReplicaCounts(
        rollout=begun.id, replica=replica, stable=stable, challenger=challenger, compared=5, agreed=4, at=NOW
    )
    key = keys.replica_counts("door", begun.id, replica)
    _, fresh = records.create_or_read(store, key, counts)
    if not fresh:
        records.update(store, key, ReplicaCounts, lambda before: counts)


def test_it_begins_as_a_shadow_and_the_champion_stays(
    store: MemoryStore, models: tuple[str, str], begun: Rollout
) -> None:
    found = deployments.get(store, "door")
    assert (found.model, begun.model, begun.step.stage) == (*models, Stage.SHADOW)
    (decision,) = deployments.decisions(store, "door")
    assert (decision.id, decision.kind) == (begun.id, DecisionKind.PROMOTE)
    assert len(decision.numbers["steps"]) == 3


def test_it_goes_through_all_steps_to_be_champion(
    store: MemoryStore, models: tuple[str, str], begun: Rollout
) -> None:
    assert go_on(store) is None, "nothing was answered yet"
    tell(store, begun, "one", arm(10), arm(10))
    tell(store, begun, "two", arm(9), arm(9))
    assert go_on(store) is None, "19 of 20"
    tell(store, begun, "two", arm(10), arm(10))
    decision = go_on(store)
    assert decision is not None and decision.kind is DecisionKind.ADVANCE
    assert "answers 10% of the requests" in decision.what and "8 of 10" in decision.why
    assert (under_way(store).at, under_way(store).answered_before) == (1, 20)
    tell(store, begun, "two", arm(200), arm(40))
    assert go_on(store, 59) is None, "it is too early"
    assert go_on(store, 60) is not None
    assert under_way(store).step.share == 0.5
    tell(store, begun, "one", arm(200), arm(40))
    decision = go_on(store, 120)
    assert decision is not None and decision.what == f"{models[1]} is champion"
    found = deployments.get(store, "door")
    assert (found.model, found.previous, found.rollout) == (models[1], (models[0],), None)
    assert go_on(store, 180) is None
    assert len(deployments.decisions(store, "door")) == 4


def test_one_that_fails_is_rolled_back_and_the_champion_never_left(
    store: MemoryStore, models: tuple[str, str], begun: Rollout
) -> None:
    tell(store, begun, "one", arm(500), arm(10, failed=20))
    decision = go_on(store)
    assert decision is not None and decision.kind is DecisionKind.ROLLBACK
    assert decision.what == f"roll back from {models[1]} to {models[0]}"
    assert "20 of 30 requests of the challenger failed" in decision.why
    found = deployments.get(store, "door")
    assert (found.model, found.previous, found.rollout) == (models[0], (), None)


def captured(number: int, model: str, label: str, shadow: ShadowAnswer | None = None) -> Capture:
    at = NOW + timedelta(seconds=number)
    return Capture(
        request_id=keys.timestamped_id(at),
        deployment="door",
        model=model,
        received_at=at,
        latency_ms=1.0,
        image="0" * 64,
        label=label,
        probabilities={"red": 1.0},
        embedding=(),
        shadow=shadow,
    )


def say(store: MemoryStore, request_id: str, label: str) -> None:
    labels.add(store, "door", Label(request_id=request_id, label=label, received_at=NOW))


def test_labels_that_arrive_for_copies_roll_a_shadow_back_that_is_wrong(
    store: MemoryStore, models: tuple[str, str], begun: Rollout
) -> None:
    tell(store, begun, "one", arm(20), arm(20))
    wrong = ShadowAnswer(model=models[1], label="blue", probabilities={"blue": 1.0})
    rows = [captured(number, models[0], "red", wrong) for number in range(1, 21)]
    captures.append(store, "door", rows, at=NOW)
    for row in rows:
        say(store, row.request_id, "red")
    say(store, "20200101T000000.000000-aaaaaa", "red")
    decision = go_on(store)
    assert decision is not None and decision.kind is DecisionKind.ROLLBACK
    assert "the champion alone was right 20 times" in decision.why


def test_labels_of_a_canary_count_for_the_model_that_answered(
    store: MemoryStore, models: tuple[str, str], begun: Rollout
) -> None:
    rows = [captured(n, models[n % 2], "red" if n % 2 == 0 or n % 3 else "blue") for n in range(1, 61)]
    captures.append(store, "door", rows, at=NOW)
    for row in rows:
        say(store, row.request_id, "red")
    found = rollout.evidence.gather(store, deployments.get(store, "door"), begun).judged
    assert (found.stable, found.challenger, found.gained, found.lost) == ((30, 30), (30, 20), 0, 0)


def test_a_person_may_take_a_step_early_but_not_into_harm(
    store: MemoryStore, models: tuple[str, str], begun: Rollout
) -> None:
    decision = go_on(store, at_once=True)
    assert decision is not None and decision.why.startswith("asked for by hand; ")
    assert under_way(store).at == 1
    tell(store, begun, "one", arm(500), arm(10, failed=20))
    decision = go_on(store, at_once=True)
    assert decision is not None and decision.kind is DecisionKind.ROLLBACK


def test_rolling_back_ends_a_rollout_first_and_then_goes_to_the_champion_before(
    store: MemoryStore, models: tuple[str, str], begun: Rollout
) -> None:
    decision = rollout.roll_back(store, "door", clock=lambda: NOW)
    assert decision.what == f"roll back from {models[1]} to {models[0]}"
    assert (deployments.get(store, "door").model, deployments.get(store, "door").rollout) == (models[0], None)
    with pytest.raises(InvalidInput, match="no earlier model"):
        rollout.roll_back(store, "door")


def test_a_policy_that_is_set_while_somebody_rolls_back_is_not_lost(
    store: MemoryStore, begun: Rollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide, policy = deployments.decide, RolloutPolicy(canary=(0.3,))

    def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(deployments, "decide", decide)
        deployments.set_rollout_policy(store, "door", policy)
        return decide(*args)

    monkeypatch.setattr(deployments, "decide", overtaken)
    rollout.roll_back(store, "door", clock=lambda: NOW)
    found = deployments.get(store, "door")
    assert (found.rollout, found.rollout_policy) == (None, policy)


def test_while_one_is_on_its_way_another_one_has_to_wait(
    store: MemoryStore, models: tuple[str, str], begun: Rollout, tiny: History
) -> None:
    other = tiny.models[1].with_(id="other")
    records.create(store, keys.model("other"), other)
    again = rollout.consider(store, "door", models[1], clock=lambda: NOW)
    assert again.what.startswith("nothing to do") and "on its way" in again.why
    with pytest.raises(Conflict, match=f"in the middle of a rollout of '{models[1]}'"):
        rollout.consider(store, "door", "other")
    assert under_way(store) == begun


def test_a_promotion_at_once_does_not_end_a_rollout_that_began_meanwhile(
    store: MemoryStore, models: tuple[str, str]
) -> None:
    def meanwhile() -> datetime:
        """Asked once both are compared."""
        begin(store, models[1])
        return NOW

    with pytest.raises(Conflict, match=f"a rollout of '{models[1]}' has begun by now"):
        rollout.consider(store, "door", models[1], at_once=True, clock=meanwhile)
    assert (deployments.get(store, "door").model, under_way(store).model) == models


def test_steps_are_left_out_on_request_and_for_the_first_model(
    store: MemoryStore, models: tuple[str, str], tiny: History
) -> None:
    rollout.consider(store, "door", models[1], at_once=True)
    assert deployments.get(store, "door").model == models[1]
    deployments.create(store, "gate", "colours", tiny.space.to_json())
    deployments.set_rollout_policy(store, "gate", STEPS)
    rollout.consider(store, "gate", models[0])
    assert deployments.get(store, "gate").model == models[0]


@pytest.mark.parametrize("killed_at", ["begin", "advance", "finish", "roll back"])
def test_whoever_is_killed_after_a_change_leaves_the_decision_with_it(
    store: MemoryStore, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    """The worst moment: the deployment is changed, and the decision is not written down yet."""
    acts: dict[str, Callable[[], object]] = {
        "begin": lambda: begin(store, models[1]),
        "advance": lambda: go_on(store, at_once=True),
        "finish": lambda: go_on(store, at_once=True),
        "roll back": lambda: rollout.roll_back(store, "door", clock=lambda: NOW),
    }
    if killed_at != "begin":
        begin(store, models[1])
    for _ in range(2 if killed_at == "finish" else 0):
        go_on(store, at_once=True)
    record = deployments.record_decision

    def killed(store: MemoryStore, decision: Decision) -> None:
        if not store.exists(keys.decision("door", decision.id)):
            raise KeyboardInterrupt
        record(store, decision)

    before = len(deployments.decisions(store, "door"))
    monkeypatch.setattr(deployments, "record_decision", killed)
    with pytest.raises(KeyboardInterrupt):
        acts[killed_at]()
    monkeypatch.setattr(deployments, "record_decision", record)
    assert len(deployments.decisions(store, "door")) == before + 1
    if killed_at == "roll back":
        begin(store, models[1])
    else:
        rollout.roll_back(store, "door")
    assert len(deployments.decisions(store, "door")) == before + 2, (
        "the next change writes down what was left"
    )


def test_of_many_who_take_the_same_step_one_does(store: MemoryStore, begun: Rollout) -> None:
    tell(store, begun, "one", arm(20), arm(20))
    together, taken, lost = threading.Barrier(8), [], []

    def act() -> None:
        together.wait()
        try:
            taken.append(go_on(store))
        except Conflict as conflict:
            lost.append(conflict)

    threads = [threading.Thread(target=act) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert under_way(store).at == 1
    done = [decision for decision in taken if decision is not None]
    assert len(done) == 1 and len(taken) + len(lost) == 8
    assert [d.kind for d in deployments.decisions(store, "door")] == [
        DecisionKind.PROMOTE,
        DecisionKind.ADVANCE,
    ]


@pytest.mark.parametrize("approval", ["manual", "both"])
def test_a_policy_may_ask_for_a_person(store: MemoryStore, models: tuple[str, str], approval: Any) -> None:
    deployments.set_rollout_policy(store, "door", RolloutPolicy(approval=approval))
    decision = rollout.consider(store, "door", models[1], clock=lambda: NOW)
    assert not decision.accepted and decision.what.startswith("wait for a person's approval")
    assert deployments.get(store, "door").model == models[0]
    assert [waiting.subject for waiting in rollout.waiting(store, "door")] == [models[1]]
    with pytest.raises(InvalidInput, match=f"'nobody' does not wait.*{models[1]}"):
        rollout.approve(store, "door", "nobody", person="ann")
    approved = rollout.approve(store, "door", models[1], person="ann")
    assert approved.numbers["person"] == "ann"
    assert deployments.get(store, "door").model == models[1]
    assert rollout.waiting(store, "door") == []


def test_who_waits_may_be_rejected(store: MemoryStore, models: tuple[str, str]) -> None:
    deployments.set_rollout_policy(store, "door", RolloutPolicy(approval="both"))
    rollout.consider(store, "door", models[1], clock=lambda: NOW)
    decision = rollout.reject(store, "door", models[1], person="ann", clock=lambda: NOW + timedelta(1))
    assert not decision.accepted and "rejected by ann" in decision.why
    assert rollout.waiting(store, "door") == []
    assert deployments.get(store, "door").model == models[0]


def test_with_manual_approval_a_person_overrules_the_gates_and_with_both_only_the_passed_wait(
    store: MemoryStore, models: tuple[str, str]
) -> None:
    worse = models[0]
    deployments.set_champion(store, "door", models[1], expected=models[0])
    deployments.set_rollout_policy(store, "door", RolloutPolicy(approval="both"))
    refused = rollout.consider(store, "door", worse, clock=lambda: NOW)
    assert refused.what.startswith("refuse") and rollout.waiting(store, "door") == []
    deployments.set_rollout_policy(store, "door", RolloutPolicy(approval="manual"))
    rollout.consider(store, "door", worse, clock=lambda: NOW + timedelta(1))
    approved = rollout.approve(store, "door", worse, person="ann", clock=lambda: NOW + timedelta(2))
    assert approved.numbers["overruled"] and approved.accepted
    assert deployments.get(store, "door").model == worse
