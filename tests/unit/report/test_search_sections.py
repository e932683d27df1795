"""Sections on searches, of searches that really ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from autovision.report.search_sections import progress_figure
from autovision.report.search_view import SearchView
from autovision.search import requests

if TYPE_CHECKING:
    from tests.unit.conftest import History


@pytest.mark.parametrize(("extended_s", "said"), [(None, "of 10 min."), (1500.0, "of 25 min.")])
def test_the_budget_is_what_a_search_was_extended_to(
    tiny: History, extended_s: float | None, said: str
) -> None:
    request, state = requests.get(tiny.store, tiny.searches[0].id)
    trials = tuple(requests.trials(tiny.store, request.id))
    view = SearchView(
        title="First search", request=request, state=state.with_(budget_s=extended_s), trials=trials
    )
    assert said in str(progress_figure(view))
