"""No request, of whatever form, is answered with a fault of the service's own, or otherwise than is documented."""

from __future__ import annotations

from typing import Any

import pytest

from autovision.records.searches import SearchRequest
from autovision.search import requests
from autovision.service.context import Limits
from autovision.service.server import ServiceServer
from autovision.space import load_space
from tests.unit.service.conftest import made
from tests.unit.service.fuzzing import Fuzz
from tests.unit.service.test_events import end, trial

EXAMPLES = 4
"""of each kind, for each route; tests/slow has many more"""


def searched(store: Any) -> dict[str, str]:
    """A search with trials, and the names that there are."""
    request = SearchRequest(
        dataset="pets",
        dataset_version=1,
        dataset_digest="d",
        space=load_space("quick").to_json(),
        budget_s=5,
    )
    requests.submit(store, request)
    end(store, trial(request.id, 0, 0.5), trial(request.id, 1, 0.7))
    return {"search": request.id, "dataset": "pets", "deployment": "door", "model": "m-1", "token": "ann"}


@pytest.mark.filterwarnings("ignore")
def test_whatever_is_sent_is_answered_as_documented(store: Any) -> None:
    service = made(store, required=False, limits=Limits(poll_s=0.01, stream_s=0.02))
    with ServiceServer(service, "127.0.0.1", 0) as server:
        told = Fuzz(server.url, searched(store), EXAMPLES)()
    assert sum(told.values()) > 150
    assert not [each for each in told if each[1] >= 500]
    assert {status for _, status in told} >= {200, 404, 422}
