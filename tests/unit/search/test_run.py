"""What a search does before its first trial, which is before anything needs Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from autovision.errors import InvalidInput
from autovision.records import SearchStatus
from autovision.search import requests
from autovision.search.run import run_search
from autovision.space import Choice, Space

if TYPE_CHECKING:
    from tests.unit.conftest import History


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
