from __future__ import annotations

import itertools
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from autovision.errors import InvalidInput
from autovision.labelling.consensus import consensus
from autovision.records.datasets import Labels
from autovision.records.deployments import Label
from autovision.store import MemoryStore, Store, keys, labels
from autovision.store.labels import News

AT = datetime(2026, 3, 1, tzinfo=UTC)


def word(
    request: str,
    label: Labels,
    by: str = "ann",
    at: float = 0,
    confidence: float = 1.0,
    said: float | None = None,
) -> Label:
    return Label(
        request_id=request,
        label=label,
        annotator=by,
        confidence=confidence,
        received_at=AT + timedelta(seconds=at),
        said_at=None if said is None else AT + timedelta(seconds=said),
    )


def stands(store: Store, request: str = "r1") -> Labels:
    return consensus(labels.read(store, "plant")).agreed[request].label


def test_a_label_is_news_once(store: Store) -> None:
    assert labels.add(store, "plant", word("r1", "good"))
    assert not labels.add(store, "plant", word("r1", "good"))
    assert not labels.add(store, "plant", word("r1", "good", at=60)), "a repeated delivery is no second label"
    assert labels.read(store, "plant") == [word("r1", "good")]


@pytest.mark.parametrize(
    "other",
    [
        word("r2", "good"),
        word("r1", "bad", at=1),
        word("r1", "good", by="bob"),
        word("r1", "good", at=1, confidence=0.5),
    ],
)
def test_another_request_word_annotator_or_confidence_is_news(store: Store, other: Label) -> None:
    labels.add(store, "plant", word("r1", "good"))
    assert labels.add(store, "plant", other)
    assert len(labels.read(store, "plant")) == 2


def test_changing_ones_mind_back_is_news(store: Store) -> None:
    words = [word("r1", label, at=at) for at, label in enumerate(["good", "bad", "good", "bad", "good"])]
    assert all(labels.add(store, "plant", one) for one in words)
    assert labels.read(store, "plant") == words


def test_a_file_that_is_given_again_undoes_nothing(store: Store) -> None:
    def give(at: float, *said: Labels) -> list[News]:
        words = [word("r1", label, at=at + n / 8) for n, label in enumerate(said)]
        return labels.take_over_many(store, "plant", words, began=AT + timedelta(seconds=at))

    assert give(0, "good") == [News.STORED]
    assert give(1, "good") == [News.KNOWN]
    assert labels.add(store, "plant", word("r1", "bad", at=2))
    assert give(3, "good") == [News.OUTDATED] and stands(store) == "bad"
    assert give(4, "poor", "fine", "poor") == [News.STORED, News.STORED, News.STORED], "one after the other"
    assert give(5, "poor", "fine", "poor") == [News.KNOWN, News.OUTDATED, News.KNOWN]
    assert stands(store) == "poor"
    assert labels.add(store, "plant", word("r1", "good", at=6)), "who says it now has changed their mind back"
    assert stands(store) == "good"


def test_the_word_that_was_said_later_stands_whichever_came_first(store: Store) -> None:
    assert labels.add(store, "plant", word("r1", "bad", at=100))
    old = [word("r1", "good", at=200, said=10), word("r1", "bad", at=201, said=20)]
    assert labels.take_over_many(store, "plant", old) == [News.OUTDATED, News.KNOWN]
    assert stands(store) == "bad"
    again = [word("r1", "good", at=300, said=10), word("r1", "good", at=301, said=15)]
    assert labels.take_over_many(store, "plant", again) == [News.OUTDATED] * 2
    assert [one.label for one in labels.read(store, "plant")] == ["bad", "good"], "and is stored once"
    assert labels.take_over(store, "plant", word("r1", "good", at=400, said=350)) is News.STORED
    assert stands(store) == "good"
    assert labels.take_over(store, "plant", word("r1", "bad", at=500, said=10**6)) is News.STORED
    assert labels.take_over(store, "plant", word("r1", "good", at=501)) is News.STORED
    assert stands(store) == "good", "nothing was said after it was received"


@pytest.mark.parametrize("order", list(itertools.permutations([("good", 10), ("bad", 11), ("good", 12)])))
def test_what_stands_does_not_depend_on_the_order_in_which_words_come(
    order: tuple[tuple[str, float], ...],
) -> None:
    store, times = MemoryStore(), itertools.count(100)
    for label, said in order:
        news = labels.take_over(store, "plant", word("r1", label, at=next(times), said=said))
        assert news is not News.STORED or stands(store) == label
    assert stands(store) == "good"
    kept = labels.read(store, "plant")
    for again in itertools.permutations(order):
        for label, said in again:
            assert not labels.take_over(store, "plant", word("r1", label, at=next(times), said=said))
    assert labels.read(store, "plant") == kept, "and what comes again is not stored again"


def test_a_word_that_is_said_again_later_is_known_and_keeps_its_time(store: Store) -> None:
    assert labels.add(store, "plant", word("r1", "good", at=100, said=10))
    again = [word("r1", "good", at=101, said=12), word("r1", "good", at=102, said=12)]
    assert labels.take_over_many(store, "plant", again) == [News.KNOWN, News.KNOWN]
    assert [one.when.second for one in labels.read(store, "plant")] == [10, 12]


