"""The API service, asked for minutes what its documentation allows and what it does not: open, and with a token.

Run with -s it prints how many requests got which answer.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from autovision.records.tokens import Scope
from autovision.service.context import Limits
from autovision.service.server import ServiceServer
from autovision.store import MemoryStore, keys, records, tokens
from tests.unit.service.conftest import made, until, version
from tests.unit.service.fuzzing import Fuzz
from tests.unit.service.test_fuzz import searched

EXAMPLES = 60


@pytest.fixture
def store() -> MemoryStore:
    filled = MemoryStore()
    for number in (1, 2):
        records.create(filled, keys.dataset_version("pets", number), version("pets", number))
    return filled


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first_seed", [1, 2])
def test_no_request_is_answered_with_a_fault_of_the_service(store: Any, first_seed: int) -> None:
    known = searched(store)
    secret = tokens.create(store, "root", Scope, datetime.now(UTC)).secret
    # A name that the fuzzer cannot revoke by chance.
    known["token"] = "nobody"
    limits = Limits(poll_s=0.01, stream_s=0.02)
    with ServiceServer(made(store, limits=limits), "127.0.0.1", 0) as server:
        headers = {"Authorization": f"Bearer {secret}"}
        until(
            lambda: (
                httpx.get(f"{server.url}/api/v1/me", headers=headers, trust_env=False, timeout=120).is_success
            )
        )
        told = Fuzz(server.url, known, EXAMPLES, headers, first_seed)()
        assert httpx.get(f"{server.url}/api/v1/me", headers=headers, trust_env=False, timeout=120).is_success
    by_status = Counter[int]()
    for (_, status), count in told.items():
        by_status[status] += count
    print(f"\n{sum(told.values())} requests to {len({route for route, _ in told})} routes:", dict(by_status))
    assert not [status for status in by_status if status >= 500]
    assert {200, 404, 422} <= set(by_status)
