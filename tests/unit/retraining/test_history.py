"""What re-searches tell a policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from autovision.records.searches import SearchRequest, SearchState, SearchStatus
from autovision.retraining.history import History

START = datetime(2026, 1, 1, tzinfo=UTC)
QUEUED, RUNNING, STOPPED, FINISHED, FAILED = SearchStatus


def search(
    hour: int,
    status: SearchStatus,
    *,
    deployment: str = "door",
    parent: str | None = "m",
    spent_s: float = 40.0,
) -> tuple[SearchRequest, SearchState]:
    request = SearchRequest(
        dataset="d",
        dataset_version=1,
        dataset_digest="x",
        space={},
        budget_s=100,
        parent_model=parent,
        deployment=deployment,
        nonce=str(hour),
    )
    at = START + timedelta(hours=hour)
    state = SearchState(
        search=request.id, status=status, spent_s=spent_s, created_at=at, updated_at=at + timedelta(minutes=5)
    )
    return request, state


def test_only_the_deployments_own_searches_count_and_the_first_is_no_re_search() -> None:
    history = History.of(
        [
            search(0, FINISHED, parent=None),
            search(1, FINISHED),
            search(2, RUNNING, deployment="gate"),
            search(3, FAILED, deployment="gate"),
        ],
        "door",
    )
    assert (history.running, len(history.failures)) == (None, 0)
    assert history.answered_at == START + timedelta(hours=1)
    assert history.spent == ((START + timedelta(hours=1), 40.0),)


def test_a_search_that_is_not_over_counts_with_all_that_it_may_use() -> None:
    history = History.of([search(1, STOPPED), search(2, QUEUED), search(3, RUNNING, spent_s=130)], "door")
    assert [seconds for _, seconds in history.spent] == [40.0, 100.0, 130.0]
    request, state = search(4, RUNNING)
    extended = History.of([(request, state.with_(budget_s=300.0))], "door")
    assert extended.spent[0][1] == 300
    assert extended.running == request.id


def test_failures_are_counted_from_the_latest_back() -> None:
    searches = [search(1, FAILED), search(2, FINISHED), search(3, FAILED), search(4, FAILED)]
    history = History.of(searches, "door")
    assert [request.nonce for request, _ in history.failures] == ["4", "3"]
    assert history.answered_at == START + timedelta(hours=2)
    assert History.of([*searches, search(5, STOPPED)], "door").failures == []


def test_re_searches_in_vain_are_those_that_ended_while_their_champion_stayed() -> None:
    history = History.of(
        [
            search(0, FINISHED, parent=None),
            search(1, FINISHED),
            search(2, FAILED),
            search(3, FINISHED),
            search(4, RUNNING),
            search(5, FINISHED, parent="other"),
        ],
        "door",
    )
    assert (history.in_vain("m"), history.in_vain("other"), history.in_vain("new")) == (2, 1, 0)
