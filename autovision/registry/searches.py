"""Finding searches: what was asked for, and how it stands."""

from __future__ import annotations

from autovision.records.searches import SearchRequest, SearchState
from autovision.store import keys, records
from autovision.store.protocol import Store


def all_searches(store: Store) -> list[tuple[SearchRequest, SearchState]]:
    """Every search, oldest first."""
    ids = list(store.folders(keys.SEARCHES))
    requests = records.read_many(store, map(keys.search_request, ids), SearchRequest)
    states = records.read_many(store, map(keys.search_state, ids), SearchState)
    found = [
        (requests[request], states[state])
        for request, state in ((keys.search_request(each), keys.search_state(each)) for each in ids)
        if request in requests and state in states  # submitted, and not only half of it
    ]
    return sorted(found, key=lambda pair: pair[1].created_at)
