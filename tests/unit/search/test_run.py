"""What a search does before its first trial, which is before anything needs Ray."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from autovision.api import AutoVision
from autovision.errors import Conflict, Interrupted, InvalidInput
from autovision.model.footprint import Footprint
from autovision.records.base import now
from autovision.records.leases import Lease
from autovision.records.searches import LiveSearch, PriceTable, SearchRequest, SearchState, SearchStatus
from autovision.records.trials import TrialResult
from autovision.search import requests, run, trial_phase
from autovision.search.attempt import Attempt, StopSignal
from autovision.search.driver import Driver
from autovision.search.extending import extend
from autovision.search.run import _ended, finish_search, register, run_search
from autovision.search.sharing import cluster
from autovision.search.sharing.turn import Turn
from autovision.search.trial_phase import Ran
from autovision.search.tune_loop import ExecutorLost
from autovision.search.watch import Watch
from autovision.space import Choice, Space
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore, keys, lease, records

if TYPE_CHECKING:
    from tests.unit.conftest import History


def test_what_misses_the_limits_is_on_record_where_nothing_meets_them(
    tiny: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tiny.copy()
    request = tiny.searches[0].with_(max_latency_ms=2.0, runtime="eager-f32", nonce="limited")
    measured_on: list[Any] = []

    def slow(config: TrialConfig, classes: int, runtime: str | None) -> Footprint:
        measured_on.append(runtime)
        return Footprint(runtime=f"{runtime}, 1 thread", latency_ms=5.0, memory_mb=100.0, size_mb=1.0)

    monkeypatch.setattr(trial_phase, "measure", slow)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    requests.submit(store, request)
    with pytest.raises(InvalidInput, match="meets the limits"):
        run_search(store, request.id)
    state = requests.get(store, request.id)[1]
    assert state.status is SearchStatus.FAILED and set(measured_on) == {"eager-f32"}
    assert state.notes and {each.networks for each in state.excesses} == {"test_resnet"}
    excess = state.excesses[0]
    assert (excess.value, excess.limit, excess.runtime) == (5.0, 2.0, "eager-f32, 1 thread")
    assert 0 < state.feasibility_s <= state.spent_s


def test_a_search_whose_cluster_has_no_price_fails_before_it_spends_anything(tiny: History) -> None:
    store = tiny.copy()
    table = PriceTable(currency="EUR", gpu=2.0)
    request = tiny.searches[0].with_(prices=table, max_cost=3.0, nonce="no price")
    requests.submit(store, request)
    with pytest.raises(InvalidInput, match="no price of a CPU"):
        run_search(store, request.id)
    state = requests.get(store, request.id)[1]
    assert (state.status, state.spent_s) == (SearchStatus.FAILED, 0.0)
    assert state.error is not None and "add cpu = PRICE" in state.error


class Published(Space):
    backbone = Choice("resnet18", "regnety_002")


def test_the_licences_of_a_request_hold_when_it_is_run(tiny: History) -> None:
    """A request may come from another machine, where the weights were others."""
    store = tiny.copy()
    request = tiny.searches[0].with_(space=Published().to_json(), licenses=("gpl-3.0",))
    requests.submit(store, request)
    with pytest.raises(InvalidInput, match="no backbone of the space has weights under a licence"):
        run_search(store, request.id)
    _, state = requests.get(store, request.id)
    assert state.status is SearchStatus.FAILED
    assert state.error is not None and "regnety_002" in state.error


def stopped(history: History, trials: int) -> tuple[MemoryStore, SearchRequest]:
    """A search that was stopped after some trials, which `tiny` really trained."""
    store, request = history.copy(), history.searches[0]
    again = request.with_(nonce="stopped")
    requests.submit(store, again)
    for result in requests.trials(store, request.id)[:trials]:
        records.create(store, keys.trial(again.id, result.trial), result.with_(search=again.id))
    requests.set_state(store, again.id, status=SearchStatus.STOPPED, spent_s=20.0, trials=trials)
    return store, again


def test_a_stopped_search_is_finished_as_it_is(tiny: History) -> None:
    store, request = stopped(tiny, 1)
    state = finish_search(store, request.id)
    assert state.status is SearchStatus.FINISHED and state.model is not None
    assert state.ended_early == "it was finished as it was, on request"
    assert state.spent_s > 20.0 and state.trials == 1 and state.cost is None
    assert 0 < state.finishing_s <= state.spent_s - 20.0 and state.feasibility_s == 0
    assert finish_search(store, request.id) == state, "and it is finished once"


def test_what_has_no_value_cannot_be_finished(tiny: History) -> None:
    store, request = stopped(tiny, 0)
    before = requests.get(store, request.id)[1]
    with pytest.raises(InvalidInput, match=r"has no trial yet .* `autovision search resume"):
        finish_search(store, request.id)
    assert requests.get(store, request.id)[1] == before, "it can still be run"


def test_what_somebody_runs_is_not_finished_under_their_hands(tiny: History) -> None:
    store, request = stopped(tiny, 1)
    held = lease.acquire(store, f"search-{request.id}", "somebody", 30.0)
    assert held is not None
    with pytest.raises(Conflict, match="being run by another process"):
        finish_search(store, request.id)


def test_an_extended_search_keeps_its_model_until_a_better_one_comes(tiny: History) -> None:
    """The first trial alone is finished, then the search goes on with the second one, which is better or not."""
    store, request = stopped(tiny, 1)
    first = finish_search(store, request.id)
    extended = extend(store, request.id, 60.0)
    assert (extended.status, extended.model) == (SearchStatus.STOPPED, first.model)
    assert extended.budget_s == pytest.approx(first.spent_s + 60.0) and extended.ended_early is None
    same = finish_search(store, request.id)
    assert same.model == first.model, "nothing was tried since"
    extend(store, request.id, 60.0)
    (known,) = requests.trials(store, request.id)
    better = known.with_(
        trial="02-00001-abcdef", number=1, value=(known.value or 0.0) + 0.1, created_at=now()
    )
    records.create(
        store, keys.trial(request.id, better.trial), TrialResult.model_validate(better.model_dump())
    )
    after = finish_search(store, request.id)
    assert after.model != first.model and after.best_trial == better.trial


def test_seconds_are_charged_by_the_table_of_the_request(tiny: History) -> None:
    store, request = stopped(tiny, 1)
    priced = request.with_(prices=PriceTable(currency="EUR", cpu=3600.0), max_cost=1e9)
    requests.submit(store, priced)
    for result in requests.trials(store, request.id):
        records.create(store, keys.trial(priced.id, result.trial), result.with_(search=priced.id))
    state = finish_search(store, priced.id)
    assert state.currency == "EUR" and state.per_hour is not None and state.cost is not None
    assert state.cost == pytest.approx(state.spent_s / 3600 * state.per_hour)


def test_the_seconds_of_an_attempt_that_was_killed_count(tiny: History) -> None:
    """It could not write them down; how far its trials had come says it."""
    store, request = stopped(tiny, 1)
    (known,) = requests.trials(store, request.id)
    late = known.curve[-1].with_(search_s=500.0)
    longer = known.with_(trial="01-00009-abcdef", number=9, curve=(*known.curve[:-1], late))
    records.create(store, keys.trial(request.id, longer.trial), longer)
    requests.set_state(store, request.id, spent_s=0.0)
    assert finish_search(store, request.id).spent_s > 500.0


def test_a_given_trial_is_registered_besides_and_the_winner_is_the_searchs_own_model(tiny: History) -> None:
    store, search = tiny.copy(), tiny.searches[0].id
    own = tiny.models[0]
    begun: list[str] = []
    ledger = requests.trials(store, search)
    (other,) = [result.trial for result in ledger if result.trial != own.lineage.trial]
    same = register(store, search, own.lineage.trial, begins=lambda: begun.append("winner"))
    assert same == own and not begun
    model = register(store, search, other, begins=lambda: begun.append("other"))
    assert begun == ["other"] and model.lineage.trial == other and model.id != own.id
    assert requests.get(store, search)[1].model == own.id


@pytest.mark.parametrize(
    ("exhausted", "changes", "said"),
    [
        (True, {}, "everything in the space was tried"),
        (True, {"max_cost": 3.0}, "everything in the space was tried"),
        (True, {"max_cost": 3.0, "max_trials": 1}, None),
        (False, {"max_cost": 3.0}, "it may cost 3.00 EUR, and no more"),
        (False, {"max_cost": 1e9}, None),
    ],
)
def test_why_a_search_ended_before_its_budget(
    tiny: History, monkeypatch: pytest.MonkeyPatch, exhausted: bool, changes: dict[str, Any], said: str | None
) -> None:
    """It has 600 s, and its cluster costs a unit a second."""
    store, before = stopped(tiny, 1)
    price = 3600.0 / cluster.here().nodes[0]["CPU"]
    fields = {"max_trials": None, "prices": PriceTable(currency="EUR", cpu=price)} | changes
    request = before.with_(nonce="why", **fields)
    search = requests.submit(store, request).search
    for result in requests.trials(store, before.id):
        records.create(store, keys.trial(search, result.trial), result.with_(search=search))

    def no_more(driver: Driver, watch: Watch) -> None:
        driver.exhausted = exhausted
        driver.close()

    monkeypatch.setattr(trial_phase, "run_trials", no_more)
    state = run_search(store, search)
    assert (state.status, state.ended_early) == (SearchStatus.FINISHED, said)


# ----------------------------------------------------------------------------------------------------- stopping


def queued(history: History) -> tuple[MemoryStore, str]:
    store = history.copy()
    request = history.searches[0].with_(nonce="again", deployment=None)
    return store, requests.submit(store, request).search


def no_trials(*_: object) -> None:
    pytest.fail("it ran trials")


@pytest.fixture
def stop_in_between(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets somebody stop a search right before the given function of `run` is called, and lets no trial run."""
    monkeypatch.setattr(run, "trials_in_turn", no_trials)

    def before(name: str) -> None:
        step = getattr(run, name)

        def stopped_first(attempt: Attempt, *rest: Any, **options: Any) -> Any:
            requests.request_stop(attempt.store, attempt.request.id)
            return step(attempt, *rest, **options)

        monkeypatch.setattr(run, name, stopped_first)

    return before


