"""Processes of searches, without Ray: how they are counted, and what becomes of one that is lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autovision.errors import InvalidInput
from autovision.records.searches import SearchStatus
from autovision.search import requests
from autovision.search.fleet import Fleet, News
from autovision.store import MemoryStore
from autovision.store.local import LocalStore

if TYPE_CHECKING:
    from tests.unit.conftest import History

NOWHERE = "127.0.0.1:1"
"""nobody listens there"""


def next_news(fleet: Fleet) -> News:
    while True:
        for news in fleet.turn(lambda: pytest.fail("nothing waits but what was started")):
            return news
        time.sleep(0.1)


def test_what_other_processes_cannot_read_is_refused() -> None:
    with pytest.raises(InvalidInput, match="lives in this process"):
        Fleet(MemoryStore())


def test_no_search_at_once_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="0 searches at once"):
        Fleet(LocalStore(tmp_path), 0)


def test_a_search_that_loses_its_process_again_and_again_fails(tiny: History, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    request = tiny.searches[0].with_(deployment=None)
    requests.submit(store, request)
    fleet = Fleet(store, 1)
    for attempt in range(3):
        fleet.start(request.id, NOWHERE)
        assert (fleet.full, fleet.searches) == (True, (request.id,))
        fleet._processes[request.id].popen.kill()
        news = next_news(fleet)
        assert news.fault and "its process ended with signal 9" in news.text
        assert ("another one goes on" in news.text) == (attempt < 2)
    _, state = requests.get(store, request.id)
    assert state.status is SearchStatus.FAILED
    assert state.error == "its process ended with signal 9, 3 times in a row without a further trial"
    assert fleet.searches == ()


@pytest.mark.parametrize(
    ("found", "left"),
    [(SearchStatus.RUNNING, SearchStatus.QUEUED), (SearchStatus.STOPPED, SearchStatus.STOPPED)],
)
def test_searches_that_are_recalled_wait_for_the_next_controller_unless_a_person_stopped_them(
    tiny: History, tmp_path: Path, found: SearchStatus, left: SearchStatus
) -> None:
    store = LocalStore(tmp_path)
    request = tiny.searches[0].with_(deployment=None)
    requests.submit(store, request)
    fleet = Fleet(store)
    fleet.start(request.id, NOWHERE)
    requests.set_state(store, request.id, status=found)
    fleet.recall()
    assert fleet.searches == ()
    assert requests.get(store, request.id)[1].status is left