def test_a_file_that_is_given_again_undoes_nothing_if_its_clock_goes_ahead(store: Store) -> None:
    hour = 3600
    row = word("r1", "good", at=hour, said=5 * hour)
    assert labels.take_over(store, "plant", row) is News.STORED
    assert labels.take_over(store, "plant", word("r1", "good", at=1.5 * hour, said=5 * hour)) is News.KNOWN
    assert labels.take_over(store, "plant", word("r1", "bad", at=2 * hour)) is News.STORED
    assert labels.take_over(store, "plant", word("r1", "good", at=3 * hour, said=5 * hour)) is News.OUTDATED
    assert stands(store) == "bad"
    assert len(labels.read(store, "plant")) == 2


def test_of_two_words_of_one_time_the_last_one_given_stands(store: Store) -> None:
    for at in (0, 100):
        given = [word("r1", "good", at=at, said=-5), word("r1", "bad", at=at + 1, said=-5)]
        labels.take_over_many(store, "plant", given)
        assert stands(store) == "bad"
    assert len(labels.read(store, "plant")) == 2


def test_several_labels_agree_whatever_their_order(store: Store) -> None:
    ann, bob = word("r1", ("sun", "tree")), word("r1", ("tree", "sun", "tree"), by="bob")
    assert labels.add(store, "plant", ann) and labels.add(store, "plant", bob)
    assert not labels.add(store, "plant", word("r1", ("tree", "sun"), at=1))
    found = labels.read(store, "plant")
    assert [one.label for one in found] == [("sun", "tree")] * 2


def test_delivering_everything_again_in_order_is_no_news(store: Store) -> None:
    words = [word("r1", "good", at=0), word("r1", "bad", at=1), word("r1", "good", at=2)]
    for one in words:
        labels.add(store, "plant", one)
    assert not any(labels.add(store, "plant", one) for one in words)


def test_deployments_and_requests_that_begin_alike_are_apart(store: Store) -> None:
    labels.add(store, "plant", word("r1", "good"))
    assert labels.add(store, "plant", word("r10", "good"))
    assert labels.add(store, "plant-2", word("r1", "good"))
    assert labels.add(store, "plant", word("r1.x", "good"))
    assert {one.request_id for one in labels.read(store, "plant")} == {"r1", "r10", "r1.x"}


def test_many_at_once_are_as_one_after_the_other(store: Store) -> None:
    given = [
        word(f"r{n % 50}", "good" if n % 3 else "bad", by=f"by{n % 2}", at=n, confidence=0.5)
        for n in range(300)
    ]
    news = labels.add_many(store, "plant", given)
    one_by_one = MemoryStore()
    assert news == [labels.add(one_by_one, "plant", each) for each in given]
    assert labels.read(store, "plant") == labels.read(one_by_one, "plant")
    assert labels.add_many(store, "plant", []) == []


def test_the_same_label_from_many_at_once_is_stored_once(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(lambda at: labels.add(store, "plant", word("r1", "good", at=at)), range(8)))
    assert new.count(True) == 1
    assert len(labels.read(store, "plant")) == 1


@pytest.mark.parametrize(
    "request_id", [pytest.param(str(uuid.uuid4()), id="uuid"), "A", "a" * 128, "..a", "-", "REQ_7.b-2"]
)
def test_request_ids_that_are_taken(store: Store, request_id: str) -> None:
    assert labels.add(store, "plant", word(request_id, "good"))
    assert [one.request_id for one in labels.read(store, "plant")] == [request_id]


@pytest.mark.parametrize(
    "request_id", ["", ".", "..", "a/b", "../../x", "a" * 129, "a b", "é", "a\n", "\0", "a%2Fb", "٣"]
)
def test_request_ids_that_are_refused(store: Store, request_id: str) -> None:
    with pytest.raises(InvalidInput, match=r"request id .* is not valid; use 1 to 128 of"):
        labels.add(store, "plant", word(request_id, "good"))
    assert list(store.list()) == []


def test_words_on_an_image_of_a_data_set_are_apart_from_those_on_requests(store: Store) -> None:
    image = "0" * 64
    assert labels.correct(store, "plant", word(image, "good"))
    assert not labels.correct(store, "plant", word(image, "good", at=5))
    assert labels.correct(store, "plant", word(image, "bad", at=6))
    assert [one.label for one in labels.corrections(store, "plant")] == ["good", "bad"]
    assert labels.read(store, "plant") == [] and labels.corrections(store, "plan") == []


def test_labels_of_the_store_are_in_the_order_of_time(store: Store) -> None:
    for at in (3, 1, 2):
        labels.add(store, "plant", word(f"r{9 - at}", "good", at=at))
    assert [one.received_at.second for one in labels.read(store, "plant")] == [1, 2, 3]
    assert next(store.list(keys.labels("plant", "r8"))).startswith("deployments/plant/labels/r8/")
