from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from autovision.cli.report import moment
from autovision.errors import InvalidInput
from autovision.records.history import History

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def door(cli: Any, world: Any) -> str:
    """A deployment that serves the model."""
    assert cli("promote", world.model, "--to", "door").code == 0
    return "door"


def test_it_tells_models_searches_and_decisions(cli: Any, world: Any, door: str) -> None:
    ran = cli("report", door)
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    shown = " ".join(ran.out.split())
    assert f"{world.model} is champion since" in shown
    assert "1, 12 s" in shown, "the search that it came from"
    assert "promote the first model" in shown


def test_its_json_is_the_history(cli: Any, world: Any, door: str) -> None:
    found = History.model_validate(cli("report", door, "--json").answer)
    assert (found.deployment, found.champion) == (door, world.model)
    assert [each.search for each in found.searches] == [world.search]
    assert set(found.models[world.model].subgroups) == {"fur=long", "fur=short"}
    since = datetime.now(UTC).isoformat()
    later = History.model_validate(cli("report", door, "--json", "--since", since).answer)
    assert (later.decisions, later.searches) == ((), ())
    assert [each.model for each in later.reigns] == [world.model]


def test_the_page_is_written_where_it_is_asked_for(cli: Any, door: str, tmp_path: Path) -> None:
    page = tmp_path / "door.html"
    ran = cli("report", door, "--html", page, "--json")
    assert ran.code == 0
    assert str(page) in ran.err
    assert "<h1>door</h1>" in page.read_text()
    assert cli("report", door, "--html", tmp_path).code == 2


def test_a_deployment_that_is_not_there(cli: Any, door: str) -> None:
    ran = cli("report", "dor")
    assert ran.code == 3
    assert "did you mean 'door'" in ran.err


def test_without_a_name_all_deployments_are_listed(cli: Any, world: Any) -> None:
    assert "There is no deployment yet" in cli("report").out
    assert cli("promote", world.model, "--to", "door").code == 0
    assert cli("promote", world.model, "--to", "window").code == 0
    found = cli("report", "--json").answer
    assert [(each["deployment"], each["champion"]) for each in found] == [
        ("door", world.model),
        ("window", world.model),
    ]
    assert {each["alarm"] for each in found} == {None}, "no window was examined"
    assert world.model in cli("report").out
    refused = cli("report", "--html", "page.html")
    assert refused.code == 2 and "name it" in refused.err


def test_since_refuses_what_is_to_come() -> None:
    with pytest.raises(InvalidInput, match="is not over yet"):
        moment("2026-03-02", NOON)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("90d", NOON - timedelta(days=90)),
        ("2026-02-03", datetime(2026, 2, 3, tzinfo=UTC)),
        ("2026-02-03T04:05", datetime(2026, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-02-03T04:05+02:00", datetime(2026, 2, 3, 2, 5, tzinfo=UTC)),
    ],
)
def test_since_takes_dates_times_and_days(given: str, meant: datetime) -> None:
    assert moment(given, NOON) == meant


@pytest.mark.parametrize("given", ["", "yesterday", "d", "-3d", "999999d", "2026-13-01", "2026-02-30"])
def test_since_refuses_what_is_no_moment(given: str) -> None:
    with pytest.raises(InvalidInput, match="is no moment; give a date such as"):
        moment(given, NOON)
