"""Greedy soups of trials that are linear: whoever is averaged is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from autovision.decisions import Measure
from autovision.metrics import Floats, Ints
from autovision.model.predictor import softmax
from autovision.records.trials import TrialResult
from autovision.search.finishing import soup
from autovision.search.finishing.judge import Judge
from autovision.space.config import TrialConfig

TRUE = np.array([1.5, -1.0, 0.8, 0.5, -0.7])


def kitchen_of(heads: list[np.ndarray], n: int = 400, seed: int = 0) -> tuple[soup.Kitchen, Ints]:
    """Logistic regressions (D,) on n validation images of a known law."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, len(TRUE)))
    y = (rng.random(n) < 1 / (1 + np.exp(-x @ TRUE))).astype(np.intp)

    def taste(tensors: soup.Tensors) -> np.ndarray:
        z = x @ tensors["w"].numpy()
        return np.stack([0 * z, z], 1)

    probabilities: Callable[[np.ndarray], Floats] = softmax
    score = soup.scorer(Judge(Measure("accuracy"), y, np.ones(n, np.intp), 1), probabilities)
    return soup.Kitchen([{"w": torch.tensor(head)} for head in heads], taste, score), y


def test_errors_that_cancel_make_a_soup() -> None:
    off = np.array([1.5, 1.5, -1.5, 1.0, 1.0])
    kitchen, kinds = kitchen_of([TRUE + off, TRUE - off, -TRUE])
    chosen = soup.cook(kitchen, kinds, seed=0, deadline=math.inf)
    assert chosen.members == (0, 1), "the one that knows nothing is left out"
    assert "a soup of 2 of 3 trials is better on validation" in chosen.why


def test_a_soup_that_only_looks_better_is_left() -> None:
    """The true law, and heads of noise around it: some average always looks a little better on these images."""
    looked = kept = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        heads = [TRUE, *(TRUE + rng.normal(0, 0.15, len(TRUE)) for _ in range(8))]
        kitchen, kinds = kitchen_of(heads, n=120, seed=seed)
        rows = np.arange(len(kinds))
        looked += len(kitchen.greedy(range(len(heads)), rows, math.inf)) > 1
        kept += len(soup.cook(kitchen, kinds, seed=seed, deadline=math.inf).members) > 1
    assert looked >= 8 and kept < looked


@pytest.mark.parametrize("patients", [3, 40])
def test_images_of_a_group_do_not_judge_a_soup_that_was_made_on_others_of_it(patients: int) -> None:
    off = np.array([1.5, 1.5, -1.5, 1.0, 1.0])
    kitchen, kinds = kitchen_of([TRUE + off, TRUE - off, TRUE])
    groups = np.array([f"p{i % patients}" for i in range(len(kinds))])
    made_on: list[set[str]] = []
    greedy = kitchen.greedy

    def watched(order: Sequence[int], rows: Ints, deadline: float) -> list[int]:
        made_on.append(set(groups[rows]))
        assert len(rows) == sum((groups == name).sum() for name in made_on[-1]), (
            "a group is whole, or elsewhere"
        )
        return greedy(order, rows, deadline)

    kitchen.greedy = watched  # type: ignore[method-assign]
    soup.cook(kitchen, kinds, groups=tuple(groups), seed=0, deadline=math.inf)
    assert len(made_on) == 1 + min(patients, 5)


def test_images_of_one_group_make_no_soup() -> None:
    off = np.array([1.5, 1.5, -1.5, 1.0, 1.0])
    kitchen, kinds = kitchen_of([TRUE + off, TRUE - off])
    chosen = soup.cook(kitchen, kinds, groups=("p",) * len(kinds), seed=0, deadline=math.inf)
    assert chosen.members == (0,) and "cannot be divided" in chosen.why


def test_each_average_is_tasted_once() -> None:
    kitchen, kinds = kitchen_of([TRUE, TRUE * 1.13, TRUE * 0.9])
    tasted: list[float] = []
    taste = kitchen.taste

    def counting(tensors: soup.Tensors) -> np.ndarray:
        tasted.append(float(tensors["w"].sum()))
        return taste(tensors)

    kitchen.taste = counting
    soup.cook(kitchen, kinds, seed=0, deadline=math.inf)
    assert len(tasted) == len(set(tasted)) <= 7


def test_after_the_deadline_the_best_trial_stays_alone() -> None:
    off = np.array([1.5, 1.5, -1.5, 1.0, 1.0])
    kitchen, kinds = kitchen_of([TRUE + off, TRUE - off])
    assert soup.cook(kitchen, kinds, seed=0, deadline=0.0).members == (0,)


def test_weights_that_are_not_finite_are_worth_nothing() -> None:
    kitchen, kinds = kitchen_of([TRUE, TRUE * math.nan, TRUE * 1.01])
    assert 1 not in soup.cook(kitchen, kinds, seed=0, deadline=math.inf).members


def test_candidates_have_the_architecture_of_the_best_and_left_weights(
    line: Callable[..., TrialResult],
) -> None:
    ledger = [
        line(0, 0.80),
        line(1, 0.90, config=TrialConfig(lr=0.5, dropout=0.2)),
        line(2, 0.85, config=TrialConfig(taps=2)),
        line(3, 0.88, weights_key=None),
        line(4, 0.89, config=TrialConfig(head_width=8)),
        line(5, 0.70, config=TrialConfig(test_time_augmentation="flip")),
        line(6, None),
    ]
    best = next(result for result in ledger if result.number == 1)
    assert [result.number for result in soup.candidates(best, ledger)] == [1, 4, 0]
    many = [line(i, 0.5) for i in range(40)]
    assert len(soup.candidates(many[7], many)) == soup.MOST
    assert soup.candidates(many[7], many)[0] is many[7]


def test_the_average_is_of_each_tensor() -> None:
    made = soup.averaged(
        [
            {"a": torch.tensor([1.0, 2.0]), "steps": torch.tensor(3)},
            {"a": torch.tensor([3.0, 6.0]), "steps": torch.tensor(5)},
        ]
    )
    assert made["a"].tolist() == [2.0, 4.0] and made["steps"].item() == 3


@pytest.mark.parametrize("metric", ["auroc", "recall@precision=0.9"])
def test_where_the_metric_is_undefined_nothing_is_worth_anything(metric: str) -> None:
    judge = Judge(Measure(metric), np.zeros(4, np.intp), np.ones(4, np.intp), 1)
    score = soup.scorer(judge, softmax)
    assert score(np.zeros((4, 2)), np.arange(4)) == -math.inf
