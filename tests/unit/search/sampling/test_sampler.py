"""Points by ask and tell, with each sampler."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import optuna
import pytest

from autovision.records.trials import TrialResult, TrialState
from autovision.search.sampling.history import KEEP, MOST, History, Told
from autovision.search.sampling.sampler import Sampler
from autovision.space import Choice, Float, Integer, Space

OWN = "optuna.samplers:TPESampler"
SAMPLERS = ("tpe", "random", "cmaes", "nsga2", "gp", OWN)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Small(Space):
    backbone = Choice("resnet18", "resnet34")
    unfreeze = Integer(0, 1)
    backbone_lr_ratio = Float(0.01, 1.0, log=True, when={"unfreeze": 1})
    lr = Float(1e-4, 1e-1, log=True)
    dropout = Float(0.0, 0.5)


def quality(point: dict[str, Any]) -> float:
    """Best, at 0, with resnet34, lr = 0.01 and dropout = 0.3."""
    loss = (math.log10(point["lr"]) + 2) ** 2 / 4 + 4 * (point["dropout"] - 0.3) ** 2
    return -loss - 0.2 * (point["backbone"] == "resnet18") - 0.1 * point["unfreeze"]


def result_of(
    number: int, point: dict[str, Any], state: TrialState = TrialState.COMPLETE, **changes: Any
) -> TrialResult:
    return TrialResult(
        search="s",
        trial=f"t{number}",
        number=number,
        state=state,
        config={},
        parameters=point,
        origin="sampled",
        created_at=START + timedelta(seconds=changes.pop("ended", number)),
        **changes,
    )


def run(sampler: Sampler, n: int, *, workers: int = 1, seed: int = 0) -> list[tuple[TrialResult, Any]]:
    """So many trials, of which so many are pending at any time; what the ledger has of them, as they ended."""
    rng, ended, going, began = np.random.default_rng(seed), [], [], 0
    states = (TrialState.COMPLETE,) * 3 + (TrialState.PRUNED, TrialState.FAILED)
    while len(ended) < n:
        while len(going) < workers:
            going.append((began, sampler.ask()))
            began += 1
        number, proposal = going.pop(int(rng.integers(len(going))))
        state = states[int(rng.integers(len(states)))]
        value = quality(proposal.point)
        steps = [] if state is TrialState.FAILED else [(0, value - 0.1), (1, value)]
        result = result_of(number, proposal.point, state, ended=len(ended))
        sampler.tell(proposal.number, state, steps, result)
        ended.append((result, steps))
    return ended


@pytest.mark.parametrize("name", (*SAMPLERS, "optuna.samplers:QMCSampler"))
def test_fixed_parameters_are_kept_exactly_and_the_rest_is_drawn(name: str) -> None:
    sampler = Sampler(Small(), 1, name)
    run(sampler, 12)
    fixed = {"backbone": "resnet34", "unfreeze": 1, "dropout": 0.1 + 0.2}
    points = [proposal.point for proposal in [sampler.ask(fixed) for _ in range(5)]]
    assert all(fixed.items() <= point.items() for point in points)
    assert all(Small.contains(point) and "backbone_lr_ratio" in point for point in points)
    assert len({point["lr"] for point in points}) == 5


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("n", (3, 25))
def test_a_sampler_that_is_rebuilt_proposes_what_the_first_would_have(name: str, n: int) -> None:
    first = Sampler(Small(), 5, name)
    ledger = run(first, min(n, 16) if name == "gp" else n)
    rebuilt = Sampler(Small(), 5, name)
    rebuilt.replay(reversed(ledger))  # whatever the order in which records are read
    assert [rebuilt.ask().point for _ in range(3)] == [first.ask().point for _ in range(3)]


@pytest.mark.parametrize("name", ("tpe", "random", "cmaes", "nsga2"))
def test_so_it_does_after_thousands_of_trials_that_ended_out_of_order(name: str) -> None:
    first = Sampler(Small(), 5, name)
    ledger = run(first, 1_500, workers=6)
    for ticket, told in list(first._pending.items()):  # those that run when it is killed end as they are
        number = 1 + max(result.number for result, _ in ledger)
        result = result_of(number, dict(told.point), ended=2_000 + number)
        first.tell(ticket, TrialState.COMPLETE, [(0, 0.0)], result)
        ledger.append((result, [(0, 0.0)]))
    rebuilt = Sampler(Small(), 5, name)
    rebuilt.replay(ledger)
    assert [rebuilt.ask().point for _ in range(3)] == [first.ask().point for _ in range(3)]


def test_trials_that_run_again_after_a_restart_are_pending_as_before() -> None:
    first = Sampler(Small(), 5)
    ledger = run(first, 20)
    running = first.ask()
    rebuilt = Sampler(Small(), 5)
    rebuilt.replay(ledger)
    assert rebuilt.ask(running.point).point == running.point
    assert rebuilt.ask().point == first.ask().point


def test_a_paused_trial_that_went_on_is_known_by_its_last_word() -> None:
    """Here it was told as pruned first; a ledger has the end alone."""
    first, rebuilt = Sampler(Small(), 5), Sampler(Small(), 5)
    ledger = run(first, 12)
    paused = first.ask()
    first.tell(paused.number, TrialState.PRUNED, [(0, -3.0)], result_of(12, paused.point, TrialState.PRUNED))
    last = (result_of(12, paused.point), [(0, -3.0), (1, 1.0)])
    first.replay([last])
    rebuilt.replay([*ledger, last])
    assert first.ask().point == rebuilt.ask().point


@pytest.mark.parametrize("name", ("tpe", "random", "cmaes"))
def test_another_seed_draws_other_points(name: str) -> None:
    assert Sampler(Small(), 1, name).ask().point != Sampler(Small(), 2, name).ask().point


@pytest.mark.parametrize("name", ("tpe", "cmaes", "nsga2"))
def test_what_was_told_guides_what_is_asked(name: str) -> None:
    """The later points are better than chance."""

    def late(sampler: str, seed: int) -> float:
        made = Sampler(Small(), seed, sampler)
        return float(np.mean([steps[-1][1] for _, steps in run(made, 150, seed=seed)[-40:] if steps]))

    seeds = range(5)
    assert np.mean([late(name, seed) for seed in seeds]) > np.mean([late("random", s) for s in seeds]) + 0.1


@pytest.mark.parametrize("name", ("tpe", "cmaes", "nsga2", "gp", OWN))
@pytest.mark.parametrize("state", list(TrialState))
def test_every_end_can_be_told(name: str, state: TrialState) -> None:
    sampler = Sampler(Small(), 0, name)
    run(sampler, 9)
    for steps in ([], [(0, 0.5)], [(0, math.nan)]):
        sampler.tell(sampler.ask().number, state, steps)
    assert Small.contains(sampler.ask().point)


def test_telling_twice_changes_nothing() -> None:
    sampler, other = Sampler(Small(), 0), Sampler(Small(), 0)
    for each in (sampler, other):
        run(each, 10)
        each.tell(each.ask().number, TrialState.COMPLETE, [(0, 0.5)])
    sampler.tell(10, TrialState.FAILED, [])
    assert sampler.ask().point == other.ask().point


def test_a_result_of_another_space_is_passed_over() -> None:
    sampler = Sampler(Small(), 0)
    sampler.replay([(result_of(0, {"lr": 5.0}), [(0, 0.5)])])
    assert Small.contains(sampler.ask().point)


# -------------------------------------------------------------------------------------------- refusals


def test_a_refused_draw_is_drawn_again_and_then_forgotten() -> None:
    sampler, other = Sampler(Small(), 0), Sampler(Small(), 0)
    refused = [sampler.ask() for _ in range(1)]
    sampler.refuse(refused[0].number)
    again = sampler.ask()
    assert again.point != refused[0].point
    other.ask(again.point)
    assert sampler.ask().point == other.ask().point


@pytest.mark.parametrize("narrow", (0.4, 0.8))
def test_what_a_limit_forbids_is_left_within_twenty_draws(narrow: float) -> None:
    """The good points are just where no more of them are allowed: as many draws as a driver tries are enough."""
    draws = []
    for seed in range(10):
        sampler, rng = Sampler(Small(), seed), np.random.default_rng(seed)
        for number in range(100):
            point = Small.sample(rng) | {"lr": float(10 ** (-2 + 0.2 * rng.standard_normal()))}
            sampler.replay([(result_of(number, point), [(0, quality(point))])])
        count, proposal = 1, sampler.ask()
        while abs(math.log10(proposal.point["lr"]) + 2) < narrow:
            sampler.refuse(proposal.number)
            count, proposal = count + 1, sampler.ask()
        draws.append(count)
    assert max(draws) <= 20
    assert max(draws) > 1, "at first it does not know"


# ---------------------------------------------------------------------------------- thousands of trials


def told(number: int, value: float) -> Told:
    return Told(number, {}, np.zeros(1), values=(value,))


def test_a_history_keeps_the_best_the_latest_and_a_spread_of_the_rest() -> None:
    rng, history = np.random.default_rng(0), History()
    values = rng.random(5_000)
    for number, value in enumerate(values):
        history.add(told(number, float(value)))
    kept = {each.number for each in history.kept}
    best, latest, others = KEEP
    assert set(np.argsort(-values)[:best]) <= kept
    assert set(range(5_000 - latest, 5_000)) <= kept
    assert best + latest + others - 10 < len(kept) <= best + latest + others <= MOST
    rest = sorted(kept - set(np.argsort(-values)[:best]) - set(range(5_000 - latest, 5_000)))
    assert max(np.diff(rest)) < 3 * 5_000 / others


def test_a_history_does_not_depend_on_when_others_were_forgotten() -> None:
    rng = np.random.default_rng(1)
    trials = [told(number, float(value)) for number, value in enumerate(rng.random(2_000))]
    orders = [trials, [trials[i] for i in np.argsort(np.arange(2_000) + rng.integers(0, 9, 2_000))]]
    kept = []
    for order in orders:
        history = History()
        for each in order:
            history.add(each)
        kept.append([each.number for each in history.kept])
    assert kept[0] == kept[1]


@pytest.mark.parametrize("name", ("tpe", "cmaes", "nsga2"))
def test_ten_thousand_trials_are_replayed_in_seconds_and_cost_no_more_to_ask(name: str) -> None:
    """In seconds of the processor, with room for a machine that others use too."""
    space, rng = Small(), np.random.default_rng(0)
    points = [space.sample(rng) for _ in range(10_000)]
    ledger = [(result_of(i, point), [(0, quality(point))]) for i, point in enumerate(points)]

    def ask_s(sampler: Sampler) -> float:
        began = time.process_time()
        for proposal in [sampler.ask() for _ in range(20)]:
            sampler.tell(proposal.number, TrialState.COMPLETE, [(0, 0.0)])
        return time.process_time() - began

    few = Sampler(space, 0, name)
    few.replay(ledger[:300])
    many, began = Sampler(space, 0, name), time.process_time()
    many.replay(ledger)
    assert time.process_time() - began < 6.0
    assert ask_s(many) < 2.0 * ask_s(few) + 0.1


# ------------------------------------------------------------------------------- several objectives


@pytest.mark.parametrize("name", ("tpe", "nsga2", "random", "gp", "optuna.samplers:TPESampler"))
def test_with_two_objectives_a_sampler_works_for_both(name: str) -> None:
    """`dropout` 0 is cheap and 0.5 good: both ends, and what lies between, are on the front."""
    sampler = Sampler(Small(), 0, name, ["latency_ms"])
    n = 11 if name == "gp" else 80
    for number in range(n):
        proposal = sampler.ask()
        state = TrialState.PRUNED if number % 9 == 8 else TrialState.COMPLETE
        value = proposal.point["dropout"] - (math.log10(proposal.point["lr"]) + 2) ** 2
        result = result_of(
            number, proposal.point, state, objectives={"latency_ms": 10 * proposal.point["dropout"]}
        )
        sampler.tell(proposal.number, state, [(0, value)], result)
    later = [proposal.point for proposal in [sampler.ask() for _ in range(1 if name == "gp" else 30)]]
    if name in ("tpe", "nsga2"):
        off = np.mean([abs(math.log10(point["lr"]) + 2) for point in later])
        assert off < 0.55, "at random it is 0.83"
        assert np.ptp([point["dropout"] for point in later]) > 0.3


def test_a_trial_whose_costs_are_not_known_counts_as_failed() -> None:
    sampler, other = (Sampler(Small(), 0, "tpe", ["latency_ms"]) for _ in range(2))
    for each in (sampler, other):
        for number in range(10):
            proposal = each.ask()
            costs = {"latency_ms": 1.0 + number}
            each.tell(
                proposal.number,
                TrialState.COMPLETE,
                [(0, 0.5)],
                result_of(number, proposal.point, objectives=costs),
            )
    sampler.tell(sampler.ask().number, TrialState.COMPLETE, [(0, 0.9)])
    other.tell(other.ask().number, TrialState.FAILED, [])
    assert sampler.ask().point == other.ask().point


# ------------------------------------------------------------------------------------- what Optuna sees


class Spy(optuna.samplers.RandomSampler):
    """Keeps what a user's sampler is shown."""

    seen: list[list[optuna.trial.FrozenTrial]]

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        type(self).seen.append(study.get_trials(deepcopy=False))
        return {}


