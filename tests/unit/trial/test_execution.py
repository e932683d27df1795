"""Assignments, carried out."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from autovision.errors import NotFound
from autovision.space.config import TrialConfig
from autovision.store import keys
from autovision.trial.assignment import Assignment, Reported
from autovision.trial.execution import Execution, value_of
from autovision.trial.workbench import Workbench
from autovision.trial.world import World

ELSEWHERE = TrialConfig(backbone="test_resnet", weights="random", resolution=96, epochs=9, batch_size=16)
"""features of which are not there yet"""


def carry_out(execution: Execution) -> list[dict[str, Any]]:
    results = [execution.step()]
    while not results[-1]["done"]:
        results.append(execution.step())
    return results


class SomeoneWaits(World):
    """One of several workers; what it fails with, the others do not know."""

    def is_joint(self, error: BaseException) -> bool:
        return False


def test_each_rung_is_a_result_and_the_best_weights_are_kept(bench: Workbench, task: Assignment) -> None:
    results = carry_out(Execution(bench, task))
    assert [json.loads(result["point"])["epoch"] for result in results] == [1, 3, 9]
    assert [result["outcome"] for result in results] == ["running", "running", "complete"]
    assert results[-1]["notes"] == []
    for result in results:
        assert bench.store.get(result["weights_key"]).data


def test_nothing_is_left_of_a_checkpoint_that_training_went_on_from(
    bench: Workbench, task: Assignment
) -> None:
    key = keys.checkpoint(task.search, task.config.digest, task.seed)
    execution = Execution(bench, task)
    execution.step()
    bench.store.put_immutable(key, b"of an epoch before")
    carry_out(execution)
    assert not list(bench.store.list(keys.checkpoints(task.search)))


def test_workers_after_a_loss_keep_what_was_better_before(bench: Workbench, task: Assignment) -> None:
    before = Reported(losses=2, objective=10.0, weights_key="kept")
    results = carry_out(Execution(bench, task, before=before))
    assert {result["weights_key"] for result in results} == {"kept"}
    assert results[-1]["notes"] == ["a worker was lost 2 times, and the trial was begun again"]


@pytest.mark.parametrize(
    ("changes", "outcome", "said"),
    [
        ({"dataset": "none@1"}, "failed", "none"),
        ({"metric": "novelty"}, "failed", "there is no 'novelty'"),
        ({"deadline": 0.0, "must_report": False, "config": ELSEWHERE}, "stopped", "the budget ended"),
    ],
)
def test_a_failure_is_a_result_where_nobody_else_waits(
    changes: dict[str, Any], outcome: str, said: str, bench: Workbench, task: Assignment
) -> None:
    (result,) = carry_out(Execution(bench, task.with_(**changes)))
    assert (result["outcome"], result["done"]) == (outcome, True)
    assert said in result["error"]
    assert math.isnan(result["objective"])


def test_a_failure_that_others_do_not_know_of_is_raised(bench: Workbench, task: Assignment) -> None:
    execution = Execution(bench, task.with_(dataset="none@1"), world=SomeoneWaits())
    with pytest.raises(NotFound):
        execution.step()


@pytest.mark.parametrize(
    ("metric", "costs"),
    [
        ("recall@precision=0.7", None),
        ("neg_mean_cost", {"blue": {"red": 4.0}, "red": {"blue": 1.0}}),
    ],
)
def test_a_trial_is_ranked_by_what_the_user_asked_for(
    metric: str, costs: dict[str, dict[str, float]] | None, bench: Workbench, task: Assignment
) -> None:
    results = carry_out(Execution(bench, task.with_(metric=metric, costs=costs)))
    for result in results:
        measured = json.loads(result["point"])["metrics"]
        assert result["objective"] == pytest.approx(value_of(measured, metric))
        assert {metric, "accuracy", "macro_f1"} <= measured.keys()
