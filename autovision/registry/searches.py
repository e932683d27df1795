"""Finding searches: what was asked for, and how it stands."""

from __future__ import annotations

from autovision.records.searches import SearchRequest, SearchState
from autovision.store import keys, records
from autovision.store.protocol import Store


def all_searches(store: Store) -> list[tuple[SearchRequest, SearchState]]:
    """Every search, oldest first."""
    ids = sorted({key.split("/")[1] for key in store.list(keys.SEARCHES) if key.endswith("/state.json")})
    requests = records.read_many(store, map(keys.search_request, ids), SearchRequest)
    states = records.read_many(store, map(keys.search_state, ids), SearchState)
    found = [(requests[keys.search_request(each)], states[keys.search_state(each)]) for each in ids]
    return sorted(found, key=lambda pair: pair[1].created_at)
