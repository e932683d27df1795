"""Points by Optuna's ask and tell."""

from __future__ import annotations

from datetime import UTC, datetime

import optuna
import pytest

from autovision.records import TrialResult, TrialState
from autovision.search.sampler import Sampler
from autovision.space import Choice, Float, Integer, Space


class Small(Space):
    backbone = Choice("resnet18", "resnet34")
    unfreeze = Integer(0, 1)
    backbone_lr_ratio = Float(0.01, 1.0, log=True, when={"unfreeze": 1})
    lr = Float(1e-4, 1e-1, log=True)


def states(sampler: Sampler) -> list[optuna.trial.TrialState]:
    return [trial.state for trial in sampler._study.trials]


def test_fixed_parameters_are_kept_and_the_rest_is_drawn() -> None:
    sampler = Sampler(Small(), seed=1)
    points = [sampler.ask({"backbone": "resnet34", "unfreeze": 1}).point for _ in range(10)]
    assert {point["backbone"] for point in points} == {"resnet34"}
    assert all("backbone_lr_ratio" in point for point in points)
    assert len({point["lr"] for point in points}) == 10


def test_the_same_seed_draws_the_same_points() -> None:
    first, second = Sampler(Small(), seed=3), Sampler(Small(), seed=3)
    assert [first.ask().point for _ in range(5)] == [second.ask().point for _ in range(5)]


def test_ends_are_told_as_what_they_are() -> None:
    sampler = Sampler(Small(), seed=0)
    for state, steps in (
        (TrialState.COMPLETE, [(0, 0.5), (1, 0.7)]),
        (TrialState.PRUNED, [(0, 0.4)]),
        (TrialState.FAILED, []),
        (TrialState.STOPPED, []),
    ):
        sampler.tell(sampler.ask().number, state, steps)
    kinds = optuna.trial.TrialState
    assert states(sampler) == [kinds.COMPLETE, kinds.PRUNED, kinds.FAIL, kinds.FAIL]
    assert sampler._study.trials[0].value == 0.7
    assert sampler._study.trials[1].intermediate_values == {0: 0.4}


def test_nothing_is_left_running_and_telling_twice_changes_nothing() -> None:
    sampler = Sampler(Small(), seed=0)
    number = sampler.ask().number
    sampler.tell(number, TrialState.COMPLETE, [(0, 0.5)])
    sampler.tell(number, TrialState.FAILED, [])
    assert states(sampler) == [optuna.trial.TrialState.COMPLETE]


@pytest.mark.parametrize("state", list(TrialState))
def test_the_ledger_rebuilds_the_study(state: TrialState) -> None:
    original = Sampler(Small(), seed=0)
    proposal = original.ask({"unfreeze": 1})
    steps = [(0, 0.3), (1, 0.6)]
    original.tell(proposal.number, state, steps)
    result = TrialResult(
        search="s", trial="t", number=0, state=state, config={}, parameters=proposal.point, origin="sampled",
        created_at=datetime.now(UTC),
    )  # fmt: skip
    rebuilt = Sampler(Small(), seed=0)
    rebuilt.replay([(result, steps)])
    assert states(rebuilt) == states(original)
    assert rebuilt._study.trials[0].params == original._study.trials[0].params
    assert rebuilt._study.trials[0].value == original._study.trials[0].value


def test_a_result_of_another_space_is_passed_over() -> None:
    sampler = Sampler(Small(), seed=0)
    result = TrialResult(
        search="s", trial="t", number=0, state=TrialState.COMPLETE, config={}, parameters={"lr": 5.0}, origin="x",
        created_at=datetime.now(UTC),
    )  # fmt: skip
    sampler.replay([(result, [(0, 0.5)])])
    assert states(sampler) == []
