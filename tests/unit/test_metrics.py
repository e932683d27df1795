"""Metrics, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from autovision import metrics
from autovision.calibration import fit_temperature
from autovision.errors import InvalidInput


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


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_two_classes_agree_with_scikit_learn(seed, ties):
    p, y = sample(300, 2, seed, ties=ties)
    predicted = p.argmax(1)
    assert metrics.score(p, y, 1) == pytest.approx(
        {
            "accuracy": reference.accuracy_score(y, predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(y, predicted),
            "f1": reference.f1_score(y, predicted),
            "macro_f1": reference.f1_score(y, predicted, average="macro"),
            "auroc": reference.roc_auc_score(y, p[:, 1]),
            "average_precision": reference.average_precision_score(y, p[:, 1]),
            "neg_log_loss": -reference.log_loss(y, p),
        }
    )


def test_positive_class_may_be_the_first():
    p, y = sample(200, 2)
    values = metrics.score(p, y, 0)
    assert values["f1"] == pytest.approx(reference.f1_score(y, p.argmax(1), pos_label=0))
    assert values["average_precision"] == pytest.approx(reference.average_precision_score(y == 0, p[:, 0]))


def test_many_classes_agree_with_scikit_learn():
    p, y = sample(400, 5)
    assert metrics.score(p, y) == pytest.approx(
        {
            "accuracy": reference.accuracy_score(y, p.argmax(1)),
            "balanced_accuracy": reference.balanced_accuracy_score(y, p.argmax(1)),
            "f1": reference.f1_score(y, p.argmax(1), average="macro"),
            "macro_f1": reference.f1_score(y, p.argmax(1), average="macro"),
            "auroc": reference.roc_auc_score(y, p, multi_class="ovr"),
            "average_precision": reference.average_precision_score(np.eye(5)[y], p),
            "neg_log_loss": -reference.log_loss(y, p),
        }
    )


@given(st.integers(1, 40), st.integers(2, 4), st.integers(0, 10_000))
def test_score_is_finite_and_ignores_the_order_of_rows(n, n_classes, seed):
    rng = np.random.default_rng(seed)
    p, y = (
        softmax(np.round(rng.normal(size=(n, n_classes)))),
        rng.integers(0, rng.integers(1, n_classes + 1), n),
    )
    values = metrics.score(p, y, 1)
    order = rng.permutation(n)
    assert np.isfinite(list(values.values())).all()
    assert metrics.score(p[order], y[order], 1) == pytest.approx(values)


def test_undefined_metrics_are_left_out():
    p, y = np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0])
    assert set(metrics.score(p, y, 1)) == {"accuracy", "balanced_accuracy", "macro_f1", "neg_log_loss"}


def test_log_loss_of_a_certain_error_is_finite():
    assert metrics.score([[1.0, 0.0]], [1])["neg_log_loss"] == pytest.approx(np.log(np.finfo(np.float32).eps))


def test_unknown_metric_offers_the_near_ones():
    assert metrics.check_metric("auroc") == "auroc"
    with pytest.raises(InvalidInput, match="'acuracy'; did you mean 'accuracy'"):
        metrics.check_metric("acuracy")


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "no images to score"),
        (np.zeros((3, 2)), np.zeros(2, int), "do not go with"),
        (np.zeros((2, 1)), np.zeros(2, int), "at least two classes"),
        (np.zeros((2, 2)), np.zeros(2), "float64"),
        (np.zeros((2, 2)), np.array([0, 2]), "labels go from 0 to 2"),
        (np.array([[0.5, np.nan], [0.5, 0.5]]), np.array([0, 1]), "1 of 2 rows .* diverged"),
        (np.zeros((3, 2)), np.zeros((3, 3), int), "do not go with"),
        (np.zeros((2, 2)), np.zeros((2, 2), bool), "zeros and ones, in integers, .* bool"),
        (np.zeros((2, 2)), np.array([[0, 1], [2, 0]]), "zeros and ones, but these go from 0 to 2"),
    ],
)
def test_bad_arrays_are_refused(probabilities, labels, message):
    for refuse in (metrics.score, fit_temperature):
        with pytest.raises(InvalidInput, match=message):
            refuse(probabilities, labels)


def test_calibration_error_of_a_known_case():
    # 80 % sure and right in 1 of 2: a gap of 0.3; 100 % sure and right: none.
    p = np.array([[0.8, 0.2], [0.8, 0.2], [1.0, 0.0], [1.0, 0.0]])
    assert metrics.expected_calibration_error(p, np.array([0, 1, 0, 0])) == pytest.approx(0.15)


# ------------------------------------------------------------------------------------- several labels


def sample_of_sets(n, n_classes, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, n_classes)) < np.linspace(0.2, 0.7, n_classes)).astype(int)
    logits = rng.normal(size=(n, n_classes)) + 2 * labels - 1
    return 1 / (1 + np.exp(-(np.round(logits) + 0.01 if ties else logits))), labels


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_several_labels_agree_with_scikit_learn(n_classes, ties):
    p, y = sample_of_sets(300, n_classes, ties=ties)
    said = p > 0.5
    assert metrics.score(p, y) == pytest.approx(
        {
            "accuracy": reference.accuracy_score(y, said),
            "balanced_accuracy": np.mean(
                [reference.balanced_accuracy_score(y[:, c], said[:, c]) for c in range(n_classes)]
            ),
            "f1": reference.f1_score(y, said, average="macro"),
            "macro_f1": reference.f1_score(y, said, average="macro"),
            "auroc": reference.roc_auc_score(y, p, average="macro"),
            "average_precision": reference.average_precision_score(y, p, average="macro"),
            "neg_log_loss": -np.mean([reference.log_loss(y[:, c], p[:, c]) for c in range(n_classes)]),
        }
    )


@given(st.integers(1, 40), st.integers(2, 4), st.integers(0, 10_000))
def test_score_of_several_labels_is_finite_and_ignores_the_order_of_rows(n, n_classes, seed):
    rng = np.random.default_rng(seed)
    p, y = rng.random((n, n_classes)).round(1), rng.integers(0, rng.integers(1, 3), (n, n_classes))
    values = metrics.score(p, y)
    order = rng.permutation(n)
    assert np.isfinite(list(values.values())).all()
    assert {"accuracy", "balanced_accuracy", "neg_log_loss"} <= values.keys()
    assert metrics.score(p[order], y[order]) == pytest.approx(values)


def test_one_hot_labels_are_answered_like_single_ones_where_one_class_is_above_the_threshold():
    p, y = sample(200, 2)
    one, several = metrics.score(p, y), metrics.score(p, np.eye(2, dtype=int)[y])
    assert {name: several[name] for name in one} == pytest.approx(one)


def test_a_class_that_no_image_or_every_image_has_leaves_ranking_undefined():
    p, y = sample_of_sets(50, 3)
    for absent in (0, 1):
        y[:, 1] = absent
        assert {"auroc", "average_precision"}.isdisjoint(metrics.score(p, y))
    y[:], p[:] = 0, 0.1
    assert set(metrics.score(p, y)) == {"accuracy", "balanced_accuracy", "neg_log_loss"}


def test_calibration_error_of_several_labels_counts_every_decision():
    # 80 % sure of a class and right in 1 of 2; 90 % sure that there is none, and right.
    p, y = np.array([[0.8, 0.1], [0.8, 0.1]]), np.array([[1, 0], [0, 0]])
    assert metrics.expected_calibration_error(p, y) == pytest.approx((0.3 + 0.1) / 2)
