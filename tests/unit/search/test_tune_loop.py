"""The adapters between Ray Tune and a driver, without Ray."""

from __future__ import annotations

import pickle
import time
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from autovision.search.sharing.placement import placement
from autovision.search.sharing.shares import UNLIMITED
from autovision.search.tune_loop import BudgetStopper, DriverScheduler, DriverSearcher, Room
from autovision.space.config import TrialConfig
from autovision.trial.assignment import Assignment

RUNNING = {"objective": 0.5, "done": False}
DONE = {"objective": 0.6, "done": True}


class Listener:
    """Stands in for a driver: gives what it is told to, and notes what it hears."""

    def __init__(self, *trials: str) -> None:
        self.trials, self.running = list(trials), {}
        self.heard: list[tuple[Any, ...]] = []
        self.answer = True
        self.deadline = time.time() + 60
        self.clock = time.time
        self.pending_first = False
        self.share = lambda: UNLIMITED
        self.waiting = 0
        """of those that run: to be begun again"""

    @property
    def at_work(self) -> int:
        return len(self.running) - self.waiting

    def next(self) -> Assignment | None:
        if not self.trials:
            return None
        trial = self.trials.pop(0)
        self.running[trial] = None
        return Assignment(
            store="memory://s",
            search="s",
            trial=trial,
            number=0,
            dataset="d@1",
            config=TrialConfig(),
            metric="accuracy",
            seed=0,
            deadline=0.0,
            must_report=True,
            search_started=0.0,
            initial_model=None,
            threads=1,
        )

    def goes_on(self, trial: str, result: dict[str, Any]) -> bool:
        self.heard.append(("goes_on", trial, result))
        return self.answer

    def ended(self, trial: str, *, error: str | None = None) -> None:
        self.running.pop(trial, None)
        self.heard.append(("ended", trial, error))

    def lost(self, trial: str, reason: str) -> None:
        self.heard.append(("lost", trial, reason))

    def event(self) -> str:
        return "an event"

    def emit(self, event: str) -> None:
        self.heard.append(("emit", event))


def tune_trial(trial_id: str) -> Any:
    return SimpleNamespace(trial_id=trial_id)


def test_an_assignment_reaches_the_worker_as_plain_data() -> None:
    searcher = DriverSearcher(Listener("01-0"))  # type: ignore[arg-type]
    told = searcher.suggest("tune-a")
    assert isinstance(told, dict)
    assert Assignment.model_validate(told["assignment"]).trial == "01-0"


def test_the_search_ends_when_nothing_is_left_and_nothing_runs() -> None:
    listener = Listener("01-0")
    searcher = DriverSearcher(listener)  # type: ignore[arg-type]
    searcher.suggest("tune-a")
    assert searcher.suggest("tune-b") is None, "what runs may make another trial worth its cost"
    searcher.on_trial_complete("tune-a", DONE)
    assert searcher.suggest("tune-b") == Searcher.FINISHED


def test_a_trial_that_nobody_can_begin_again_does_not_keep_a_search_waiting() -> None:
    listener = Listener()
    listener.running["lost"] = None
    listener.waiting = 1
    searcher = DriverSearcher(listener)  # type: ignore[arg-type]
    assert searcher.suggest("tune-a") == Searcher.FINISHED


def test_nodes_that_join_are_used_and_those_that_leave_are_not_waited_for() -> None:
    cluster, now = [{"CPU": 2.0}], [0.0]
    room = Room(placement(cluster), 1, lambda: cluster, lambda: now[0])
    listener = Listener(*(f"01-{number}" for number in range(6)))
    searcher = DriverSearcher(listener, room)  # type: ignore[arg-type]

    def begun() -> int:
        return sum(isinstance(searcher.suggest(f"tune-{now[0]}-{n}"), dict) for n in range(6))

    assert begun() == 2
    cluster.append({"CPU": 1.0})
    assert begun() == 0, "it looks now and then"
    now[0] = 6.0
    assert begun() == 1
    del cluster[0]
    now[0] = 12.0
    listener.ended("01-0")
    assert begun() == 0
    listener.ended("01-1")
    listener.ended("01-2")
    assert begun() == 1


def test_no_trial_is_begun_beyond_the_share_and_tune_may_ask_again() -> None:
    listener = Listener("01-0", "01-1", "01-2")
    listener.share = lambda: 2
    searcher = DriverSearcher(listener)  # type: ignore[arg-type]
    assert [isinstance(searcher.suggest(name), dict) for name in ("a", "b", "c", "c")] == [
        True,
        True,
        False,
        False,
    ]
    assert listener.trials == ["01-2"], "it was not drawn"
    searcher.on_trial_complete("a", DONE)
    assert isinstance(searcher.suggest("c"), dict)


class Waiting:
    """A trial of Tune's that waits for an actor."""

    status = Trial.PENDING


