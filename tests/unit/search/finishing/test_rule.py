"""Decision rules that are chosen on validation."""

from __future__ import annotations

import numpy as np
import pytest

from autovision.decisions import Measure, scores, told
from autovision.metrics import Floats, Ints
from autovision.records.models import DecisionRule
from autovision.search.finishing.rule import choose_rule

NAMES = ("a", "b", "c", "d")


def drawn(n: int, shares: list[float], seed: int, signal: float = 1.2) -> tuple[Floats, Ints]:
    """Calibrated probabilities (N, C) of labels of these shares."""
    rng = np.random.default_rng(seed)
    y = rng.choice(len(shares), n, p=shares)
    x = rng.normal(size=(n, len(shares))) + signal * np.eye(len(shares))[y]
    z = signal * x + np.log(shares)
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True), y


def drawn_sets(n: int, shares: list[float], seed: int) -> tuple[Floats, Ints]:
    rng = np.random.default_rng(seed)
    y = (rng.random((n, len(shares))) < shares).astype(int)
    x = rng.normal(size=y.shape) + 1.5 * y
    z = 1.5 * (x - 0.75) + np.log(np.array(shares) / (1 - np.array(shares)))
    return 1 / (1 + np.exp(-z)), y


def gain(rule: DecisionRule, measure: Measure, p: Floats, y: Ints, positive: int | None) -> float:
    """Of the rule over the default one."""
    return measure(p, y, positive, scores(rule, p)) - measure(p, y, positive, p)


@pytest.mark.parametrize(
    ("metric", "shares", "kind"),
    [
        ("balanced_accuracy", [0.85, 0.15], "threshold"),
        ("f1", [0.9, 0.1], "threshold"),
        ("balanced_accuracy", [0.7, 0.15, 0.1, 0.05], "offsets"),
        ("macro_f1", [0.8, 0.1, 0.06, 0.04], "offsets"),
    ],
)
def test_a_rule_is_better_on_images_that_it_was_not_chosen_on(
    metric: str, shares: list[float], kind: str
) -> None:
    positive = 1 if len(shares) == 2 else None
    rule = choose_rule(Measure(metric), *drawn(800, shares, 1), positive, NAMES)
    assert rule.kind == kind
    assert gain(rule, Measure(metric), *drawn(20_000, shares, 2), positive) > 0.01
    assert "cross-fitted on 800" in rule.why and told(rule, NAMES) in rule.why


@pytest.mark.parametrize("positive", [0, 1])
def test_the_threshold_of_balanced_accuracy_is_the_share_of_the_class(positive: int) -> None:
    p, y = drawn(2000, [0.8, 0.2], 3)
    rule = choose_rule(Measure("balanced_accuracy"), p, y, positive, NAMES)
    assert rule.column == positive
    assert rule.values[0] == pytest.approx((y == positive).mean(), abs=0.08)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_where_the_default_is_best_noise_hardly_ever_moves_it(metric: str) -> None:
    """Of calibrated probabilities of classes that are equally frequent nothing is to be gained."""
    unseen = drawn(20_000, [0.5, 0.5], 99)
    rules = [
        choose_rule(Measure(metric), *drawn(150, [0.5, 0.5], seed), None, NAMES, seed=seed)
        for seed in range(20)
    ]
    gains = [gain(rule, Measure(metric), *unseen, None) for rule in rules]
    assert sum(rule.kind != "default" for rule in rules) <= 5
    assert np.mean(gains) > -0.003 and min(gains) > -0.03
    assert all("90% are needed" in rule.why for rule in rules if rule.kind == "default")


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1"])
def test_each_label_gets_a_threshold(metric: str) -> None:
    shares = [0.1, 0.3, 0.05]
    rule = choose_rule(Measure(metric), *drawn_sets(1500, shares, 1), None, NAMES[:3])
    assert rule.kind == "thresholds" and len(rule.values) == 3
    assert gain(rule, Measure(metric), *drawn_sets(20_000, shares, 2), None) > 0.02


def test_costs_are_answered_by_the_least_expected_one() -> None:
    measure = Measure.of("neg_mean_cost", {"a": {"b": 1.0}, "b": {"a": 8.0}}, ("a", "b"))
    p, y = drawn(600, [0.7, 0.3], 4)
    rule = choose_rule(measure, p, y, None, NAMES)
    assert rule.kind == "costs"
    np.testing.assert_array_equal(scores(rule, p).argmax(1) == 1, p[:, 1] > 1 / 9)


def test_equal_costs_change_nothing() -> None:
    measure = Measure.of("neg_mean_cost", {"a": {"b": 1.0}, "b": {"a": 1.0}}, ("a", "b"))
    assert choose_rule(measure, *drawn(600, [0.7, 0.3], 4), None, NAMES).kind == "default"


@pytest.mark.parametrize("several", [False, True])
def test_recall_at_a_precision_is_an_operating_point(several: bool) -> None:
    measure = Measure("recall@precision=0.9")
    draw = (
        (lambda n, seed: drawn_sets(n, [0.4, 0.5], seed))
        if several
        else (lambda n, seed: drawn(n, [0.6, 0.4], seed))
    )
    p, y = draw(3000, 5)
    rule = choose_rule(measure, p, y, 1, NAMES)
    said = scores(rule, p)[:, 1] > 0.5
    is_class = y[:, 1] == 1 if several else y == 1
    assert is_class[said].mean() == pytest.approx(0.9, abs=0.02)
    assert "precision 0." in rule.why


@pytest.mark.parametrize("metric", ["auroc", "average_precision", "neg_log_loss"])
def test_what_no_answer_changes_leaves_the_default(metric: str) -> None:
    assert choose_rule(Measure(metric), *drawn(300, [0.8, 0.2], 6), 1, NAMES).kind == "default"


def test_few_images_choose_nothing() -> None:
    p, y = drawn(12, [0.5, 0.5], 0)
    rule = choose_rule(Measure("balanced_accuracy"), p, y, 1, NAMES)
    assert rule.kind == "default" and "12 validation images are too few" in rule.why


def test_the_same_images_give_the_same_rule() -> None:
    p, y = drawn(300, [0.8, 0.2], 7)
    assert choose_rule(Measure("f1"), p, y, 1, NAMES) == choose_rule(Measure("f1"), p, y, 1, NAMES)