@pytest.mark.parametrize("step", ["_wait", "_run", "_runs"])
def test_who_stops_a_search_that_is_about_to_begin_is_heeded(
    tiny: History, stop_in_between: Callable[[str], None], step: str
) -> None:
    store, search = queued(tiny)
    stop_in_between(step)
    with pytest.raises(Interrupted, match="stopped before its turn; `autovision search resume"):
        run_search(store, search)
    state = requests.get(store, search)[1]
    assert (state.status, state.stop_requested, state.attempt) == (SearchStatus.STOPPED, False, 0)
    assert not lease.is_held(store, f"search-{search}")


@pytest.mark.parametrize("left", ["stopped", "asked to stop, and killed"])
def test_whoever_works_through_the_queue_leaves_what_was_stopped_and_a_person_goes_on_with_it(
    tiny: History, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    store, search = queued(tiny)
    fields = {"status": SearchStatus.RUNNING, "stop_requested": True}
    requests.set_state(store, search, **({"status": SearchStatus.STOPPED} if left == "stopped" else fields))
    with monkeypatch.context() as patch:
        patch.setattr(run, "trials_in_turn", no_trials)
        with pytest.raises(Interrupted, match="stopped before its turn"):
            run_search(store, search, resumes=False)
    assert requests.get(store, search)[1].status is SearchStatus.STOPPED
    ledger = requests.trials(store, tiny.searches[0].id)

    def ran(attempt: Attempt, *_: Any) -> Ran:
        state = requests.get(store, attempt.request.id)[1]
        assert (state.status, state.stop_requested) == (SearchStatus.RUNNING, False)
        return Ran(ledger)

    monkeypatch.setattr(run, "trials_in_turn", ran)
    assert run_search(store, search).status is SearchStatus.FINISHED


def test_who_stops_a_search_while_its_process_connects_to_ray_is_heeded(
    tiny: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As `search submit --wait` and `search resume` run it; the stop of before is what a person goes on after."""
    store, search = queued(tiny)
    ran: list[str] = []

    def trials(attempt: Attempt, *_: Any) -> Ran:
        ran.append(attempt.request.id)
        return Ran(requests.trials(store, tiny.searches[0].id))

    monkeypatch.setattr(run, "trials_in_turn", trials)
    av = AutoVision(tmp_path)
    av.store = store
    monkeypatch.setattr(av, "connect", lambda: requests.request_stop(store, search))
    with pytest.raises(Interrupted, match="stopped before its turn"):
        av.resume(search)
    assert not ran and requests.get(store, search)[1].status is SearchStatus.STOPPED
    monkeypatch.setattr(av, "connect", lambda: None)
    assert av.resume(search).status is SearchStatus.FINISHED and ran == [search]


# ------------------------------------------------------------------------------------------------ the lease is lost


def taken_over(store: MemoryStore, search: str, held: lease.HeldLease) -> dict[str, bytes]:
    """What another process does that takes a search up, while the holder of its lease stands still; what it wrote."""
    later = {"holder": "successor", "acquisition": "other", "expires_at": now() + timedelta(seconds=60)}
    records.update(store, keys.lease(f"search-{search}"), Lease, lambda last: last.with_(token=9, **later))
    assert not held.renew(), "the first one finds its lease lost when it wakes up"
    requests.set_state(store, search, status=SearchStatus.RUNNING, attempt=2, spent_s=99.0)
    live = LiveSearch(search=search, cluster="there", submitted_at=now(), begun_at=now())
    store.delete(keys.live_search(search))
    records.create(store, keys.live_search(search), live)
    return {key: store.get(key).data for key in (keys.search_state(search), keys.live_search(search))}


@pytest.mark.parametrize("then", ["stops", "finishes", "fails", "is interrupted"])
def test_who_has_lost_his_lease_writes_nothing_over_his_successor(
    tiny: History, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    store, search = queued(tiny)
    ledger = requests.trials(store, tiny.searches[0].id)
    written: dict[str, bytes] = {}

    def trials(attempt: Attempt, *_: Any) -> Ran:
        written.update(taken_over(store, search, attempt.stop.held))
        assert attempt.stop(), "it has to stop"
        if then == "fails":
            raise InvalidInput("no trial gave a model")
        if then == "is interrupted":
            raise KeyboardInterrupt
        return Ran(ledger, stopped=then == "stops")

    monkeypatch.setattr(run, "trials_in_turn", trials)
    errors = {"fails": InvalidInput, "is interrupted": KeyboardInterrupt}
    with pytest.raises(errors.get(then, lease.LeaseLost)) as raised:
        run_search(store, search)
    if then in ("stops", "finishes"):
        assert "another one may run the search by now" in str(raised.value)
    assert {key: store.get(key).data for key in written} == written


def test_who_loses_his_lease_while_he_waits_leaves_the_search_to_his_successor(
    tiny: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, search = queued(tiny)
    monkeypatch.setattr(run, "trials_in_turn", no_trials)
    written: dict[str, bytes] = {}
    wait = Turn.wait

    def stood_still(turn: Turn, stop: StopSignal, tell: Callable[[str], None]) -> None:
        written.update(taken_over(store, search, stop.held))
        wait(turn, stop, tell)

    monkeypatch.setattr(Turn, "wait", stood_still)
    with pytest.raises(lease.LeaseLost):
        run_search(store, search)
    assert {key: store.get(key).data for key in written} == written


def test_what_ray_broke_off_waits_to_be_gone_on_with_but_not_for_ever() -> None:
    before = SearchState(search="s", attempt=3, trials=5, created_at=now(), updated_at=now())
    lost = ExecutorLost("Ray Tune broke off")
    assert _ended(lost, before, 6) == {"status": SearchStatus.QUEUED}, "it came further"
    assert _ended(lost, before.with_(attempt=0), 5) == {"status": SearchStatus.QUEUED}
    failed = {"status": SearchStatus.FAILED, "error": "Ray Tune broke off"}
    assert _ended(lost, before, 5) == failed
    assert _ended(ValueError("a bug"), before, 6) == {"status": SearchStatus.FAILED, "error": "a bug"}
    assert _ended(KeyboardInterrupt(), before, 5) == {"status": SearchStatus.STOPPED}