def controller_of(pending: list[Any], released: list[bool], up: dict[Any, bool]) -> Any:
    """Tune's, as schedulers see it. `up`: trial -> whether the actor that it asked for has its place."""
    return SimpleNamespace(
        get_trials=lambda: pending,
        _tune_controller=SimpleNamespace(
            _cleanup_cached_actors=lambda force_all: released.append(force_all),
            update_max_pending_trials=lambda most: None,
            _trial_to_actor={trial: trial for trial in up},
            _actor_manager=SimpleNamespace(is_actor_started=lambda actor: up[actor]),
        ),
    )


def test_an_idle_actor_is_for_a_trial_that_has_none_coming_up() -> None:
    coming_up, without_a_place, new = Waiting(), Waiting(), Waiting()
    listener = Listener()
    scheduler = DriverScheduler(listener, DriverSearcher(listener))  # type: ignore[arg-type]
    up = {coming_up: True, without_a_place: False}
    assert scheduler.choose_trial_to_run(controller_of([coming_up, new], [], up)) is new
    assert scheduler.choose_trial_to_run(controller_of([coming_up], [], up)) is None
    pending = [coming_up, without_a_place, new]
    assert scheduler.choose_trial_to_run(controller_of(pending, [], up)) is without_a_place


def test_idle_actors_are_let_go_only_when_the_share_is_used_up_and_no_trial_waits_for_one() -> None:
    released: list[bool] = []
    pending: list[Any] = []
    controller = controller_of(pending, released, {})
    listener = Listener("01-0", "01-1")
    listener.share = lambda: 1
    searcher = DriverSearcher(listener)  # type: ignore[arg-type]
    scheduler = DriverScheduler(listener, searcher)  # type: ignore[arg-type]
    assert scheduler.choose_trial_to_run(controller) is None
    assert released == [], "another trial may come"
    searcher.suggest("a")
    assert scheduler.choose_trial_to_run(controller) is None
    assert released == [True]
    pending.append(Waiting())
    assert scheduler.choose_trial_to_run(controller) is pending[0]
    assert released == [True], "what waits may use it"


def test_reports_reach_the_driver_and_its_word_reaches_tune() -> None:
    listener = Listener("01-0")
    searcher = DriverSearcher(listener)  # type: ignore[arg-type]
    scheduler = DriverScheduler(listener, searcher)  # type: ignore[arg-type]
    searcher.suggest("tune-a")
    assert scheduler.on_trial_result(None, tune_trial("tune-a"), RUNNING) == TrialScheduler.CONTINUE
    listener.answer = False
    assert scheduler.on_trial_result(None, tune_trial("tune-a"), RUNNING) == TrialScheduler.STOP
    assert listener.heard == [("goes_on", "01-0", RUNNING)] * 2


def test_the_last_report_is_taken_in_before_the_end() -> None:
    listener = Listener("01-0")
    searcher = DriverSearcher(listener)  # type: ignore[arg-type]
    searcher.suggest("tune-a")
    searcher.on_trial_complete("tune-a", DONE)
    assert listener.heard == [("goes_on", "01-0", DONE), ("ended", "01-0", None)]


def test_a_pruned_trials_last_report_is_not_taken_in_twice() -> None:
    listener = Listener("01-0")
    searcher = DriverSearcher(listener)  # type: ignore[arg-type]
    searcher.suggest("tune-a")
    searcher.on_trial_complete("tune-a", RUNNING)
    assert listener.heard == [("ended", "01-0", None)]


def test_a_lost_worker_is_an_error_and_a_stranger_is_nobody() -> None:
    listener = Listener("01-0")
    searcher = DriverSearcher(listener)  # type: ignore[arg-type]
    searcher.suggest("tune-a")
    searcher.on_trial_complete("tune-x", DONE)
    assert listener.heard == []
    searcher.on_trial_complete("tune-a", None, error=True)
    ((what, trial, reason),) = listener.heard
    assert (what, trial) == ("lost", "01-0")
    assert "worker was lost" in reason


def test_the_stopper_waits_for_trials_to_end_by_themselves_and_for_a_first_value() -> None:
    listener = Listener()
    stopper = BudgetStopper(listener, lambda: False)  # type: ignore[arg-type]
    assert not stopper("tune-a", RUNNING)
    assert not stopper.stop_all()
    listener.deadline = time.time() - 1
    assert not stopper.stop_all(), "within the grace"
    listener.deadline = time.time() - 10
    listener.pending_first = True
    assert not stopper.stop_all()
    listener.pending_first = False
    assert stopper.stop_all()


def test_the_stopper_stops_when_asked_to_and_tells_of_progress_now_and_then() -> None:
    listener, asked = Listener(), [False]
    stopper = BudgetStopper(listener, lambda: asked[0])  # type: ignore[arg-type]
    for _ in range(50):
        assert not stopper.stop_all()
    assert listener.heard == [("emit", "an event")]
    asked[0] = True
    assert stopper.stop_all()


def test_nothing_of_a_search_is_pickled() -> None:
    listener = Listener()
    searcher = DriverSearcher(listener)  # type: ignore[arg-type]
    parts = [searcher, DriverScheduler(listener, searcher), BudgetStopper(listener, lambda: False)]  # type: ignore[arg-type]
    for part in parts:
        assert type(pickle.loads(pickle.dumps(part))) is object
