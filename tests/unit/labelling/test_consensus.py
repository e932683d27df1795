from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autovision.labelling.agreement import Words, dawid_skene
from autovision.labelling.consensus import PROVEN, Consensus, consensus, latest_words
from autovision.records.datasets import Labels
from autovision.records.deployments import Label
from autovision.store import MemoryStore, labels

AT = datetime(2026, 3, 1, tzinfo=UTC)


def word(request: str, label: Labels, by: str = "ann", at: float = 0, confidence: float = 1.0) -> Label:
    return Label(
        request_id=request,
        label=label,
        annotator=by,
        confidence=confidence,
        received_at=AT + timedelta(seconds=at),
    )


def said(found: Consensus) -> dict[str, tuple[Labels, str, float]]:
    return {request: (one.label, one.annotator, one.confidence) for request, one in found.agreed.items()}


def test_one_who_was_never_compared_is_taken_at_their_word() -> None:
    found = consensus([word("r1", "good", confidence=0.6), word("r2", "bad")])
    assert said(found) == {"r1": ("good", "ann", 0.6), "r2": ("bad", "ann", 1.0)}
    assert [(one.name, one.words, one.compared, one.accuracy) for one in found.annotators] == [
        ("ann", 2, 0, None)
    ]
    assert consensus([]) == Consensus({}, (), ())


def test_agreeing_makes_a_label_no_less_sure() -> None:
    words = [word("r1", "good", confidence=0.6), word("r1", "good", "bob", 1, confidence=0.9)]
    first = consensus([*words, word("r2", "bad")]).agreed["r1"]
    assert (first.label, first.annotator, first.received_at) == ("good", "ann, bob", words[1].received_at)
    assert first.confidence >= 0.9


def test_two_equals_who_contradict_each_other_are_disputed_however_frequent_a_class_is() -> None:
    many = [word(f"m{i}", "good") for i in range(200)]
    found = consensus([*many, word("r1", "bad"), word("r1", "good", "bob")])
    assert found.disputed == ("r1",) and "r1" not in found.agreed
    settled = consensus([*many, word("r1", "bad"), word("r1", "good", "bob"), word("r1", "bad", "bob", at=1)])
    assert said(settled)["r1"][:2] == ("bad", "ann, bob")
    # An earlier word that arrives late is not the latest word.
    words = latest_words([word("r1", "bad", at=1), word("r1", "good", at=0.5)])
    assert words["r1"]["ann"].label == "bad"


def crowd(seed: int = 0, items: int = 800) -> tuple[list[Label], dict[str, str]]:
    """Three annotators of known quality, each of whom saw four fifths of the requests."""
    rng = np.random.default_rng(seed)
    words, truth = [], {}
    for i in range(items):
        truth[f"r{i:04d}"] = true = "bad" if rng.random() < 0.3 else "good"
        for by, accuracy in (("ann", 0.95), ("bob", 0.9), ("eve", 0.6)):
            other = "good" if true == "bad" else "bad"
            if rng.random() < 0.8:
                words.append(word(f"r{i:04d}", true if rng.random() < accuracy else other, by))
    return words, truth


def test_quality_is_estimated_and_beats_the_majority() -> None:
    words, truth = crowd()
    found = consensus(words)
    estimated = {one.name: one.accuracy for one in found.annotators}
    assert estimated == pytest.approx({"ann": 0.95, "bob": 0.9, "eve": 0.6}, abs=0.06)
    share = np.mean([found.agreed[request].label == truth[request] for request in found.agreed])
    votes: dict[str, list[bool]] = {}
    for one in words:
        votes.setdefault(one.request_id, []).append(one.label == truth[one.request_id])
    # Where votes are equal the majority guesses; so may we where nothing came out clearly.
    majority = np.mean([float(np.sign(np.mean(right) - 0.5) + 1) / 2 for right in votes.values()])
    guessed = (share * len(found.agreed) + 0.5 * len(found.disputed)) / len(votes)
    assert guessed > majority + 0.02
    assert np.mean([one.confidence for one in found.agreed.values()]) == pytest.approx(share, abs=0.03)


