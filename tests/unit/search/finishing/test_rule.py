"""Decision rules that are chosen on validation."""

from __future__ import annotations

import numpy as np
import pytest

from autovision.decisions import Measure, scores, told
from autovision.metrics import Floats, Ints
from autovision.records.models import DecisionRule
from autovision.search.finishing.rule import _Trial, choose_rule

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


def test_equal_costs_change_no_answer() -> None:
    measure = Measure.of("neg_mean_cost", {"a": {"b": 1.0}, "b": {"a": 1.0}}, ("a", "b"))
    p, y = drawn(600, [0.7, 0.3], 4)
    np.testing.assert_array_equal(scores(choose_rule(measure, p, y, None, NAMES), p).argmax(1), p.argmax(1))


@pytest.mark.parametrize(("n", "shares"), [(12, [0.5, 0.5]), (60, [0.99, 0.01]), (25, [0.8, 0.2])])
def test_costs_are_answered_so_however_few_images_there_are(n: int, shares: list[float]) -> None:
    """Trials are ranked by the answer of the least expected cost: the model must not answer in another way."""
    measure = Measure.of("neg_mean_cost", {"a": {"b": 1.0}, "b": {"a": 8.0}}, ("a", "b"))
    p, _ = drawn(n, [0.7, 0.3], 4)
    y = drawn(n, shares, 5)[1]
    rule = choose_rule(measure, p, y, None, NAMES)
    assert rule.kind == "costs"
    assert measure(p, y, None, scores(rule, p)) == measure(p, y, None)
    plain = -measure(p, y, None, p)
    assert rule.why == (
        f"mean cost {-measure(p, y, None):.4f} on {n} validation images, "
        f"of answering the most probable class {plain:.4f}"
    )


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


def test_one_rare_class_is_named() -> None:
    p, y = drawn(300, [0.5, 0.3, 0.2], 0)
    y[y == 2] = 0
    for count, text in ((0, "no validation images of class c"), (1, "1 validation image of class c")):
        y[:count] = 2
        rule = choose_rule(Measure("macro_f1"), p, y, None, NAMES[:3])
        assert rule.kind == "default" and rule.why == f"{text}: too few to choose another rule by"


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1", "recall@precision=0.6"])
@pytest.mark.parametrize("positives", [0, 1, 1499])
def test_a_label_that_hardly_any_image_has_or_lacks_leaves_the_others_their_thresholds(
    metric: str, positives: int
) -> None:
    p, y = drawn_sets(1500, [0.1, 0.3, 0.05, 0.1], 1)
    y[:, 1] = np.arange(1500) < positives
    rule = choose_rule(Measure(metric), p, y, None, NAMES)
    assert rule.kind == "thresholds" and rule.values[1] == 0.5
    assert all(rule.values[c] != 0.5 for c in (0, 2, 3))
    assert rule.why.endswith("left at one half, as fewer than 2 images have or lack it: b")
    assert "b: no threshold" not in rule.why
    y[:] = 0
    assert choose_rule(Measure(metric), p, y, None, NAMES).values in ((), (0.5,) * 4)


def test_a_label_that_is_rare_in_a_fold_keeps_one_half_there() -> None:
    """Two images have it: in each fold that holds one of them out there is one to fit to."""
    p, y = drawn_sets(400, [0.1, 0.3], 1)
    y[:, 1] = np.arange(400) < 2
    for fitted in (y, y[1:]):
        trial = _Trial(Measure("balanced_accuracy"), p, y, None, NAMES[:2], 0, (), np.arange(400))
        values = [f(p[-len(fitted) :], fitted) for f in (trial.by_theory, trial.tuned)]
        assert all((rule is not None and rule.values[1] == 0.5) == (len(fitted) < 400) for rule in values)


def in_groups(copies: int, groups: int, seed: int) -> tuple[Floats, Ints, tuple[str, ...]]:
    """Each image several times over, as one group."""
    p, y = drawn(groups, [0.65, 0.35], seed)
    names = tuple(f"p{i}" for i in range(groups) for _ in range(copies))
    return p.repeat(copies, 0), y.repeat(copies), names


def test_images_of_a_group_are_one_witness() -> None:
    """Copies of sixty images look like six hundred, by which nearly any difference would be sure."""
    taken = {"images": 0, "groups": 0}
    for seed in range(12):
        p, y, names = in_groups(10, 60, seed)
        blind = choose_rule(Measure("balanced_accuracy"), p, y, 1, NAMES, seed=seed)
        aware = choose_rule(Measure("balanced_accuracy"), p, y, 1, NAMES, groups=names, seed=seed)
        taken["images"] += blind.kind != "default"
        taken["groups"] += aware.kind != "default"
        assert "600 validation images of 60 groups" in aware.why and "groups" not in blind.why
    assert taken["groups"] < taken["images"]


def test_images_of_one_group_choose_nothing() -> None:
    p, y = drawn(300, [0.8, 0.2], 7)
    rule = choose_rule(Measure("f1"), p, y, 1, NAMES, groups=("p",) * 300)
    assert rule.kind == "default" and "cannot be divided" in rule.why


def test_resamples_in_which_no_threshold_has_the_precision_have_no_say() -> None:
    """Only the ten best images, nine of them of the class, reach it, and in about half of the resamples."""
    second = np.concatenate([np.full(10, 0.9), np.linspace(0.1, 0.8, 60)])
    y = np.array([1] * 9 + [0] + [1, 0, 0, 0] * 10 + [0] * 20)
    p = np.c_[1 - second, second]
    rules = [choose_rule(Measure("recall@precision=0.9"), p, y, 1, NAMES, seed=seed) for seed in range(30)]
    assert all(rule.kind == "threshold" and 0.75 < rule.values[0] < 0.9 for rule in rules)
