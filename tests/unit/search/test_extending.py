"""More seconds for a search that has used its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from autovision.errors import Conflict, InvalidInput
from autovision.records.searches import PriceTable, SearchStatus
from autovision.search import requests
from autovision.search.extending import caught_up, extend
from autovision.store import keys, records

if TYPE_CHECKING:
    from tests.unit.conftest import History


def test_extending(tiny: History) -> None:
    store = tiny.copy()
    request = tiny.searches[0].with_(max_trials=9, nonce="again")
    search = requests.submit(store, request).search
    queued = extend(store, search, 90.0)
    assert (queued.status, requests.granted_s(request, queued)) == (SearchStatus.QUEUED, 90.0)
    fields = {"status": SearchStatus.FINISHED, "spent_s": 70.0, "ended_early": "patience", "model": "m"}
    requests.set_state(store, search, **fields)
    over = extend(store, search, 30.0)
    assert (over.status, over.model, over.ended_early) == (SearchStatus.STOPPED, "m", None)
    assert requests.granted_s(request, over) == 100.0, "from where it is"
    assert requests.get(store, search)[0] == request, "the request stays as it is"
    requests.set_state(store, search, status=SearchStatus.RUNNING)
    with pytest.raises(Conflict, match="is being run"):
        extend(store, search, 30.0)
    requests.set_state(store, search, status=SearchStatus.FINISHED)
    with pytest.raises(InvalidInput, match="give a finite number above 0, such as --budget-s 120"):
        extend(store, search, float("nan"))


def test_more_seconds_come_on_top_of_what_attempts_used_that_were_killed(tiny: History) -> None:
    """Its process was killed again and again, and could not write down what it used: its trials did."""
    store = tiny.copy()
    request = tiny.searches[0].with_(nonce="again", max_trials=None)
    search = requests.submit(store, request).search
    (known, *_) = requests.trials(store, tiny.searches[0].id)
    late = known.curve[-1].with_(search_s=500.0)
    trial = known.with_(search=search, curve=(*known.curve[:-1], late))
    records.create(store, keys.trial(search, trial.trial), trial)
    requests.set_state(store, search, status=SearchStatus.FAILED, error="lost", per_hour=36.0)
    extended = extend(store, search, 120.0)
    assert requests.granted_s(request, extended) == 620.0
    assert requests.granted_s(request, extend(store, search, 60.0)) == 560.0
    assert caught_up(store, extended).spent_s == 500.0 and caught_up(store, extended).cost == pytest.approx(
        5.0
    )
    assert caught_up(store, caught_up(store, extended)) == caught_up(store, extended), "they count once"


def test_a_search_whose_last_trials_have_not_ended_may_go_on_with_them(tiny: History) -> None:
    store, first = tiny.copy(), tiny.searches[0].id
    request = tiny.searches[0].with_(nonce="again", max_trials=2)
    search = requests.submit(store, request).search
    done, going = (trial.with_(search=search) for trial in requests.trials(store, first))
    records.create(store, keys.trial(search, done.trial), done)
    requests.set_state(store, search, status=SearchStatus.STOPPED, trials=2)
    extend(store, search, 30.0)
    records.create(store, keys.trial(search, going.trial), going)
    with pytest.raises(
        InvalidInput, match="ended all of its 2 trials, and nothing else would buy more; give it"
    ):
        extend(store, search, 30.0)
    more = extend(store, search, 30.0, more_trials=3)
    assert more.max_trials == 5 == requests.granted_trials(request, more)


def test_a_bound_that_is_used_up_is_named_where_another_one_is_extended(tiny: History) -> None:
    store = tiny.copy()
    prices = PriceTable(currency="EUR", cpu=1.0)
    request = tiny.searches[0].with_(nonce="again", max_trials=2, max_cost=3.0, prices=prices)
    search = requests.submit(store, request).search
    fields = {"status": SearchStatus.FINISHED, "spent_s": request.budget_s, "cost": 3.0, "currency": "EUR"}
    requests.set_state(store, search, **fields)
    with pytest.raises(InvalidInput, match=r"has used all of its .* s; give it seconds, too"):
        extend(store, search, more_cost=1.0)
    with pytest.raises(
        InvalidInput, match=r"has cost the 3.00 EUR that it may; give it more, with --max-cost"
    ):
        extend(store, search, 60.0)
    before = requests.get(store, search)[1]
    more = extend(store, search, 60.0, more_cost=1.5)
    assert (more.status, more.max_cost, more.max_trials) == (SearchStatus.STOPPED, 4.5, None)
    assert requests.granted_cost(request, before) == 3.0 and requests.granted_cost(request, more) == 4.5
    for nothing in ({}, {"more_trials": 0}, {"more_cost": float("inf")}):
        with pytest.raises(InvalidInput, match=r"try --budget-s 120|finite number above 0"):
            extend(store, search, **nothing)  # type: ignore[arg-type]


def test_a_cost_without_prices_means_nothing(tiny: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOVISION_PRICES", raising=False)
    store = tiny.copy()
    search = requests.submit(store, tiny.searches[0].with_(nonce="again")).search
    with pytest.raises(InvalidInput, match="nothing tells what the cluster costs"):
        extend(store, search, more_cost=1.0)
