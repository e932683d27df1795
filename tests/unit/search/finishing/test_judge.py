"""What a candidate is worth where a champion serves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autovision.decisions import Measure
from autovision.metrics import Floats, Ints
from autovision.model.predictor import softmax
from autovision.promotion.gates.paired import Paired
from autovision.promotion.policy import decide
from autovision.records.gates import GatePolicy
from autovision.records.models import Candidate
from autovision.search.finishing import soup
from autovision.search.finishing.candidates import Compared, ordered
from autovision.search.finishing.judge import Judge, Worth, parts_of

OLD, NEW = 600, 200


def said(right: np.ndarray, truth: Ints) -> Floats:
    """(N, 2) that are right where it is asked for, and always as sure."""
    p = np.full((len(truth), 2), 0.2)
    p[np.arange(len(truth)), np.where(right, truth, 1 - truth)] = 0.8
    return p


def share(rng: np.random.Generator, n: int, of: float) -> np.ndarray:
    """(n,) bool, of which just this share is set."""
    found = np.arange(n) < round(of * n)
    rng.shuffle(found)
    return found


class Case:
    """A champion that is right on 0.9 of what it knew and on 0.4 of what is of a class that it does not know."""

    def __init__(self, seed: int = 0, old: int = OLD, new: int = NEW, held_out: int | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.old = np.arange(old + new) < old
        self.truth = self.rng.integers(0, 2, old + new)
        self.right = np.concatenate([share(self.rng, old, 0.9), share(self.rng, new, 0.4)])
        count = old // 2 if held_out is None else held_out
        self.judge = Judge(
            Measure("accuracy"),
            self.truth,
            np.ones(old + new, np.intp),
            champion=said(self.right, self.truth),
            parts=parts_of(self.old, self.truth[:count], {}, ("a", "b")),
        )

    def worth(self, lost: float, gained: float, on_new: float) -> Worth:
        """Of a candidate that loses and gains these shares of the old images, and is right on so many new ones."""
        n = int(self.old.sum())
        right = self.right.copy()
        right[self.rng.permutation(np.flatnonzero(self.old & self.right))[: round(lost * n)]] = False
        right[self.rng.permutation(np.flatnonzero(self.old & ~self.right))[: round(gained * n)]] = True
        right[~self.old] = share(self.rng, int((~self.old).sum()), on_new)
        return self.judge.worth(said(right, self.truth))


def test_what_gains_on_the_new_by_losing_the_old_is_worth_less_than_what_keeps_it() -> None:
    """The first one has the higher value, and would be refused."""
    case = Case()
    greedy, careful = case.worth(0.06, 0.0, 1.0), case.worth(0.02, 0.02, 0.80)
    assert greedy.value > careful.value
    assert greedy.chance < 0.3 < 0.8 < careful.chance
    assert greedy.expected < careful.expected
    assert greedy.at_risk == "accuracy on all images 0.900 to 0.840 (600 images)"


def test_few_images_that_show_a_loss_by_chance_do_not_decide() -> None:
    """Of 40 old images each candidate loses one more or less: the one that knows more of the new is the better one."""
    case = Case(old=40, new=40, held_out=60)
    lucky, better = case.worth(0.025, 0.05, 0.75), case.worth(0.05, 0.0, 0.85)
    assert abs(lucky.chance - better.chance) < 0.05
    assert better.expected > lucky.expected


def test_but_a_loss_that_is_plain_on_few_images_does() -> None:
    case = Case(old=40, new=40, held_out=60)
    assert case.worth(0.4, 0.0, 0.9).chance < 0.05


def test_a_part_that_is_lost_is_not_made_up_for_by_another() -> None:
    """One subgroup and one class are lost; all old images together are as good as before."""
    case = Case(old=1000, new=100)
    line = (np.arange(1100) < 500) & case.old
    groups = {"line a": (line, 250), "line b": (~line & case.old, 250)}
    parts = parts_of(case.old, case.truth[:500], groups, ("a", "b"))
    right = case.right.copy()
    right[np.flatnonzero(line & right)[:45]] = False
    right[np.flatnonzero(~line & case.old & ~right)[:45]] = True
    found = replace(case.judge, parts=parts).worth(said(right, case.truth))
    assert found.at_risk.startswith("accuracy on line a") and found.chance < 0.3
    flipped = case.right.copy()
    flipped[np.flatnonzero(case.old & (case.truth == 1) & flipped)[:90]] = False
    flipped[np.flatnonzero(case.old & (case.truth == 0) & ~flipped)[:90]] = True
    found = case.judge.worth(said(flipped, case.truth))
    assert found.at_risk.startswith("recall on b") and found.chance < 0.3


def test_recall_that_was_bought_by_too_many_answers_may_be_lost_as_at_the_gate() -> None:
    """The champion answers b for most images; a challenger loses recall of b, and its F1 gains plainly."""
    rng = np.random.default_rng(0)
    truth = (np.arange(900) % 3 == 0).astype(np.intp)
    often = np.where(truth == 1, rng.random(900) < 0.98, rng.random(900) < 0.6)
    seldom = np.where(truth == 1, rng.random(900) < 0.9, rng.random(900) < 0.05)
    champion, challenger = (said(answer == truth, truth) for answer in (often, seldom))
    judge = Judge(
        Measure("accuracy"),
        truth,
        np.ones(900, np.intp),
        champion=champion,
        parts=parts_of(np.ones(900, bool), truth, {}, ("a", "b")),
    )
    found = judge.worth(challenger)
    gates = decide(
        Paired(truth, champion, challenger, classes=("a", "b")), policy=GatePolicy(robustness_margin=None)
    )
    assert gates.accepted and found.chance > 0.9
    (of_b,) = [gate for gate in gates.numbers["gates"] if gate["name"] == "no_forgetting[b]"]
    assert of_b["numbers"]["f1_gain_low"] > 0, "by its recall alone it would be refused"
    # Where recall is lost for nothing, both refuse.
    lost = said(np.where((truth == 1) & (rng.random(900) < 0.15), False, often == truth), truth)
    assert judge.worth(lost).chance < 0.1
    gates = decide(Paired(truth, champion, lost), policy=GatePolicy(robustness_margin=None))
    assert not gates.accepted


@pytest.mark.parametrize("loss", [0.0, 0.03, 0.06, 0.12])
def test_the_chance_is_about_as_often_as_the_gates_of_loss_pass(loss: float) -> None:
    """By many images of which a truth is known: 60 draws of a test split, and the mean chance of 60 validations."""
    rng = np.random.default_rng(3)
    passed, chances = [], []
    for _ in range(60):
        seen, held_out = (rng.integers(0, 2, n) for n in (1500, 500))
        pairs = []
        for truth in (seen, held_out):
            before = rng.random(len(truth)) < 0.85
            after = np.where(
                before, rng.random(len(truth)) >= 0.04 + loss / 0.85, rng.random(len(truth)) < 0.23
            )
            pairs.append((said(before, truth), said(after, truth)))
        parts = parts_of(np.ones(1500, bool), held_out, {}, ("a", "b"))
        judge = Judge(Measure("accuracy"), seen, np.ones(1500, np.intp), champion=pairs[0][0], parts=parts)
        chances.append(judge.worth(pairs[0][1]).chance)
        gates = decide(Paired(held_out, *pairs[1]), policy=GatePolicy(robustness_margin=None)).numbers[
            "gates"
        ]
        passed.append(all(gate["passed"] for gate in gates if gate["name"] != "better_somewhere"))
    assert np.mean(chances) == pytest.approx(np.mean(passed), abs=0.25)


def test_what_is_the_same_everywhere_is_no_subgroup() -> None:
    truth, old = np.array([0, 1, 0, 1]), np.array([True, True, False, False])
    groups = {"line a": (old, 2), "line b": (~old, 0)}
    names = [part.name for part in parts_of(old, truth[:2], groups, ("a", "b"))]
    assert names == ["all images", "a", "b"]


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1", "auroc", "neg_log_loss"])
def test_other_metrics_are_looked_at_too(metric: str) -> None:
    case = Case()
    case.judge = replace(case.judge, measure=Measure(metric), positive=1)
    case.judge = replace(case.judge, parts=case.judge.parts[:1])
    kept, lost = case.worth(0.02, 0.02, 0.8), case.worth(0.2, 0.0, 0.9)
    assert kept.chance > 0.8 and lost.chance < 0.1
    assert kept.expected > lost.expected


def test_without_a_champion_a_candidate_is_worth_its_value() -> None:
    case = Case()
    case.judge = replace(case.judge, champion=None, parts=())
    assert case.worth(0.5, 0.0, 0.9) == Worth(
        (found := case.worth(0.5, 0.0, 0.9)).value, found.value, 1.0, ""
    )


def test_images_of_which_it_is_not_known_what_the_champion_says_count_for_the_value_alone() -> None:
    case = Case()
    unknown = np.flatnonzero(case.old)[:400]
    champion = said(case.right, case.truth)
    champion[unknown] = np.nan
    case.judge = replace(case.judge, champion=champion)
    found = case.worth(0.1, 0.0, 0.9)
    assert "(200 images)" in found.at_risk or "recall" in found.at_risk
    case.judge = replace(case.judge, champion=np.full_like(champion, np.nan))
    assert (found := case.worth(0.1, 0.0, 0.9)).expected == found.value


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 5), st.floats(0, 0.3), st.floats(0, 0.1), st.floats(0, 1), st.sampled_from([30, 200, 800])
)
def test_what_is_expected_lies_between_the_champions_value_and_its_own(
    seed: int, lost: float, gained: float, on_new: float, old: int
) -> None:
    case = Case(seed, old=old)
    champion = case.judge.value(said(case.right, case.truth))
    found = case.worth(lost, gained, on_new)
    assert 0 <= found.chance <= 1
    assert min(champion, found.value) - 1e-9 <= found.expected <= found.value
    if found.value <= champion:
        assert found.expected == found.value, "there is nothing to lose at the gates"


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 5), st.floats(0, 0.2), st.floats(0, 0.1), st.lists(st.floats(0, 1), min_size=2, max_size=2)
)
def test_of_two_that_keep_as_much_the_one_that_learnt_more_is_expected_to_be_better(
    seed: int, lost: float, gained: float, on_new: list[float]
) -> None:
    less, more = (Case(seed).worth(lost, gained, share) for share in sorted(on_new))
    assert less.chance == more.chance
    assert less.expected <= more.expected + 1e-12


# ---------------------------------------------------------------------------------------------- choosing

worths = st.builds(
    Worth,
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["", "accuracy on all images"]),
)


@given(st.fixed_dictionaries({"unchanged": worths, "recalibrated": worths, "trained": worths}))
def test_the_first_is_the_best_whatever_their_order(found: dict[Candidate, Worth]) -> None:
    ranked = ordered(found)
    assert ranked == ordered(dict(reversed(found.items())))
    expected = [each.expected for each in ranked]
    assert expected == sorted(expected, reverse=True)  # type: ignore[type-var]
    own = next(each for each in ranked if each.candidate == "unchanged")
    assert (own.chance, own.expected) == (1.0, own.value), "what stays asks nothing of the gates"
    assert all(each.value == found[each.candidate].value for each in ranked)


def test_of_equals_the_simpler_one_is_chosen() -> None:
    same = Worth(0.5, 0.5, 0.9, "")
    found = ordered({"trained": same, "recalibrated": same, "unchanged": same})
    assert [each.candidate for each in found] == ["unchanged", "recalibrated", "trained"]


def test_where_none_is_likely_to_pass_the_least_bad_is_chosen_and_it_is_said() -> None:
    doubtful = Worth(0.9, 0.62, 0.2, "recall of b 0.90 to 0.80 on 100 images")
    found = Compared(ordered({"unchanged": Worth(0.5, 0.5), "trained": doubtful}))
    assert found.best == "trained"
    assert found.note is not None and "chance of 20% (recall of b 0.90 to 0.80 on 100 images)" in found.note
    assert Compared(ordered({"unchanged": Worth(0.5, 0.5), "trained": Worth(0.9, 0.88, 0.9)})).note is None


def test_a_soup_is_worth_what_is_expected_of_it() -> None:
    """So no member is averaged in that makes it better on the new images by losing the old."""
    case = Case()
    lost, kept = (
        np.log(said(right, case.truth))
        for right in (np.where(case.old, case.right & (np.arange(OLD + NEW) > 120), True), case.right)
    )
    score = soup.scorer(case.judge, softmax)
    rows = np.arange(OLD - 300, OLD + NEW)
    judge = case.judge.only(rows)
    for logits in (lost, kept):
        assert score(logits[rows], rows) == pytest.approx(judge.worth(softmax(logits[rows])).expected)
    everything = np.arange(OLD + NEW)
    assert case.judge.value(softmax(lost)) > case.judge.value(softmax(kept))
    found = case.judge.worth(softmax(lost))
    assert found.chance < 0.05 and score(lost, everything) == pytest.approx(found.expected)
    assert score(lost, everything) < score(kept, everything) + 0.01


# ------------------------------------------------------------------------------------------- at the gates


def drawn(
    rng: np.random.Generator, right: np.ndarray, old: np.ndarray, change: float, on_new: float
) -> np.ndarray:
    """Of which images a candidate is right: it differs from the champion on 8 % of the old ones."""
    found, u = right.copy(), rng.random(len(right))
    found[old & right] = u[old & right] >= (0.08 - change) / 2 / 0.87
    found[old & ~right] = u[old & ~right] < (0.08 + change) / 2 / 0.13
    found[~old] = u[~old] < on_new
    return found


def test_what_is_chosen_so_passes_the_gates_more_often_and_gains_more() -> None:
    """Of 24 candidates that know the more of the new the less they know of the old, 40 times; 238 + 112 held out."""
    rng = np.random.default_rng(1)
    promoted, gained = {"value": 0, "expected": 0}, {"value": 0.0, "expected": 0.0}
    for _ in range(40):
        seen, held_out = (np.arange(old + new) < old for old, new in ((715, 338), (238, 112)))
        labels, truth = (rng.integers(0, 2, len(of)) for of in (seen, held_out))
        before, served = (rng.random(len(old)) < np.where(old, 0.87, 0.41) for old in (seen, held_out))
        judge = Judge(
            Measure("accuracy"),
            labels,
            np.ones(len(labels), np.intp),
            champion=said(before, labels),
            parts=parts_of(
                np.ones(len(labels), bool), truth, {"a": (seen, 238), "b": (~seen, 112)}, ("a", "b")
            ),
        )
        change = rng.normal(-0.02, 0.02, 24)
        on_new = 0.78 - 1.5 * (change + 0.02) + rng.normal(0, 0.02, 24)
        found = [
            judge.worth(said(drawn(rng, before, seen, *pair), labels))
            for pair in zip(change, on_new, strict=True)
        ]
        for name in promoted:
            at = int(np.argmax([getattr(each, name) for each in found]))
            right = drawn(rng, served, held_out, change[at], on_new[at])
            paired = Paired(
                truth, said(served, truth), said(right, truth), groups={"a": held_out, "b": ~held_out}
            )
            if decide(paired, policy=GatePolicy(robustness_margin=None)).accepted:
                promoted[name] += 1
                gained[name] += (715 * change[at] + 338 * (on_new[at] - 0.41)) / 1053
    assert promoted["expected"] >= promoted["value"] + 3
    assert gained["expected"] > 1.05 * gained["value"]
