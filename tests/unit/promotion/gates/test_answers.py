import dataclasses

import numpy as np
import pytest

from autovision.errors import InvalidInput
from autovision.metrics import balanced_accuracy
from autovision.promotion.gates import majority
from autovision.promotion.gates.better import better_somewhere
from autovision.promotion.gates.forgetting import no_forgetting
from autovision.promotion.gates.majority import beats_majority
from autovision.promotion.gates.not_worse import not_worse_on, not_worse_overall
from autovision.promotion.gates.paired import Paired


def test_a_good_first_model_beats_the_majority(answers):
    labels = np.arange(100) % 3 // 2
    wrong = np.arange(100) % 10 == 0
    result = beats_majority(Paired(labels, None, answers(np.where(wrong, 1 - labels, labels))))
    assert result.passed and result.numbers["accuracy"] == pytest.approx(0.9)
    assert "0.900 against 0.670" in result.reason


def test_a_detector_of_a_rare_class_may_lose_accuracy(answers):
    labels = (np.arange(1000) % 20 == 0).astype(int)
    predicted = np.where(labels == 1, 1, (np.arange(1000) % 5 == 1).astype(int))
    result = beats_majority(Paired(labels, None, answers(predicted)))
    assert result.passed and result.numbers["accuracy"] < result.numbers["majority_accuracy"]


def test_guessing_beats_the_majority_in_at_most_five_percent(answers):
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(100):
        labels, predicted = (rng.random(80) < 0.4).astype(int), (rng.random(80) < 0.3).astype(int)
        passed += beats_majority(Paired(labels, None, answers(predicted))).passed
    assert passed <= 11  # 5 expected at the most; above 11 with a probability under 1 %


def test_one_class_alone_proves_nothing(answers):
    labels = np.zeros(50, int)
    assert not beats_majority(Paired(labels, None, answers(labels))).passed


def test_equal_models_are_not_worse_and_not_better(paired):
    for n in (30, 300):
        same = paired(n, 0, 0)
        assert not_worse_overall(same).passed and not better_somewhere(same).passed
        for label in (0, 1):
            assert no_forgetting(same, label).passed


@pytest.mark.parametrize(
    ("n", "gained", "lost", "rule", "passed"),
    [
        (2000, 50, 55, "non-inferiority", True),
        (2000, 50, 110, "non-inferiority", False),
        (100, 5, 7, "no significant worsening", True),
        (100, 2, 14, "no significant worsening", False),
        (100, 30, 2, "non-inferiority", True),
    ],
)
def test_the_rule_follows_the_number_of_images(paired, n, gained, lost, rule, passed):
    result = not_worse_overall(paired(n, gained, lost))
    assert (result.numbers["rule"], result.passed) == (rule, passed)
    assert (result.numbers["gained"], result.numbers["lost"]) == (gained, lost)
    assert f"n = {n}" in result.reason


def test_a_challenger_worse_by_the_margin_passes_in_five_percent(paired):
    """500 sets of 1,000 images on which the challenger loses 3 points; ±3 standard errors."""
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(500):
        gained, lost, _ = rng.multinomial(1000, [0.02, 0.05, 0.93])
        passed += not_worse_overall(paired(1000, gained, lost)).passed
    assert 0.02 <= passed / 500 <= 0.08


def test_subgroups_are_judged_apart(paired):
    both = paired(400, 60, 0)
    mono = np.arange(400) < 150
    right_before = both.champion.argmax(1) == both.labels
    challenger = both.challenger.copy()
    flipped = mono & right_before & (np.arange(400) % 2 == 0)
    challenger[flipped] = challenger[flipped][:, ::-1]
    pair = dataclasses.replace(both, challenger=challenger, groups={"mono": mono, "poly": ~mono})
    assert not_worse_on(pair, "poly").passed and not not_worse_on(pair, "mono").passed
    assert better_somewhere(pair).numbers["where"] == "poly"