def test_a_users_sampler_sees_ends_as_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spy, "seen", [], raising=False)
    sampler = Sampler(Small(), 0, "optuna.samplers:RandomSampler")
    monkeypatch.setattr(sampler._strategy, "_make", lambda seed: Spy(seed=seed))
    for state, steps in (
        (TrialState.COMPLETE, [(0, 0.5), (1, 0.7), (2, 0.6)]),
        (TrialState.PRUNED, [(0, 0.4)]),
        (TrialState.STOPPED, [(0, 0.3)]),
        (TrialState.FAILED, [(0, 0.2)]),
        (TrialState.STOPPED, []),
    ):
        sampler.tell(sampler.ask().number, state, steps)
    pending = sampler.ask()
    sampler.ask({"backbone": "resnet34"})
    kinds = optuna.trial.TrialState
    *ended, running, asked = Spy.seen[-1]
    assert [each.state for each in ended] == [
        kinds.COMPLETE,
        kinds.PRUNED,
        kinds.PRUNED,
        kinds.FAIL,
        kinds.FAIL,
    ]
    assert (ended[0].value, ended[1].intermediate_values) == (0.7, {0: 0.4})
    assert (running.state, running.params) == (kinds.RUNNING, pending.point)
    assert (asked.state, asked.system_attrs) == (kinds.RUNNING, {"fixed_params": {"backbone": "resnet34"}})


def test_nsga2_breeds_from_the_elite() -> None:
    """Its children have values that their parents have; chance would not have them."""
    sampler = Sampler(Small(), 0, "nsga2")
    parents = [result for result, steps in run(sampler, 200) if steps]
    rates = {result.parameters["lr"] for result in parents}
    assert sum(proposal.point["lr"] in rates for proposal in [sampler.ask() for _ in range(30)]) > 10
