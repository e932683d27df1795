"""The queue, read from the store: who runs with what share, who waits, in which order and why."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from autovision.records.base import now
from autovision.records.searches import ClusterView, LiveSearch, SearchRequest, SearchState, SearchStatus
from autovision.registry.searches import all_searches
from autovision.search import requests
from autovision.search.sharing import cluster, preflight
from autovision.search.sharing.fairness import Use, Wish, ahead, had
from autovision.search.sharing.shares import Claim, shares, turns
from autovision.store import keys, records
from autovision.store.lease import is_held
from autovision.store.protocol import Store

_ACTIVE = (SearchStatus.QUEUED, SearchStatus.RUNNING)


@dataclass(frozen=True)
class Entry:
    """A search that is not over.

    Attributes:
        position: among those that wait, from 1; None: it runs.
        share: trials that it may run at once; None: it waits, or where it runs is not known.
        running: trials that it runs.
        cluster: where it runs, or waits with a process.
        why: why it waits, or how it runs.
    """

    request: SearchRequest
    state: SearchState
    position: int | None
    share: int | None
    running: int | None
    cluster: str | None
    why: str


def live(store: Store, clock: Callable[[], datetime] = now) -> list[LiveSearch]:
    """Searches with a process that works on them, or waits with them."""
    found = records.read_all(store, keys.LIVE, LiveSearch)
    return [each for each in found if is_held(store, f"search-{each.search}", clock)]


def claim_of(search: LiveSearch) -> Claim:
    """What a live search asks for."""
    return Claim(
        search.search, search.submitted_at, search.priority, search.workers, search.wants, search.begun_at
    )


def claim_in_queue(request: SearchRequest, submitted_at: datetime, ahead: float = 0.0) -> Claim:
    """What a search would ask for that nobody works on.

    Args:
        ahead: seconds that its user will have had before it.
    """
    return Claim(
        request.id,
        submitted_at,
        request.priority,
        request.workers_per_trial,
        wants=request.max_trials,
        ahead=ahead,
    )


def aheads(
    found: Iterable[tuple[SearchRequest, SearchState]], waits: Collection[str], at: datetime
) -> dict[str, float]:
    """Search -> seconds that whoever submitted it will have had before it, of those that wait. Pure.

    Those that run are counted with all that they may take, so that who has many at once does not seem to have little.

    Args:
        found: all searches.
        waits: ids of those that have not begun.
    """
    wishes, uses = [], []
    for request, state in found:
        user, granted_s = state.submitted_by, requests.granted_s(request, state)
        if request.id in waits:
            rank = (-request.priority, state.created_at, request.id)
            wishes.append(Wish(request.id, user, rank, max(0.0, granted_s - state.spent_s)))
            uses.append(Use(user, state.spent_s, state.updated_at))
        elif state.status in _ACTIVE:
            uses.append(Use(user, max(granted_s, state.spent_s), None))
        else:
            uses.append(Use(user, state.spent_s, state.updated_at))
    return ahead(wishes, had(uses, at))


def waiting(store: Store, clock: Callable[[], datetime] = now) -> list[tuple[SearchRequest, SearchState]]:
    """Searches that want to run and that no process has taken up, in the order of the queue.

    One that is said to run, but whose process is gone, is among them.
    """
    return [(request, state) for request, state, _ in in_queue(store, clock=clock)]


def in_queue(
    store: Store, own: str | None = None, clock: Callable[[], datetime] = now
) -> list[tuple[SearchRequest, SearchState, Claim]]:
    """As `waiting`, with what each asks for.

    Args:
        own: id of a search that is to be among them though it has a process.
    """
    everything = all_searches(store)
    found = [
        (request, state)
        for request, state in everything
        if state.status in _ACTIVE
        and (request.id == own or not is_held(store, f"search-{request.id}", clock))
    ]
    before = aheads(everything, {request.id for request, _ in found}, clock())
    claimed = [
        (request, state, claim_in_queue(request, state.created_at, before[request.id]))
        for request, state in found
    ]
    return sorted(claimed, key=lambda each: each[2].rank)


def ready(
    store: Store, view: ClusterView, started: Collection[str] = (), clock: Callable[[], datetime] = now
) -> list[SearchRequest]:
    """Searches that no process has taken up and whose turn it is on a cluster, in the order of the queue.

    What can never fit is among them: whoever takes it up says so.

    Args:
        started: those that have got a process which may not have said so yet; they keep a place.
    """
    taken = live(store, clock)
    claims = [claim_of(each) for each in taken if each.cluster == view.name]
    # One that has just been started does not wait any more, and does not yet say that it lives.
    for search in set(started) - {each.search for each in taken}:
        request, state = requests.get(store, search)
        claims.append(replace(claim_in_queue(request, state.created_at), begun_at=clock()))
    found = []
    fitting = []
    for request, _, claim in in_queue(store, clock=clock):
        if request.id in started:
            continue
        if preflight.faults(request, view):
            found.append(request)
        else:
            fitting.append(request)
            claims.append(claim)
    whose = turns(preflight.places(view), claims)
    return found + [request for request in fitting if whose[request.id] is None]


def entries(store: Store, clock: Callable[[], datetime] = now) -> list[Entry]:
    """All searches that run or wait: those that run first, then the queue in its order."""
    taken = {each.search: each for each in live(store, clock)}
    controlled = is_held(store, "controller", clock)
    view = cluster.known(store)
    everything = all_searches(store)
    known = [(request, state) for request, state in everything if state.status in _ACTIVE]
    begun = {search for search, each in taken.items() if each.begun_at is not None}
    before = aheads(everything, {request.id for request, _ in known} - begun, clock())
    running = [
        Entry(request, state, None, each.share, each.running, each.cluster, _how(each))
        for request, state in known
        if (each := taken.get(request.id)) is not None and each.begun_at is not None
    ]
    claims: dict[str, Claim] = {
        search: replace(claim_of(each), ahead=before.get(search, 0.0)) for search, each in taken.items()
    }
    queued = []
    for request, state in known:
        if request.id not in claims:
            claims[request.id] = claim_in_queue(request, state.created_at, before[request.id])
        if claims[request.id].begun_at is None:
            queued.append((request, state))
    queued.sort(key=lambda pair: claims[pair[0].id].rank)
    found = []
    for position, (request, state) in enumerate(queued, 1):
        each = taken.get(request.id)
        where = cluster.known(store, each.cluster) if each is not None else view
        why = _why(request, state, where, list(claims.values()), taken, controlled)
        found.append(Entry(request, state, position, None, None, each.cluster if each else None, why))
    return running + found


def _how(each: LiveSearch) -> str:
    if each.wants == 0:
        return f"finishes on {each.cluster}"
    return f"runs {each.running} trial{'' if each.running == 1 else 's'} on {each.cluster}"


def _why(
    request: SearchRequest,
    state: SearchState,
    view: ClusterView | None,
    claims: list[Claim],
    taken: dict[str, LiveSearch],
    controlled: bool,
) -> str:
    """Why a search waits."""
    gone = "its process is gone; " if state.status is SearchStatus.RUNNING else ""
    if request.id not in taken and not controlled:
        return f"{gone}no controller runs: `autovision controller run` works through the queue"
    if view is None:
        return f"{gone}a controller will take it up"
    if faults := preflight.faults(request, view):
        return f"{gone}{faults[0]}"
    here = [
        claim for claim in claims if (each := taken.get(claim.search)) is None or each.cluster == view.name
    ]
    reason = turns(preflight.places(view), here).get(request.id)
    return f"{gone}{reason or 'is about to begin'}"


@dataclass(frozen=True)
class Outlook:
    """What would happen to a search if it was submitted now.

    Attributes:
        places: of the cluster, of which each trial takes as many as it has workers.
        position: in the queue, from 1.
        ahead: ids of those before it.
        share: trials that it could run at once if it began now.
        whole: trials that it could run at once with the cluster to itself.
        waits: why it could not begin now; None: it could.
        faults: why it can never run there.
        remarks: what is worth knowing besides.
    """

    cluster: str
    places: int
    position: int
    ahead: tuple[str, ...]
    share: int
    whole: int
    waits: str | None
    faults: tuple[str, ...]
    remarks: tuple[str, ...]


def outlook(
    store: Store, request: SearchRequest, view: ClusterView, clock: Callable[[], datetime] = now
) -> Outlook:
    """What would happen to a request on a cluster, from what the store says."""
    at = clock()
    others = [claim_of(each) for each in live(store, clock) if each.cluster == view.name]
    others += [claim for _, _, claim in in_queue(store, clock=clock)]
    others = [claim for claim in others if claim.search != request.id]
    new = request, SearchState(search=request.id, created_at=at, updated_at=at)
    known = [pair for pair in all_searches(store) if pair[0].id != request.id]
    waits = {claim.search for claim in others if claim.begun_at is None} | {request.id}
    mine = claim_in_queue(request, at, aheads([*known, new], waits, at)[request.id])
    ahead = sorted(
        (claim for claim in others if claim.begun_at is None and claim.rank < mine.rank),
        key=lambda claim: claim.rank,
    )
    places = preflight.places(view)
    faults = tuple(preflight.faults(request, view))
    begun = Claim(mine.search, at, mine.priority, mine.workers, mine.wants, begun_at=at)
    return Outlook(
        cluster=view.name,
        places=places,
        position=1 + len(ahead),
        ahead=tuple(claim.search for claim in ahead),
        share=0 if faults else shares(places, [*others, begun])[request.id],
        whole=0 if faults else shares(places, [begun])[request.id],
        waits=None if faults else turns(places, [*others, mine])[request.id],
        faults=faults,
        remarks=tuple(preflight.remarks(request, view)),
    )