def test_gain_on_a_subgroup_alone_counts(paired):
    pair = paired(1000, 30, 30)
    gained = (pair.challenger.argmax(1) == pair.labels) & (pair.champion.argmax(1) != pair.labels)
    result = better_somewhere(dataclasses.replace(pair, groups={"new": gained, "none": ~gained & False}))
    assert result.passed and result.numbers["where"] == "new" and len(result.numbers["p_values"]) == 2


def test_an_empty_subgroup_is_not_judged(paired):
    pair = dataclasses.replace(paired(50, 0, 20), groups={"none": np.zeros(50, bool)})
    result = not_worse_on(pair, "none")
    assert result.passed and "no none images" in result.reason


def test_forgetting_a_class_fails(answers):
    labels = np.arange(300) % 3
    forgetful = np.where((labels == 2) & (np.arange(300) % 2 == 0), 1, labels)
    pair = Paired(labels, answers(labels, 3), answers(forgetful, 3), classes=("a", "b", "c"))
    assert not no_forgetting(pair, 2).passed
    assert no_forgetting(pair, 0).passed
    assert "recall of c" in no_forgetting(pair, 2).reason


def test_a_class_that_was_answered_too_often_may_lose_recall(answers):
    labels = (np.arange(400) % 4 == 0).astype(int)
    always = np.ones(400, int)
    better = np.where((labels == 1) & (np.arange(400) % 16 == 0), 0, labels)
    result = no_forgetting(Paired(labels, answers(always), answers(better)), 1)
    assert result.passed and "answered too often before" in result.reason
    assert result.numbers["p_worse"] < 0.05 < result.numbers["f1_gain_low"]


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1", "auroc", "neg_log_loss"])
def test_other_metrics(paired, metric):
    assert better_somewhere(paired(300, 60, 0), metric=metric).passed
    assert not better_somewhere(paired(300, 0, 60), metric=metric).passed
    assert not_worse_overall(paired(300, 60, 0), metric=metric).passed
    assert not not_worse_overall(paired(300, 0, 60), metric=metric).passed
    assert not_worse_overall(paired(300, 5, 5), metric=metric, margin=0.1).passed


def test_a_metric_that_is_undefined_in_a_group_gives_way_to_accuracy(paired):
    pair = paired(300, 30, 0)
    pair = dataclasses.replace(pair, groups={"ok": pair.labels == 0})
    assert not_worse_on(pair, "ok", metric="auroc").numbers["metric"] == "accuracy"
    with pytest.raises(InvalidInput, match=r"auroc is undefined on the .* show only ok"):
        not_worse_overall(pair.only(pair.labels == 0), metric="auroc")


def test_what_does_not_fit_is_refused(answers, paired):
    labels = np.array([0, 1, 1])
    good = answers(labels)
    with pytest.raises(InvalidInput, match="bring both to the challenger's classes"):
        Paired(labels, answers(labels, 3), good)
    with pytest.raises(InvalidInput, match="'g' is not a mask over the 3 images"):
        Paired(labels, good, good, groups={"g": np.array([0, 1])})
    with pytest.raises(InvalidInput, match="1 classes are named for 2"):
        Paired(labels, good, good, classes=("a",))
    with pytest.raises(InvalidInput, match="no champion to compare with"):
        not_worse_overall(Paired(labels, None, good))
    with pytest.raises(InvalidInput, match="margin is 0"):
        not_worse_overall(paired(10, 0, 0), margin=0)


# --------------------------------------------------------------------------------------- several classes


