from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autovision.cli.demo import page_of
from autovision.demo.result import DemoResult, Requests, Side, Stage
from autovision.errors import AutoVisionError
from autovision.report.search_view import SearchView


@pytest.fixture
def story(world: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """In place of the ten minutes of the story: a short one, told of the real search in the store."""
    from autovision.api import AutoVision
    from autovision.demo import story as told
    from autovision.records.base import now

    asked: dict[str, Any] = {}
    av = AutoVision(world.folder)
    request, state = av.search_of(world.search)
    model = av.model(world.model)
    side = Side(model=model, mono=model.metrics["test:fur=short"], poly=model.metrics["test:fur=long"])

    def tell(store: str | Path, *, seed: int, budget_s: float, console: Console) -> DemoResult:
        asked.update(store=store, seed=seed, budget_s=budget_s)
        console.print("[bold] 1. import[/bold]")
        return DemoResult(
            seed=seed,
            budget_s=budget_s,
            store=av.store.uri,
            started_at=now(),
            stages=(Stage(name="import", began_s=0, seconds=1.5, detail="pets"),),
            parts=(),
            searches=(
                SearchView(
                    title="First search", request=request, state=state, trials=tuple(av.trials(world.search))
                ),
            ),
            before=side,
            after=side,
            drift=(),
            decisions=(),
            requests=Requests(sent=10, failed=0),
        )

    monkeypatch.setattr(told, "run_demo", tell)
    return asked


def test_the_report_goes_to_the_terminal_the_json_and_the_page(
    cli: Any, story: dict[str, Any], tmp_path: Path
) -> None:
    ran = cli("demo", "--budget-s", 30, "--seed", 4, "--json", "report.json", "--html", "page.html")
    assert ran.code == 0
    assert story == {"store": str(tmp_path / "store"), "seed": 4, "budget_s": 30.0}
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["seed"], report["budget_s"]) == (4, 30.0)
    assert {"stages", "before", "after", "drift", "requests", "decisions", "trials"} <= set(report)
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert "1. import" in ran.out and "[bold]" not in ran.out
    assert "Verdict" in ran.out and "page.html" in ran.out


def test_the_page_goes_into_the_store_by_default(cli: Any, story: dict[str, Any], tmp_path: Path) -> None:
    assert cli("demo").code == 0
    assert (tmp_path / "store" / "demo.html").is_file()


def test_the_demo_has_a_store_of_its_own(cli: Any, story: dict[str, Any]) -> None:
    assert cli("demo", at=False).code == 0
    assert story["store"] == "demo-store"


def test_json_on_stdout_is_alone_there(cli: Any, story: dict[str, Any]) -> None:
    ran = cli("demo", "--json", "-")
    assert ran.answer["requests"]["sent"] == 10
    assert "Verdict" in ran.err


@pytest.mark.parametrize("option", ["--json", "--html"])
@pytest.mark.parametrize("place", ["missing/report", "store"])
def test_a_report_that_could_not_be_written_is_refused_before_the_work(
    cli: Any, story: dict[str, Any], option: str, place: str
) -> None:
    ran = cli("demo", option, place)
    assert (ran.code, ran.out) == (2, "")
    assert option in ran.err and story == {}


def test_a_stage_that_fails_is_one_error(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from autovision.demo import story as told

    def fail(*args: Any, **kwargs: Any) -> DemoResult:
        raise AutoVisionError("the weights are not here; install the demo extra")

    monkeypatch.setattr(told, "run_demo", fail)
    ran = cli("demo")
    assert ran.code == 1 and ran.err == "error: the weights are not here; install the demo extra\n"


def test_where_the_page_goes(tmp_path: Path) -> None:
    assert page_of(str(tmp_path / "a store")) == tmp_path / "a store" / "demo.html"
    assert page_of((tmp_path / "b").as_uri()) == tmp_path / "b" / "demo.html"
    assert page_of("memory://demo") == Path("demo.html")
