"""Bootstrap intervals of every figure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as reference

from autovision import bootstrap, metrics
from autovision.bootstrap import Said, intervals
from autovision.decisions import Measure, scores
from autovision.records.models import DecisionRule

RULE = DecisionRule(kind="threshold", values=(0.3,), column=1)


def draw(n, rng):
    y = (rng.random(n) < 0.3).astype(int)
    second = 1 / (1 + np.exp(-(2 * (rng.normal(size=n) + 2 * y) - 2.85)))
    p = np.column_stack([1 - second, second])
    return Said(p, scores(RULE, p), y, 1)


def draw_sets(n, rng):
    y = (rng.random((n, 3)) < [0.2, 0.5, 0.7]).astype(int)
    p = 1 / (1 + np.exp(-(rng.normal(size=y.shape) + 2 * y - 1)))
    return Said(p.round(1), p.round(1), y, None)


def draw_classes(n, rng):
    y = rng.integers(0, 3, n)
    p = np.exp(rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[y]).round(1)
    p /= p.sum(1, keepdims=True)
    return Said(p, p, y, None)


@pytest.mark.parametrize("drawn", [draw, draw_sets, draw_classes])
def test_the_figures_are_those_of_the_metrics_with_ties_too(drawn):
    said = drawn(200, np.random.default_rng(0))
    found = intervals(said, Measure("recall@precision=0.8"), resamples=1000)
    for name, metric in metrics.METRICS.items():
        known = metric(
            said.decided if name in metrics.DECIDED else said.probabilities, said.labels, said.positive
        )
        figure = found["log_loss" if name == "neg_log_loss" else name]
        assert figure.value == pytest.approx(-known if name == "neg_log_loss" else known), name
        assert figure.low < figure.value < figure.high
    assert found["ece"].value == pytest.approx(
        metrics.expected_calibration_error(said.probabilities, said.labels)
    )
    if not said.has_rule:
        assert "precision" not in found
        assert found["recall@precision=0.8"].value == pytest.approx(
            metrics.recall_at_precision(said.probabilities, said.labels, said.positive, 0.8)
        )


def test_at_an_operating_point_recall_and_precision_are_those_of_the_answers():
    """The best threshold on these images is another one than was chosen elsewhere."""
    said = draw(200, np.random.default_rng(0))
    answered = said.decided.argmax(1)
    for positive in (1, None):
        found = intervals(replace(said, positive=positive), Measure("recall@precision=0.9"), resamples=200)
        recall, precision = found["recall@precision=0.9"], found["precision"]
        assert recall.value == pytest.approx(reference.recall_score(said.labels, answered))
        assert precision.value == pytest.approx(reference.precision_score(said.labels, answered))
        assert precision.value < 0.9
        assert recall.low < recall.value < recall.high and precision.low < precision.value < precision.high
    assert "precision" not in intervals(said, Measure("f1"), resamples=10)
    sets = draw_sets(300, np.random.default_rng(1))
    moved = replace(
        sets, decided=scores(DecisionRule(kind="thresholds", values=(0.3, 0.4, 0.7)), sets.decided)
    )
    found = intervals(moved, Measure("recall@precision=0.9"), resamples=200)
    for name, score in (
        ("recall@precision=0.9", reference.recall_score),
        ("precision", reference.precision_score),
    ):
        known = score(moved.labels, moved.decided > 0.5, average="macro")
        assert found[name].value == pytest.approx(known)


def test_a_resample_is_what_the_metrics_make_of_the_images_that_it_drew():
    said = draw(60, np.random.default_rng(0)).in_order()
    (weights,) = bootstrap._resampled(said, seed=1, resamples=5)
    assert (weights.sum(1) == 60).all() and len(np.unique(weights, axis=0)) == 5
    measure = Measure("recall@precision=0.9")
    figures = bootstrap._figures(said, measure, weights)
    ranked = bootstrap._figures(replace(said, decided=said.probabilities), measure, weights)
    for row in range(5):
        at = np.repeat(np.arange(60), weights[row].astype(int))
        p, decided, y = said.probabilities[at], said.decided[at], said.labels[at]
        for name in ("auroc", "average_precision"):
            assert figures[name][row] == pytest.approx(metrics.METRICS[name](p, y, 1))
        for name in metrics.DECIDED:
            assert figures[name][row] == pytest.approx(metrics.METRICS[name](decided, y, 1))
        assert figures["ece"][row] == pytest.approx(metrics.expected_calibration_error(p, y))
        assert ranked["recall@precision=0.9"][row] == pytest.approx(metrics.recall_at_precision(p, y, 1, 0.9))
        assert figures["recall@precision=0.9"][row] == reference.recall_score(y, decided.argmax(1))
        assert figures["precision"][row] == reference.precision_score(y, decided.argmax(1))


def test_costs_have_an_interval():
    said = draw(300, np.random.default_rng(0))
    measure = Measure("neg_mean_cost", np.array([[0.0, 1.0], [5.0, 0.0]]))
    figure = intervals(said, measure)["neg_mean_cost"]
    assert figure.value == pytest.approx(measure(said.probabilities, said.labels, 1, said.decided))
    assert figure.low < figure.value < figure.high < 0


def test_the_order_of_rows_and_how_many_are_drawn_at_once_change_nothing(monkeypatch):
    said = draw(100, np.random.default_rng(0))
    order = np.random.default_rng(1).permutation(100)
    turned = Said(said.probabilities[order], said.decided[order], said.labels[order], 1)
    assert intervals(turned, seed=3) == intervals(said, seed=3) != intervals(said, seed=4)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 10_000)
    for name, figure in intervals(said, seed=3).items():
        assert figure.low == pytest.approx(intervals(said, seed=4)[name].low, abs=0.05)


def test_what_is_undefined_is_left_out():
    found = intervals(Said(np.full((4, 2), 0.5), np.full((4, 2), 0.5), np.zeros(4, int), 1))
    assert {"auroc", "average_precision", "f1"}.isdisjoint(found) and {"accuracy", "log_loss"} <= found.keys()


def test_intervals_cover_the_truth():
    """300 sets of 200 images whose true figures are known; 95 % nominal, percentiles are a little narrow."""
    truth = {
        name: f.value for name, f in intervals(draw(200_000, np.random.default_rng(0)), resamples=1).items()
    }
    truth.pop("ece")  # of a calibrated model it is 0 but for chance, and its bootstrap is biased upwards
    hits = dict.fromkeys(truth, 0)
    for seed in range(300):
        found = intervals(draw(200, np.random.default_rng(seed + 1)), resamples=400, seed=seed)
        for name in truth:
            hits[name] += found[name].low <= truth[name] <= found[name].high
    assert all(0.90 <= count / 300 <= 0.98 for count in hits.values()), hits


def test_images_of_a_group_are_drawn_together():
    """Five copies of each image are no more witnesses than one: the intervals are those of the images alone."""
    said = draw(100, np.random.default_rng(0))
    names = np.array([f"p{i:03}" for i in range(100)])
    copies = Said(*(each.repeat(5, axis=0) for each in (said.probabilities, said.decided, said.labels)), 1)
    grouped, plain = replace(copies, groups=names.repeat(5)), intervals(copies, seed=1)
    (weights,) = bootstrap._resampled(grouped.in_order(), seed=1, resamples=7)
    ordered = grouped.in_order().groups
    assert all(len(set(row[ordered == name])) == 1 for row in weights for name in names)
    found, alone = intervals(grouped, seed=1), intervals(said, seed=1)
    for name, figure in found.items():
        assert figure.value == pytest.approx(alone[name].value, abs=1e-9)
        width, of_one = figure.high - figure.low, alone[name].high - alone[name].low
        assert width == pytest.approx(of_one, rel=0.2)
        assert width > 1.6 * (plain[name].high - plain[name].low), name
    order = np.random.default_rng(2).permutation(500)
    turned = Said(*(each[order] for each in (copies.probabilities, copies.decided, copies.labels)), 1)
    assert intervals(replace(turned, groups=names.repeat(5)[order]), seed=1) == found


def test_groups_of_several_sizes_are_weighed_by_their_images_and_one_group_is_no_group():
    said = draw(60, np.random.default_rng(0))
    grouped = replace(said, groups=np.array(["a"] * 30 + ["b"] * 20 + ["c"] * 10)).in_order()
    (weights,) = bootstrap._resampled(grouped, seed=1, resamples=5)
    figures = bootstrap._figures(grouped, None, weights)
    for row in range(5):
        at = np.repeat(np.arange(60), weights[row].astype(int))
        p, decided, y = grouped.probabilities[at], grouped.decided[at], grouped.labels[at]
        assert figures["accuracy"][row] == pytest.approx(metrics.accuracy(decided, y))
        assert figures["log_loss"][row] == pytest.approx(-metrics.neg_log_loss(p, y))
        assert figures["ece"][row] == pytest.approx(metrics.expected_calibration_error(p, y))
    assert intervals(replace(said, groups=np.array(["a"] * 60)), seed=1) == intervals(said, seed=1)