def of_sets(n=400, n_classes=3, right=0.9, seed=0):
    """Labels, and probabilities whose every decision is right with that probability."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, n_classes)) < 0.4).astype(int)
    said = labels ^ (rng.random(labels.shape) > right)
    return labels, np.where(said == 1, 0.8, 0.2)


def test_a_first_model_of_several_classes_beats_the_most_frequent_set():
    labels, said = of_sets()
    result = beats_majority(Paired(labels, None, said, classes=("a", "b", "c")))
    assert result.passed
    assert result.numbers["accuracy"] == pytest.approx(0.9**3, abs=0.05)
    assert result.numbers["majority_accuracy"] == pytest.approx(0.6**3, abs=0.05)
    assert "none of the classes" in result.reason and "against 0.500" in result.reason
    for blind in (0.2, 0.8):
        assert not beats_majority(Paired(labels, None, np.full(said.shape, blind))).passed


def test_a_class_that_is_rare_among_several_may_be_found_below_the_majoritys_accuracy():
    rng = np.random.default_rng(0)
    labels = (rng.random((500, 2)) < 0.04).astype(int)
    said = labels | (rng.random(labels.shape) < 0.1)
    result = beats_majority(Paired(labels, None, np.where(said == 1, 0.7, 0.1)))
    assert result.passed and result.numbers["accuracy"] < result.numbers["majority_accuracy"]


def test_what_the_balanced_accuracy_of_several_classes_is_worth():
    labels, said = of_sets(n=50)
    labels[:, 2] = 1
    worth, chance = majority._worth(said, labels)
    assert chance == 0.5

    def value(p):
        hits = (p > 0.5) & (labels == 1)
        return balanced_accuracy(p, labels), float(hits.sum(0) @ worth) / 6

    (before, hits_before), (after, hits_after) = value(said), value(said[::-1])
    assert before - after == pytest.approx(hits_before - hits_after) != 0


def test_forgetting_one_class_of_several_fails_by_its_own_answers():
    labels, before = of_sets(right=0.95)
    after = before.copy()
    after[labels[:, 1] == 1, 1] = 0.2
    paired = Paired(labels, before, after, classes=("a", "b", "c"))
    assert [no_forgetting(paired, label).passed for label in range(3)] == [True, False, True]
    assert "in the recall of b" in no_forgetting(paired, 1).reason
    assert not not_worse_overall(paired).passed


@pytest.mark.parametrize("metric", ["accuracy", "f1", "average_precision"])
def test_a_better_model_of_several_classes_is_better_somewhere_by_any_metric(metric):
    labels, before = of_sets(n=200, right=0.75)
    _, after = of_sets(n=200, right=0.95)
    paired = Paired(labels, before, after, groups={"left": np.arange(200) < 100})
    assert better_somewhere(paired, metric=metric).passed
    assert not_worse_on(paired, "left", metric=metric).passed
    assert not better_somewhere(Paired(labels, after, before), metric=metric).passed


# -------------------------------------------------------------------------------------- decision rules


def test_each_side_answers_by_its_own_rule(paired):
    """A challenger of equal probabilities whose rule turns the champion's errors into right answers."""
    pair = paired(300, 60, 0)
    same = dataclasses.replace(pair, challenger=pair.champion, challenger_scores=pair.challenger)
    plain = dataclasses.replace(pair, challenger=pair.champion)
    for metric in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert better_somewhere(same, metric=metric).passed
        assert not better_somewhere(plain, metric=metric).passed
    assert not better_somewhere(same, metric="auroc").passed, "a rule does not change a ranking"
    turned = dataclasses.replace(
        pair, champion=pair.challenger, champion_scores=pair.champion, challenger=pair.champion
    )
    assert not better_somewhere(turned).passed, "the champion's rule counts, not its probabilities"
    assert not_worse_overall(turned).passed


def test_costs_and_recall_at_a_precision_are_gated_by(paired):
    costs = np.array([[0.0, 1.0], [4.0, 0.0]])
    better, worse = (
        dataclasses.replace(paired(400, gained, lost), costs=costs) for gained, lost in ((60, 0), (0, 60))
    )
    assert better_somewhere(better, metric="neg_mean_cost").passed
    assert not_worse_overall(better, metric="neg_mean_cost").passed
    assert not not_worse_overall(worse, metric="neg_mean_cost").passed
    found = better_somewhere(better, metric="recall@precision=0.5")
    assert "recall at precision 0.5" in found.reason
