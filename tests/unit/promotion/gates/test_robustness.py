import dataclasses

import pytest

from autovision.promotion.gates.robustness import as_robust


def test_a_challenger_that_falls_apart_on_corrupted_images_fails(paired):
    clean = paired(100, 10, 2)
    assert as_robust(clean, paired(100, 9, 4, seed=1), "noise", margin=0.05).passed
    result = as_robust(clean, paired(100, 3, 25, seed=1), "noise", margin=0.05)
    assert not result.passed and result.name == "as_robust[noise]"
    assert result.reason.startswith("accuracy with noise") and "from the champion" in result.reason
    assert result.numbers["n"] == 100 and result.numbers["margin"] == 0.05


def test_what_is_left_counts_and_not_what_was_lost(paired):
    """A challenger that loses more than the champion, and still answers more of the corrupted images right."""
    clean, corrupted = paired(400, 100, 0, accuracy=0.6), paired(400, 20, 0, accuracy=0.6)
    result = as_robust(clean, corrupted, "blur", margin=0.05)
    assert result.passed
    assert result.numbers["lost_by_challenger"] > result.numbers["lost_by_champion"]
    assert result.numbers["lost_by_challenger"] - result.numbers["lost_by_champion"] == pytest.approx(0.2)


def test_each_side_answers_by_its_own_rule(paired):
    clean, corrupted = paired(300, 0, 0), paired(300, 0, 90)
    by_rule = dataclasses.replace(corrupted, challenger_scores=corrupted.champion)
    assert not as_robust(clean, corrupted, "jpeg", margin=0.05).passed
    assert as_robust(clean, by_rule, "jpeg", margin=0.05).passed
