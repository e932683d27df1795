"""From probabilities to answers, by rules that are data; metrics that users name."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from autovision import metrics
from autovision.decisions import DEFAULT, Measure, check_measure, cost_matrix, scores
from autovision.errors import InvalidInput
from autovision.records.models import DecisionRule

CLASSES = ("defective", "functional")
COSTS = {"defective": {"functional": 5.0}, "functional": {"defective": 1.0}}


def drawn(n: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    z = rng.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[y]
    p = np.exp(z)
    return p / p.sum(1, keepdims=True), y


def test_the_default_rule_leaves_probabilities_as_they_are():
    p, _ = drawn(50, 3)
    assert scores(DEFAULT, p) is p


@pytest.mark.parametrize("column", [0, 1])
def test_a_threshold_answers_its_class_above_it_and_keeps_the_ranking(column):
    p, _ = drawn(500, 2)
    decided = scores(DecisionRule(kind="threshold", values=(0.2,), column=column), p)
    np.testing.assert_array_equal(decided.argmax(1) == column, p[:, column] > 0.2)
    np.testing.assert_array_equal(np.argsort(decided[:, 1]), np.argsort(p[:, 1]))
    np.testing.assert_allclose(decided.sum(1), 1)


def test_thresholds_answer_each_label_above_its_own():
    p = np.random.default_rng(0).random((200, 3))
    p[0], p[1] = 0, 1
    values = (0.1, 0.5, 0.8)
    decided = scores(DecisionRule(kind="thresholds", values=values), p)
    np.testing.assert_array_equal(decided > metrics.THRESHOLD, p > np.array(values))


def test_offsets_are_added_to_log_probabilities():
    p, _ = drawn(300, 3)
    offsets = (0.0, 1.0, -0.5)
    decided = scores(DecisionRule(kind="offsets", values=offsets), p)
    np.testing.assert_array_equal(decided.argmax(1), (np.log(p) + offsets).argmax(1))


def test_costs_give_the_answer_that_costs_least_on_average():
    p, y = drawn(400, 2)
    matrix = cost_matrix(COSTS, CLASSES)
    np.testing.assert_array_equal(matrix, [[0, 5], [1, 0]])
    rule = DecisionRule(kind="costs", costs=tuple(map(tuple, matrix.tolist())))
    answered = scores(rule, p).argmax(1)
    np.testing.assert_array_equal(answered == 0, p[:, 0] > 1 / 6)
    measure = Measure.of("neg_mean_cost", COSTS, CLASSES)
    assert measure(p, y, None) == pytest.approx(
        -np.mean([matrix[t, a] for t, a in zip(y, answered, strict=True)])
    )
    # By the default rule, half as sure is not enough for the answer that is cheap when wrong.
    assert measure(p, y, None, p) < measure(p, y, None)


def test_large_costs_do_not_drown_the_answer():
    p, _ = drawn(400, 3)
    matrix = 1e6 * np.array([[0, 1, 2], [3, 0, 1], [1, 1, 0]])
    rule = DecisionRule(kind="costs", costs=tuple(map(tuple, matrix.tolist())))
    np.testing.assert_array_equal(scores(rule, p).argmax(1), (p @ matrix).argmin(1))


@pytest.mark.parametrize("precision", [0.5, 0.8, 0.95, 1.0])
def test_recall_at_a_precision_is_that_of_the_precision_recall_curve(precision):
    p, y = drawn(300, 2)
    p = p.round(2)
    measure = Measure.of(f"recall@precision={precision:g}", None, CLASSES)
    for positive in (0, 1):
        found, recalls, _ = reference.precision_recall_curve(y == positive, p[:, positive])
        assert measure(p, y, positive) == pytest.approx(recalls[found >= precision].max())


def test_recall_at_a_precision_of_several_classes_is_their_mean_and_undefined_without_one():
    p, y = drawn(300, 3)
    measure = Measure.of("recall@precision=0.9", None, ("a", "b", "c"))
    each = [
        Measure("recall@precision=0.9")(np.c_[1 - p[:, c], p[:, c]], (y == c).astype(int), 1)
        for c in range(3)
    ]
    assert measure(p, y, None) == pytest.approx(np.mean(each))
    assert measure(p, np.eye(3, dtype=int)[y], None) == pytest.approx(np.mean(each))
    assert np.isnan(measure(p, np.zeros(300, int), None))


def test_answers_decide_what_counts_them_and_nothing_else():
    p, y = drawn(300, 2)
    decided = scores(DecisionRule(kind="threshold", values=(0.05,), column=1), p)
    for name in metrics.METRICS:
        measure = Measure(name)
        differs = measure(p, y, 1, decided) != measure(p, y, 1)
        assert differs == measure.decides, name


@pytest.mark.parametrize(
    ("metric", "costs", "several", "message"),
    [
        ("neg_mean_cost", None, False, "needs costs"),
        ("accuracy", COSTS, False, "the metric is 'accuracy'"),
        ("neg_mean_cost", COSTS, True, "any number of classes"),
        ("neg_mean_cost", {"defectiv": {}}, False, "'defectiv'.*did you mean 'defective'"),
        ("neg_mean_cost", {"defective": {"functional": 1}}, False, "'defective' where 'functional' is true"),
        ("neg_mean_cost", COSTS | {"functional": {"defective": -1}}, False, "is -1; give a finite number"),
        (
            "neg_mean_cost",
            {"defective": {"functional": 0.1}, "functional": {"defective": 0.01}},
            False,
            "is 0.1;",
        ),
        ("recall@precision=1.5", None, False, "above 0 and at most 1"),
        ("recall@precission=0.9", None, False, "such as recall@precision=0.9"),
        ("macro_f2", None, False, "did you mean 'macro_f1'"),
    ],
)
def test_what_cannot_rank_a_search_is_refused(metric, costs, several, message):
    with pytest.raises(InvalidInput, match=message):
        check_measure(metric, costs, CLASSES, multi_label=several)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "threshold", "values": (0.5,)},
        {"kind": "threshold", "values": (1.0,), "column": 1},
        {"kind": "offsets"},
        {"kind": "costs", "costs": ((0.0,), (1.0,))},
    ],
)
def test_a_rule_without_its_values_is_no_rule(fields):
    with pytest.raises(ValueError, match=r"decision rule|between 0 and 1"):
        DecisionRule(**fields)
