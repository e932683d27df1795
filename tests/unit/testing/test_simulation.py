"""Simulated searches: features that are shared, deadlines, trials that pause, and the real driver on a made-up hill."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from autovision.records.trials import TrialState
from autovision.search import requests
from autovision.space import Choice, Float, Integer, Space
from autovision.space.config import TrialConfig
from autovision.testing.simulation import (
    FeatureShelf,
    Policy,
    Rung,
    Simulation,
    Table,
    VirtualClock,
    between,
    simulate,
    tables_of,
)
from autovision.trial.train import rung_epochs


class Hill(Space):
    """Best at a rate of 0.01, and better fine-tuned."""

    backbone = "tf_efficientnet_lite0"
    resolution = 160
    augmentation = Choice("none", "flip")
    unfreeze = Integer(0, 1, default=0)
    lr = Float(1e-4, 1.0, log=True, default=1e-3)
    epochs = 9


@dataclass
class HillLab:
    """Costs that are easy to reckon with: a table takes ten seconds, an epoch one, of a fine-tuned trial five."""

    images: Mapping[str, int] = field(default_factory=lambda: {"train": 640, "validation": 640})
    classes: int = 2
    fails_from: float = math.inf
    """learning rates from which on training fails after the first rung"""

    def tables(self, config: TrialConfig) -> Sequence[Table]:
        return tables_of(config)

    def table_s(self, table: Table) -> float:
        return 10.0

    def curve(self, config: TrialConfig, seed: int) -> Sequence[Rung]:
        best = 0.8 + 0.1 * config.unfreeze - 0.1 * abs(math.log10(config.lr) + 2)
        rungs = [
            Rung(
                number,
                epoch,
                epoch * (5.0 if config.unfreeze else 1.0),
                {"accuracy": best - 0.1 / epoch, "neg_log_loss": -0.5},
            )
            for number, epoch in enumerate(rung_epochs(config.epochs))
        ]
        return rungs[:1] if config.lr >= self.fails_from else rungs

    def together_s(self, configs: Sequence[TrialConfig]) -> float:
        return 9.0


@dataclass(frozen=True)
class Job:
    trial: str
    config: TrialConfig
    deadline: float = math.inf
    must_report: bool = False
    seed: int = 0
    metric: str = "accuracy"
    search_started: float = 0.0


@dataclass
class Listed:
    """A policy that gives out a list, and stops each trial after the rungs that it is told."""

    jobs: list[Job]
    stop_after: dict[str, int] = field(default_factory=dict)
    told: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    over: list[str] = field(default_factory=list)

    def next(self) -> Job | None:
        return self.jobs.pop(0) if self.jobs else None

    def goes_on(self, trial: str, result: dict[str, Any]) -> bool:
        self.told.setdefault(trial, []).append(result)
        return len(self.told[trial]) != self.stop_after.get(trial)

    def ended(self, trial: str) -> None:
        self.over.append(trial)


def head(**changes: Any) -> TrialConfig:
    return Hill.config(Hill.default()).with_(**changes)


def run(policy: Listed, workers: int = 1, **settings: Any) -> Simulation:
    clock = VirtualClock()
    lab = HillLab(**settings)
    shelf = FeatureShelf(lab, clock)
    return Simulation(
        cast(Policy, policy), lab, clock, shelf, workers=workers, overhead_s=0.0, setup_s=0.0
    ).run()


def test_features_are_computed_once_and_then_there_for_all() -> None:
    simulation = run(Listed([Job("a", head()), Job("b", head(lr=0.1))]))
    # Two tables of ten seconds and nine epochs, then nine epochs on the same tables.
    assert [each.at for each in simulation.seen] == pytest.approx([21, 23, 29, 30, 32, 38])


def test_who_needs_the_same_features_computes_them_together() -> None:
    simulation = run(Listed([Job("a", head()), Job("b", head(lr=0.1))]), workers=2)
    assert [each.at for each in simulation.seen] == pytest.approx([11, 11, 13, 13, 19, 19])


def test_idle_workers_help_but_no_more_than_there_are_chunks() -> None:
    assert run(Listed([Job("a", head())]), workers=4).seen[0].at == pytest.approx(6)
    assert run(Listed([Job("a", head())]), workers=40).seen[0].at == pytest.approx(3)


def test_other_features_are_computed_side_by_side() -> None:
    simulation = run(Listed([Job("a", head()), Job("b", head(resolution=224))]), workers=2)
    assert [each.at for each in simulation.seen[:2]] == pytest.approx([21, 21])


def test_the_deadline_cuts_training_between_rungs_and_features_before_the_first() -> None:
    start = VirtualClock().now
    policy = Listed([Job("a", head(), deadline=start + 26), Job("b", head(augmentation="flip"), start + 30)])
    simulation = run(policy)
    last = policy.told["a"][-1]
    assert (last["outcome"], last["done"]) == ("stopped", True)
    assert simulation.seen[-1].at == pytest.approx(26) and 3 < simulation.seen[-1].epoch < 9
    (late,) = policy.told["b"]
    assert late["outcome"] == "stopped" and "point" not in late
    assert policy.over == ["a", "b"]


def test_the_first_value_is_waited_for() -> None:
    policy = Listed([Job("a", head(), deadline=VirtualClock().now + 5, must_report=True)])
    simulation = run(policy)
    assert [each.at for each in simulation.seen] == pytest.approx([21])
    assert policy.told["a"][0]["outcome"] == "stopped"


def test_a_trial_that_paused_goes_on_where_it_was() -> None:
    job = Job("a", head())
    policy = Listed([job, Job("b", head(lr=0.1)), job], stop_after={"a": 1})
    simulation = run(policy)
    assert [(each.trial, each.epoch) for each in simulation.seen] == [
        ("a", 1), ("b", 1), ("b", 3), ("b", 9), ("a", 3), ("a", 9),
    ]  # fmt: skip
    assert simulation.seen[-1].at == pytest.approx(21 + 9 + 8)
    assert policy.told["a"][-1]["seconds"] == pytest.approx(29)
    assert policy.over == ["a", "b", "a"]
    assert simulation.busy_s == pytest.approx(38)


def test_a_trial_that_fails_says_so_after_what_it_reported() -> None:
    policy = Listed([Job("a", head())])
    run(policy, fails_from=0.0)
    assert [result["outcome"] for result in policy.told["a"]] == ["running", "failed"]


def test_between_rungs_metrics_lie_between_those_of_the_rungs() -> None:
    curve = HillLab().curve(head(), 0)
    values = [between(curve, seconds, 2).metrics["accuracy"] for seconds in (3, 5, 7, 9)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(curve[1].metrics["accuracy"])
    assert values[-1] == pytest.approx(curve[2].metrics["accuracy"])


@pytest.mark.parametrize("workers", [1, 3])
def test_a_whole_search_finds_the_top_of_the_hill_and_ends_with_its_budget(workers: int) -> None:
    driver, simulation = simulate(HillLab(), Hill(), budget_s=600, workers=workers)
    best = max(driver.ledger, key=lambda result: result.value or 0.0)
    assert best.config["unfreeze"] == 1
    assert best.metrics["accuracy"] > 0.85
    assert all(each.at <= 600 + 1e-6 for each in simulation.seen)
    assert simulation.busy_s <= 600 * workers
    assert {r.trial for r in requests.trials(driver.store, driver.request.id)} == {
        r.trial for r in driver.ledger
    }
    assert any(result.batch for result in driver.ledger), "no heads were trained together"
    assert not any(result.state is TrialState.FAILED for result in driver.ledger)


def test_the_same_seed_is_the_same_search() -> None:
    first, second = (simulate(HillLab(), Hill(), budget_s=200, workers=2, seed=3)[0] for _ in range(2))
    assert [(r.trial, r.value, r.seconds) for r in first.ledger] == [
        (r.trial, r.value, r.seconds) for r in second.ledger
    ]
