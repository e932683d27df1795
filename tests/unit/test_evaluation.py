"""Evaluations and their intervals, against scikit-learn and against simulated truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from autovision import evaluation, metrics
from autovision.errors import InvalidInput
from autovision.records.datasets import Split
from autovision.records.models import Evaluation


def sample(n, n_classes, seed=0, signal=1.5, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes))
    logits[np.arange(n), labels] += signal
    if ties:
        logits = np.round(logits)
    return softmax(logits), labels


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def evaluate(probabilities, labels, classes=("a", "b"), positive_class="b", **kwargs):
    return evaluation.evaluate(
        probabilities,
        labels,
        classes,
        positive_class=positive_class,
        dataset="d@1",
        split=Split.TEST,
        **kwargs,
    )


def test_evaluation_holds_the_metrics_and_survives_json():
    p, y = sample(300, 2)
    result, values = evaluate(p, y, where={"cell_type": "poly"}), metrics.score(p, y, 1)
    assert result.accuracy.value == pytest.approx(values["accuracy"])
    assert result.balanced_accuracy.value == pytest.approx(values["balanced_accuracy"])
    assert result.f1.value == pytest.approx(values["f1"])
    assert result.auroc is not None and result.auroc.value == pytest.approx(values["auroc"])
    assert result.log_loss == pytest.approx(-values["neg_log_loss"])
    assert np.array_equal(result.confusion, reference.confusion_matrix(y, p.argmax(1)))
    assert result.majority_accuracy == pytest.approx(np.bincount(y).max() / len(y))
    assert result.per_class_recall == pytest.approx(
        dict(zip("ab", reference.recall_score(y, p.argmax(1), average=None), strict=True))
    )
    assert Evaluation.model_validate_json(result.to_json()) == result


@given(st.integers(1, 60), st.integers(2, 4), st.integers(0, 10_000))
def test_intervals_hold_their_figure_and_ignore_the_order_of_rows(n, n_classes, seed):
    rng = np.random.default_rng(seed)
    p, y = softmax(rng.normal(size=(n, n_classes))), rng.integers(0, n_classes, n)
    classes = [str(c) for c in range(n_classes)]
    result = evaluate(p, y, classes, positive_class="1", resamples=100)
    for interval in filter(None, (result.accuracy, result.balanced_accuracy, result.f1, result.auroc)):
        assert 0 <= interval.low <= interval.value <= interval.high <= 1
        assert interval.low < interval.high
    order = rng.permutation(n)
    again = evaluate(p[order], y[order], classes, positive_class="1", resamples=100)
    assert again.f1 == result.f1 and again.balanced_accuracy == result.balanced_accuracy


def test_absent_classes_are_left_out():
    p, y = sample(50, 2)
    result = evaluate(np.column_stack([p, np.zeros(50)]), y, ("a", "b", "c"), positive_class=None)
    assert result.auroc is None
    assert set(result.per_class_recall) == {"a", "b"}
    assert result.balanced_accuracy.value == pytest.approx(reference.balanced_accuracy_score(y, p.argmax(1)))


def test_f1_without_positives_says_that_nothing_is_known():
    interval = evaluate(np.array([[0.9, 0.1]] * 5), np.zeros(5, int)).f1
    assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 1.0)


def test_no_error_on_few_images_is_not_certainty():
    y = np.array([0] * 10 + [1] * 10)
    result = evaluate(np.eye(2)[y], y)
    for interval in (result.accuracy, result.balanced_accuracy, result.f1, result.auroc):
        assert interval.value == 1.0 and 0.6 < interval.low < 0.95


def test_intervals_cover_the_truth():
    """600 sets of 80 images whose true figures are known; 95 %, ±3 standard errors = ±2.7 points."""

    def draw(n, rng):
        y = (rng.random(n) < 0.3).astype(int)
        second = 1 / (1 + np.exp(-(2 * (rng.normal(size=n) + 2 * y) - 2.85)))
        return np.column_stack([1 - second, second]), y

    truth = metrics.score(*draw(200_000, np.random.default_rng(0)), 1)
    names = ("accuracy", "balanced_accuracy", "f1", "auroc")
    hits = dict.fromkeys(names, 0)
    for seed in range(600):
        result = evaluate(*draw(80, np.random.default_rng(seed + 1)), resamples=300, seed=seed)
        for name in names:
            interval = getattr(result, name)
            hits[name] += interval.low <= truth[name] <= interval.high
    assert all(0.92 <= hits[name] / 600 <= 0.985 for name in names), hits


def test_classes_must_fit():
    p, y = sample(10, 2)
    with pytest.raises(InvalidInput, match="2 columns of probabilities for 3 classes"):
        evaluate(p, y, ("a", "b", "c"))
    with pytest.raises(InvalidInput, match="'z' is none of"):
        evaluate(p, y, positive_class="z")


# ------------------------------------------------------------------------------------- several labels


def draw_sets(n, rng):
    """Three classes; labels and scores of an image hang together."""
    mood, luck = rng.normal(size=(n, 1)), rng.normal(size=(n, 1))
    y = (rng.normal(size=(n, 3)) / 4 + mood < [-0.5, 0, 0.5]).astype(int)
    logits = 1.5 * (rng.normal(size=(n, 3)) / 4 + luck + 2 * y - [1.2, 1, 0.8])
    return 1 / (1 + np.exp(-logits)), y


def evaluate_sets(p, y, **kwargs):
    return evaluate(p, y, tuple("abc"), positive_class=None, **kwargs)


def test_evaluation_of_several_labels_holds_the_metrics_and_has_no_confusion_matrix():
    p, y = draw_sets(300, np.random.default_rng(0))
    result, values = evaluate_sets(p, y), metrics.score(p, y)
    for name in ("accuracy", "balanced_accuracy", "f1", "auroc"):
        assert getattr(result, name).value == pytest.approx(values[name])
    assert result.average_precision == pytest.approx(values["average_precision"])
    assert result.log_loss == pytest.approx(-values["neg_log_loss"])
    assert result.confusion == ()
    assert result.majority_accuracy == pytest.approx(np.unique(y, axis=0, return_counts=True)[1].max() / 300)
    assert result.per_class_recall == pytest.approx(
        dict(zip("abc", reference.recall_score(y, p > 0.5, average=None), strict=True))
    )
    assert Evaluation.model_validate_json(result.to_json()) == result


@given(st.integers(1, 60), st.integers(0, 10_000))
def test_intervals_of_several_labels_hold_their_figure_and_ignore_the_order_of_rows(n, seed):
    rng = np.random.default_rng(seed)
    p, y = rng.random((n, 3)), rng.integers(0, rng.integers(1, 3), (n, 3))
    result, order = evaluate_sets(p, y, resamples=100), rng.permutation(n)
    for interval in filter(None, (result.accuracy, result.balanced_accuracy, result.f1, result.auroc)):
        assert 0 <= interval.low <= interval.value <= interval.high <= 1
        assert interval.low < interval.high
    again = evaluate_sets(p[order], y[order], resamples=100)
    assert again.f1 == result.f1 and again.balanced_accuracy == result.balanced_accuracy


def test_intervals_of_several_labels_are_drawn_in_parts_where_images_are_many(monkeypatch):
    p, y = draw_sets(100, np.random.default_rng(0))
    whole = evaluate_sets(p, y)
    monkeypatch.setattr(evaluation, "_DRAWS_AT_ONCE", 1)
    parts = evaluate_sets(p, y)
    assert parts.f1.low == pytest.approx(whole.f1.low, abs=0.02)
    assert parts.balanced_accuracy.high == pytest.approx(whole.balanced_accuracy.high, abs=0.02)


def test_intervals_of_several_labels_cover_the_truth():
    """As above; the labels of an image hang together, so that drawing labels by themselves would fail."""
    truth = metrics.score(*draw_sets(200_000, np.random.default_rng(0)))
    names = ("accuracy", "balanced_accuracy", "f1", "auroc")
    hits = dict.fromkeys(names, 0)
    for seed in range(600):
        result = evaluate_sets(*draw_sets(80, np.random.default_rng(seed + 1)), resamples=300, seed=seed)
        for name in names:
            interval = getattr(result, name)
            hits[name] += interval.low <= truth[name] <= interval.high
    assert all(0.92 <= hits[name] / 600 <= 0.985 for name in names), hits
