"""Metrics, intervals and calibration, against scikit-learn and against simulated truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from autovision import metrics
from autovision.errors import InvalidInput
from autovision.records import Evaluation, Split


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
    return metrics.evaluate(
        probabilities,
        labels,
        classes,
        positive_class=positive_class,
        dataset="d@1",
        split=Split.TEST,
        **kwargs,
    )


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
    assert set(metrics.score(p, y, 1)) == {"accuracy", "balanced_accuracy", "neg_log_loss"}


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
    ],
)
def test_bad_arrays_are_refused(probabilities, labels, message):
    for refuse in (metrics.score, metrics.fit_temperature, evaluate):
        with pytest.raises(InvalidInput, match=message):
            refuse(probabilities, labels)


# ----------------------------------------------------------------------------------------- evaluation


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


def test_calibration_error_of_a_known_case():
    # 80 % sure and right in 1 of 2: a gap of 0.3; 100 % sure and right: none.
    p = np.array([[0.8, 0.2], [0.8, 0.2], [1.0, 0.0], [1.0, 0.0]])
    assert metrics.expected_calibration_error(p, np.array([0, 1, 0, 0])) == pytest.approx(0.15)


# ---------------------------------------------------------------------------------------- calibration


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("n_classes", [2, 6])
def test_temperature_is_found_again(temperature, n_classes):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5000, n_classes)) * 2
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    assert metrics.fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.07)


def test_temperature_ignores_offsets_and_huge_logits():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(400, 3)) * 300
    labels = (logits / 100 + rng.gumbel(size=logits.shape)).argmax(1)
    fitted = metrics.fit_temperature(logits, labels)
    assert fitted == pytest.approx(metrics.fit_temperature(logits + 1e4, labels), rel=1e-3)
    assert 10 < fitted <= 20.001


def test_temperature_stays_moderate_on_separated_and_on_hopeless_labels():
    labels = np.arange(100) % 2
    margins = np.where(labels == 1, 1.5, -1.5)
    separated = np.column_stack([-margins, margins])
    assert 0.2 < metrics.fit_temperature(separated, labels) < 0.9
    assert metrics.fit_temperature(separated * 20, labels) == pytest.approx(1.0, abs=0.01)
    assert metrics.fit_temperature(separated, 1 - labels) > 4
    assert metrics.fit_temperature(np.zeros((3, 2)), [0, 1, 1]) == pytest.approx(1.0, abs=0.01)
