"""Ray Tune as the executor of a driver's decisions: three thin adapters and one call of `Tuner.fit`."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from autovision.errors import AutoVisionError
from autovision.search import tune_actors
from autovision.search.driver import Driver
from autovision.search.sharing.placement import Placement, placement, room
from autovision.search.sharing.shares import UNLIMITED
from autovision.trial.group import TrialGroup
from autovision.trial.worker import TrialWorker

log = logging.getLogger(__name__)

_GRACE_S = 3.0
"""trials end by themselves at the deadline; whoever has not by then is stopped"""

_LOOK_S = 5.0
"""between two looks at the cluster's nodes"""
_TRIAL_BYTES = 500e6
"""what the process of a trial of several workers takes; Tune wants a trial to take something"""


class ExecutorLost(AutoVisionError):
    """Ray Tune broke off; the search goes on from what is stored once it is resumed."""

    exit_code = 7


class Room:
    """How many trials the cluster has room for, looked up now and then: nodes come and go while a search runs.

    What each worker takes stays as it was when the search began.
    """

    def __init__(
        self,
        place: Placement,
        workers: int,
        look: Callable[[], Sequence[Mapping[str, float]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place, self._workers, self._look, self._clock = place, workers, look, clock
        self._trials, self._looked = place.concurrent, clock()

    def __call__(self) -> int:
        if self._clock() - self._looked > _LOOK_S:
            self._looked = self._clock()
            self._trials = room(self._look(), self._place, self._workers)
        return self._trials


class _NeverPickled:
    """Tune pickles its parts into snapshots that nobody reads here: the ledger is what a search is rebuilt from."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()


class DriverSearcher(_NeverPickled, Searcher):  # type: ignore[misc]
    """Asks the driver for trials, and tells it how they ended.

    Args:
        room: how many trials may be at work at once, however large the search's share is.
    """

    def __init__(self, driver: Driver, room: Callable[[], int] = lambda: UNLIMITED) -> None:
        super().__init__(metric="objective", mode="max")
        self._driver, self._room = driver, room
        self.names: dict[str, str] = {}
        """Tune's trial id -> ours"""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._driver.at_work >= min(self._driver.share(), self._room()):
            return None  # Tune asks again
        assignment = self._driver.next()
        if assignment is None:
            # A trial that runs may make another one worth its cost; without one, nothing will. Tune waits for minutes
            # where it has no trial, so one that only waits to be begun again must not count.
            return None if self._driver.at_work else Searcher.FINISHED
        self.names[trial_id] = assignment.trial
        return {"assignment": assignment.model_dump(mode="json")}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if trial_id in self.names:
            if result and result.get("done") and result.get("outcome") != "running":
                # The last report of a trial that ends by itself does not pass the scheduler: Tune hands it over
                # here alone. That of a trial which the scheduler stopped did pass it, and comes as done once more.
                self._driver.goes_on(self.names[trial_id], result)
            if error:
                self._driver.lost(self.names[trial_id], "the worker was lost; see Ray's logs for the cause")
            else:
                self._driver.ended(self.names[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger in the store is what a search is rebuilt from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


class DriverScheduler(_NeverPickled, FIFOScheduler):  # type: ignore[misc]
    """Passes every rung to the driver, stops what it prunes, and leaves trials to the actors that come up for them."""

    def __init__(self, driver: Driver, searcher: DriverSearcher) -> None:
        super().__init__()
        self._driver, self._searcher = driver, searcher

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        tune_actors.start_several(tune_controller)
        for trial in tune_controller.get_trials():
            if trial.status == Trial.PENDING and not tune_actors.starts(tune_controller, trial):
                return cast(Trial, trial)
        if self._driver.at_work >= self._driver.share():
            tune_actors.release(tune_controller)
        return None

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        goes_on = self._driver.goes_on(self._searcher.names.get(trial.trial_id, ""), result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)


class BudgetStopper(_NeverPickled, Stopper):  # type: ignore[misc]
    """Stops everything after the deadline, or when asked to; called in every turn of Tune's loop."""

    def __init__(self, driver: Driver, should_stop: Callable[[], bool]) -> None:
        self._driver, self._should_stop = driver, should_stop
        self._reported = 0.0

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if time.monotonic() - self._reported > 0.5:
            self._reported = time.monotonic()
            self._driver.emit(self._driver.event())
        over = self._driver.clock() > self._driver.deadline + _GRACE_S and not self._driver.pending_first
        return over or self._should_stop()


def run_trials(driver: Driver, should_stop: Callable[[], bool]) -> None:
    """Run trials until the budget ends, nothing fits any more, or `should_stop()` says so. Raises `ExecutorLost`."""
    workers = driver.request.workers_per_trial
    place = placement(nodes(), workers)
    driver.threads, driver.gpu, driver.gpu_share = place.cpus, place.gpu, place.gpu_share
    # Several workers take their own CPUs and GPUs: what their trial took besides would be missing for them.
    resources = place.of_worker() if workers == 1 else {"memory": _TRIAL_BYTES}
    searcher = DriverSearcher(driver, Room(place, workers, nodes))
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="autovision-tune-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuner = tune.Tuner(
            tune.with_resources(TrialWorker if workers == 1 else TrialGroup, resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=DriverScheduler(driver, searcher),
                num_samples=-1,
                reuse_actors=workers == 1,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=scratch,
                stop=BudgetStopper(driver, should_stop),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            ),
        )
        try:
            tuner.fit()
        except AutoVisionError:
            raise
        except Exception as error:
            log.exception("Ray Tune broke off")
            said = " ".join(str(error).split())[:300]
            raise ExecutorLost(
                f"Ray Tune broke off, as it does when the head or a node is lost ({type(error).__name__}: {said}); "
                f"`autovision search resume {driver.request.id}` goes on from what is stored, and so does a controller"
            ) from error
    if not driver.suspended:
        driver.close()


def nodes() -> list[dict[str, float]]:
    """What each living node of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
