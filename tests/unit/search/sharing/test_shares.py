"""Whose turn it is, and who may run how many trials."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autovision.search.sharing.shares import Claim, shares, turns

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


def runs(search: str, minute: int = 0, **options: int | None) -> Claim:
    return Claim(search, at(0), begun_at=at(minute), **options)  # type: ignore[arg-type]


def waits(search: str, minute: int = 0, **options: int | None) -> Claim:
    return Claim(search, at(minute), **options)  # type: ignore[arg-type]


@st.composite
def claims(draw: st.DrawFn, most_workers: int = 4) -> list[Claim]:
    names = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8))
    return [
        Claim(
            name,
            at(draw(st.integers(0, 5))),
            draw(st.integers(-3, 3)),
            draw(st.integers(1, most_workers)),
            draw(st.none() | st.integers(0, 5)),
            draw(st.none() | st.integers(0, 5).map(at)),
        )
        for name in names
    ]


PLACES = st.integers(1, 24)


def taken(given_: dict[str, int], asked: list[Claim]) -> int:
    return sum(given_[claim.search] * claim.workers for claim in asked if claim.search in given_)


@given(PLACES, claims())
def test_never_more_than_there_are_places(places: int, asked: list[Claim]) -> None:
    found = shares(places, asked)
    assert set(found) == {claim.search for claim in asked if claim.begun_at is not None}
    assert all(share >= 0 for share in found.values())
    assert taken(found, asked) <= places


@given(PLACES, claims())
def test_nobody_starves_where_there_are_places_for_all(places: int, asked: list[Claim]) -> None:
    begun = [claim for claim in asked if claim.begun_at is not None]
    found = shares(places, asked)
    if sum(claim.least for claim in begun) <= places:
        assert all(found[claim.search] >= 1 for claim in begun if claim.wants != 0)


@given(PLACES, claims())
def test_no_place_is_left_to_which_a_search_has_a_use(places: int, asked: list[Claim]) -> None:
    found = shares(places, asked)
    left = places - taken(found, asked)
    for claim in asked:
        if claim.search in found and (claim.wants is None or found[claim.search] < claim.wants):
            assert claim.workers > left, claim


@given(PLACES, claims())
def test_nobody_gets_more_than_he_wants(places: int, asked: list[Claim]) -> None:
    found = shares(places, asked)
    assert all(found[c.search] <= c.wants for c in asked if c.search in found and c.wants is not None)


@given(PLACES, claims(), st.data())
def test_a_higher_priority_never_gets_less(places: int, asked: list[Claim], data: st.DataObject) -> None:
    begun = [claim for claim in asked if claim.begun_at is not None]
    if not begun:
        return
    one = data.draw(st.sampled_from(begun))
    higher = [replace(claim, priority=claim.priority + (claim == one)) for claim in asked]
    assert shares(places, higher)[one.search] >= shares(places, asked)[one.search]


@given(PLACES, claims(most_workers=1))
def test_equals_get_the_same_but_for_one(places: int, asked: list[Claim]) -> None:
    equal = [replace(claim, priority=0, wants=None, begun_at=at(0)) for claim in asked]
    found = shares(places, equal)
    assert not found or max(found.values()) - min(found.values()) <= 1


@given(PLACES, claims(), st.randoms())
def test_the_order_in_which_claims_are_read_does_not_matter(places: int, asked: list[Claim], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(asked, len(asked))
    assert shares(places, shuffled) == shares(places, asked)
    assert list(turns(places, shuffled).items()) == list(turns(places, asked).items())


@pytest.mark.parametrize(
    ("places", "asked", "expected"),
    [
        (2, [runs("a")], {"a": 2}),
        (2, [runs("a"), runs("b", 1)], {"a": 1, "b": 1}),
        (8, [runs("a"), runs("b", 1)], {"a": 4, "b": 4}),
        (9, [runs("a", priority=1), runs("b")], {"a": 6, "b": 3}),
        (8, [runs("a", priority=3), runs("b")], {"a": 7, "b": 1}),
        (2, [runs("a"), runs("b", 1, priority=10)], {"a": 1, "b": 1}),
        (8, [runs("a", wants=1), runs("b")], {"a": 1, "b": 7}),
        (8, [runs("a", wants=0), runs("b")], {"a": 0, "b": 8}),
        (5, [runs("a", workers=2)], {"a": 2}),
        (8, [runs("a", workers=4), runs("b", 1)], {"a": 1, "b": 4}),
        (1, [runs("a"), runs("b", 1)], {"a": 1, "b": 0}),
        (1, [runs("a", 1), runs("b", 0)], {"a": 0, "b": 1}),
        (4, [], {}),
    ],
)
def test_shares(places: int, asked: list[Claim], expected: dict[str, int]) -> None:
    assert shares(places, asked) == expected


# ------------------------------------------------------------------------------------------------ the queue


@given(PLACES, claims())
def test_whoever_begins_has_room_beside_all_that_run(places: int, asked: list[Claim]) -> None:
    begin = {search for search, why in turns(places, asked).items() if why is None}
    assert begin <= {claim.search for claim in asked if claim.begun_at is None}
    kept = sum(claim.least for claim in asked if claim.begun_at is not None)
    if begin:
        assert kept + sum(claim.workers for claim in asked if claim.search in begin) <= places


@given(PLACES, claims())
def test_nobody_is_overtaken(places: int, asked: list[Claim]) -> None:
    found = turns(places, asked)
    queue = sorted((claim for claim in asked if claim.begun_at is None), key=lambda claim: claim.rank)
    assert list(found) == [claim.search for claim in queue]
    begin = [found[claim.search] is None for claim in queue]
    assert begin == sorted(begin, reverse=True)


@given(PLACES, claims())
def test_where_nobody_runs_the_first_one_that_fits_begins(places: int, asked: list[Claim]) -> None:
    queue = sorted((claim for claim in asked if claim.begun_at is None), key=lambda claim: claim.rank)
    if queue and len(queue) == len(asked) and queue[0].workers <= places:
        assert turns(places, asked)[queue[0].search] is None


def test_why_somebody_waits() -> None:
    asked = [runs("a"), runs("b"), waits("c", workers=2, priority=1), waits("d"), waits("e", 1)]
    assert turns(3, asked) == {
        "c": "needs 2 of 3 places; 2 are kept for a, b",
        "d": "waits behind c (priority 1)",
        "e": "waits behind c (priority 1)",
    }
    assert turns(4, asked) == {
        "c": None,
        "d": "needs 1 of 4 places; 4 are kept for a, b, c",
        "e": "waits behind d",
    }
    assert turns(1, [waits("c", workers=2)]) == {"c": "needs 2 of 1 place; the cluster is too small"}


def test_a_search_that_finishes_keeps_no_place() -> None:
    assert turns(1, [runs("a", wants=0), waits("b")]) == {"b": None}


def test_priority_goes_before_age_and_age_before_the_name() -> None:
    asked = [waits("a", 2), waits("b", 1), waits("c", 1), waits("d", 3, priority=1), waits("e", priority=-1)]
    assert list(turns(1, asked)) == ["d", "b", "c", "a", "e"]
