"""The served model follows the wanted one, and nothing that fails on the way disturbs it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any

import pytest

from autovision.errors import NotFound, StoreUnavailable
from autovision.records.rollouts import Rollout, RolloutPolicy
from autovision.serving.arms import Arms, Wanted
from autovision.serving.follower import UNLOADABLE_ATTEMPTS, Failure, Follower, model_to_load, next_failure
from tests.unit.serving.worlds import until

AT = datetime(2026, 3, 1, tzinfo=UTC)
FAILED_B = Failure("b", 1, "broken", AT + timedelta(seconds=10))


@pytest.mark.parametrize(
    ("desired", "served", "failure", "seconds", "expected"),
    [
        ("a", None, None, 0, "a"),
        ("a", "a", None, 0, None),
        ("b", "a", None, 0, "b"),
        (None, None, None, 0, None),
        (None, "a", None, 0, None),
        ("b", "a", FAILED_B, 9, None),
        ("b", "a", FAILED_B, 10, "b"),
        ("c", "a", FAILED_B, 0, "c"),
        ("a", "a", FAILED_B, 99, None),
    ],
)
def test_what_is_loaded_when(
    desired: str | None, served: str | None, failure: Failure | None, seconds: int, expected: str | None
) -> None:
    loaded = {} if served is None else {served: object()}
    failures = {} if failure is None else {failure.model: failure}
    at = AT + timedelta(seconds=seconds)
    assert model_to_load(Wanted(desired), loaded, failures, at) == expected


def rollout_of(model: str) -> Rollout:
    return Rollout(
        id=f"rollout-of-{model}",
        model=model,
        steps=RolloutPolicy(canary=(0.5,)).steps(),
        false_alarm=0.01,
        error_margin=0.01,
        latency_ratio=2,
        began_at=AT,
        step_began_at=AT,
    )


def test_the_champion_is_loaded_before_a_challenger_and_one_that_fails_holds_up_no_other() -> None:
    wanted = Wanted("a", rollout_of("b"))
    assert model_to_load(wanted, {}, {}, AT) == "a"
    assert model_to_load(wanted, {"a": object()}, {}, AT) == "b"
    assert model_to_load(wanted, {}, {"a": Failure("a", 1, "broken", AT + timedelta(1))}, AT) == "b"
    assert model_to_load(wanted, {"a": object(), "b": object()}, {}, AT) is None


def test_the_pause_between_attempts_doubles_up_to_a_minute_and_starts_anew_for_another_model() -> None:
    failure = None
    pauses = []
    for _ in range(9):
        failure = next_failure(failure, "b", "broken", AT)
        pauses.append((failure.retry_at - AT).total_seconds())
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert failure is not None and failure.attempts == 9
    assert next_failure(failure, "c", "broken", AT).attempts == 1


class World:
    """What is wanted, what loads, and what answers."""

    def __init__(self, make_predictor: Any, clock: Any) -> None:
        self.wanted: str | Exception | None = None
        self.rollout: Rollout | None = None
        self.arms = Arms()
        self.broken: dict[str, Exception] = {}
        self.loads: list[str] = []
        self.serving: list[str] = []
        self.while_loading = lambda: None
        self._make = make_predictor
        self.follower = Follower(self.desired, self.load, self.apply, clock=clock, poll_s=0.01)

    def desired(self) -> Wanted:
        if isinstance(self.wanted, Exception):
            raise self.wanted
        return Wanted(self.wanted, self.rollout)

    def load(self, model: str) -> Any:
        self.loads.append(model)
        self.while_loading()
        if model in self.broken:
            raise self.broken[model]
        return self._make(model)

    def apply(self, arms: Arms) -> None:
        self.arms = arms
        if arms.stable is not None and self.serving[-1:] != [arms.stable.predictor.model.id]:
            self.serving.append(arms.stable.predictor.model.id)

    @property
    def challenger(self) -> str | None:
        return self.arms.challenger.predictor.model.id if self.arms.challenger else None


@pytest.fixture
def world(make_predictor: Any, clock: Any) -> World:
    return World(make_predictor, clock)


def test_it_follows_each_promotion_once(world: World) -> None:
    for wanted in (None, "a", "a", "b", "b", "a"):
        world.wanted = wanted
        world.follower.step()
    assert world.serving == ["a", "b", "a"]
    assert world.loads == ["a", "b"], "what was replaced a moment ago is still there"
    assert world.follower.status.desired == "a"
    assert world.follower.status.error is None


def test_a_model_that_does_not_load_keeps_the_old_one_is_visible_and_is_tried_again(
    world: World, clock: Any
) -> None:
    world.wanted = "a"
    world.follower.step()
    world.wanted, world.broken = "b", {"b": NotFound("no weights of 'b'")}
    world.follower.step()
    world.follower.step()
    status = world.follower.status
    assert world.loads == ["a", "b"], "not again before the pause is over"
    assert (status.desired, status.failed, status.attempts) == ("b", "b", 1)
    assert status.error is not None and "no weights of 'b'" in status.error
    clock.at = status.retry_at
    world.follower.step()
    assert world.follower.status.attempts == 2
    assert world.serving == ["a"]
    world.broken = {}
    clock.at = world.follower.status.retry_at
    world.follower.step()
    assert world.serving == ["a", "b"]
    assert world.follower.status.error is None


def test_rolling_back_a_model_that_does_not_load_clears_the_error(world: World) -> None:
    world.wanted = "a"
    world.follower.step()
    world.wanted, world.broken = "b", {"b": RuntimeError("boom")}
    world.follower.step()
    world.wanted = "a"
    world.follower.step()
    assert world.follower.status.error is None
    assert world.loads == ["a", "b"]


def test_a_store_outage_changes_nothing_but_the_status(world: World) -> None:
    world.wanted = "a"
    world.follower.step()
    world.wanted = StoreUnavailable("the disk is gone")
    world.follower.step()
    assert "the disk is gone" in str(world.follower.status.error)
    assert world.follower.status.desired == "a"
    world.wanted = "b"
    world.follower.step()
    assert world.serving == ["a", "b"]
    assert world.follower.status.error is None


def test_a_promotion_that_is_rolled_back_while_it_loads_is_never_served(world: World) -> None:
    world.wanted = "a"
    world.follower.step()
    world.wanted = "b"

    def roll_back() -> None:
        assert world.follower.status.loading == "b"
        world.wanted = "a"

    world.while_loading = roll_back
    world.follower.step()
    world.follower.step()
    assert world.serving == ["a"]
    assert world.follower.status.loading is None


def test_an_outage_at_the_end_of_loading_does_not_lose_the_new_model(world: World) -> None:
    world.wanted = "b"

    def outage() -> None:
        world.wanted = StoreUnavailable("away")

    world.while_loading = outage
    world.follower.step()
    assert world.serving == ["b"]


def test_a_champion_that_was_replaced_is_forgotten_after_a_while(world: World, clock: Any) -> None:
    for wanted in ("a", "b"):
        world.wanted = wanted
        world.follower.step()
    clock.at += timedelta(seconds=599)
    world.follower.step()
    clock.at += timedelta(seconds=1)
    world.follower.step()
    world.wanted = "a"
    world.follower.step()
    assert world.loads == ["a", "b", "a"]


def test_a_challenger_is_loaded_beside_the_champion_and_takes_its_place_without_loading(world: World) -> None:
    world.wanted, world.rollout = "a", rollout_of("b")
    world.follower.step()
    assert (world.serving, world.challenger, world.arms.rollout) == (["a"], "b", world.rollout)
    since = world.arms.stable
    world.wanted, world.rollout = "b", None
    world.follower.step()
    assert (world.serving, world.challenger, world.loads) == (["a", "b"], None, ["a", "b"])
    assert since is not world.arms.stable


def test_a_rollback_does_not_wait_for_a_challenger_that_loads(world: World) -> None:
    for wanted in ("a", "b"):
        world.wanted = wanted
        world.follower.step()
    may_load = Event()
    world.while_loading = lambda: assert_waited(may_load)
    world.rollout = rollout_of("c")
    stepping = Thread(target=world.follower.step)
    stepping.start()
    until(lambda: world.loads == ["a", "b", "c"])
    world.wanted, world.rollout = "a", None
    until(lambda: world.serving == ["a", "b", "a"])
    assert world.follower.status.loading == "c"
    may_load.set()
    stepping.join(10)
    assert (world.serving, world.challenger, world.follower.status.loading) == (["a", "b", "a"], None, None)


def test_it_stops_while_a_model_loads(world: World) -> None:
    may_load = Event()
    world.while_loading = lambda: assert_waited(may_load)
    world.wanted = "a"
    world.follower.start()
    until(lambda: world.loads == ["a"])
    world.follower.close()
    assert not world.follower.alive and world.serving == []
    may_load.set()


def assert_waited(event: Event) -> None:
    assert event.wait(20)


def test_a_rollout_that_ends_leaves_the_champion_as_it_was(world: World) -> None:
    world.wanted, world.rollout = "a", rollout_of("b")
    world.follower.step()
    stable = world.arms.stable
    world.rollout = None
    world.follower.step()
    assert world.arms == Arms(stable), "not even the time changes since when it answers"


def test_a_challenger_that_does_not_load_is_told_after_some_attempts_and_the_champion_answers(
    world: World, clock: Any
) -> None:
    world.wanted, world.rollout, world.broken = "a", rollout_of("b"), {"b": NotFound("no weights of 'b'")}
    for attempt in range(1, UNLOADABLE_ATTEMPTS + 1):
        world.follower.step()
        assert (world.arms.unloadable is not None) == (attempt == UNLOADABLE_ATTEMPTS)
        clock.at += timedelta(seconds=60)
    assert "no weights of 'b'" in str(world.arms.unloadable)
    status = world.follower.status
    assert (world.serving, world.challenger, status.error) == (["a"], None, None)
    assert "no weights of 'b'" in str(status.challenger_error)


def test_an_outage_while_a_rollout_is_under_way_changes_nothing(world: World) -> None:
    world.wanted, world.rollout = "a", rollout_of("b")
    world.follower.step()
    arms = world.arms
    world.wanted = StoreUnavailable("away")
    world.follower.step()
    assert world.arms is arms


def test_the_thread_polls_and_stops(world: World) -> None:
    swapped = Event()
    world.follower._apply = lambda arms: swapped.set()
    world.follower.start()
    assert world.follower.alive
    world.wanted = "a"
    assert swapped.wait(5)
    world.follower.close()
    assert not world.follower.alive