def test_with_very_many_classes_annotators_have_one_accuracy_each() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 1500, 300)
    answers = [
        np.where(rng.random(300) < share, truth, rng.integers(0, 1500, 300)) for share in (0.9, 0.8, 0.5)
    ]
    words = Words(
        item=np.tile(np.arange(300), 3),
        annotator=np.repeat(np.arange(3), 300),
        said=np.concatenate(answers),
        sure=np.ones(900),
        times=np.ones(300),
        annotators=3,
        classes=1500,
    )
    found = dawid_skene(words)
    assert found.accuracy == pytest.approx([0.9, 0.8, 0.5], abs=0.07)
    assert (found.posterior.argmax(1) == truth).mean() > 0.93


def test_several_labels_are_weighed_one_by_one() -> None:
    words = [
        *(word("r1", ("sun", "tree"), by) for by in ("ann", "bob")),
        word("r1", ("tree",), "eve"),
        word("r2", ("sun",)),
        word("r2", (), "bob"),
        word("r3", ()),
    ]
    found = consensus(words)
    assert found.agreed["r1"].label == ("sun", "tree") and found.agreed["r1"].confidence < 1
    assert found.disputed == ("r2",)
    assert (found.agreed["r3"].label, found.agreed["r3"].confidence) == ((), 1.0)


events = st.lists(
    st.builds(
        word,
        st.sampled_from(["r1", "r2", "r3"]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["x", "y", "z"]),
        st.integers(0, 5),
        st.sampled_from([1.0, 0.5]),
    ),
    max_size=30,
)


@settings(max_examples=40)
@given(events, st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_changes_the_consensus(words: list[Label], rng: random.Random) -> None:
    again = [*words, *words]
    rng.shuffle(again)
    assert consensus(again) == consensus(words)
    spoken = {one.request_id for one in words}
    found = consensus(words)
    assert spoken == set(found.agreed) | set(found.disputed)
    assert not set(found.agreed) & set(found.disputed)


@settings(max_examples=40)
@given(events)
def test_what_is_stored_twice_counts_once_and_all_that_was_ever_said_is_kept(words: list[Label]) -> None:
    store = MemoryStore()
    ordered = sorted(words, key=lambda one: one.received_at)
    news = [one for one in ordered if labels.add(store, "plant", one)]
    assert {one.to_json() for one in labels.read(store, "plant")} == {one.to_json() for one in news}
    assert not any(labels.add(store, "plant", one) for one in news), "what was said is no news"
    latest = {
        (request, name): (one.label, one.confidence)
        for request, by in latest_words(labels.read(store, "plant")).items()
        for name, one in by.items()
    }
    last: dict[tuple[str, str], tuple[Labels, float]] = {}
    for one in ordered:
        last[one.request_id, one.annotator] = (one.label, one.confidence)
    times = [(one.request_id, one.annotator, one.received_at) for one in words]
    if len(set(times)) == len(times):  # of two words of one moment neither is the later one
        assert latest == last


def test_the_least_number_of_comparisons() -> None:
    shared = [word(f"r{i}", "a" if i % 2 else "b", by) for i in range(PROVEN) for by in ("ann", "bob")]
    assert all(one.accuracy is not None for one in consensus(shared).annotators)
    assert all(one.accuracy is None for one in consensus(shared[2:]).annotators)


def test_a_word_of_one_who_is_mostly_wrong_is_no_label() -> None:
    """Whoever disagrees always must not teach by what nobody else has seen."""
    words = []
    for i in range(40):
        true, other = ("good", "bad") if i % 2 else ("bad", "good")
        words += [word(f"r{i}", true), word(f"r{i}", true, "bob"), word(f"r{i}", other, "eve")]
    found = consensus([*words, word("alone", "good", "eve"), word("known", "good")])
    assert {one.name: (one.accuracy or 0) > 0.5 for one in found.annotators} == {
        "ann": True,
        "bob": True,
        "eve": False,
    }
    assert found.disputed == ("alone",)
    assert found.agreed["known"].confidence > 0.9
    settled = consensus([*words, word("alone", "good", "eve"), word("alone", "bad", at=1)])
    assert settled.agreed["alone"].label == "bad"
