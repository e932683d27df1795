"""The terminal's report holds the numbers, on wide and narrow terminals."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console

from autovision.demo.console import print_report
from autovision.demo.result import DemoResult
from autovision.demo.timeline import chapters


def printed(result: DemoResult, width: int = 120) -> str:
    file = io.StringIO()
    print_report(result, Console(file=file, width=width))
    return file.getvalue()


def test_it_holds_every_figure(result: DemoResult) -> None:
    text = printed(result)
    for side in (result.before, result.after):
        assert side.model.id in text
        for evaluation in (side.mono, side.poly):
            for interval in (evaluation.accuracy, evaluation.balanced_accuracy, evaluation.f1):
                assert str(interval) in text
            assert str(evaluation.n) in text


def test_it_holds_decisions_stages_parts_and_store(result: DemoResult) -> None:
    text = printed(result, width=200)
    for decision in result.decisions:
        assert decision.what in text
        assert decision.why in text
    for stage in result.stages:
        assert stage.name in text
        assert f"{stage.seconds:.1f}" in text
    for part in result.parts:
        assert part.name in text
        assert str(part.n) in text
    assert result.store in text
    assert "640 sent, 0 failed" in text
    assert "Clearly better on poly cells" in text


@pytest.mark.parametrize("width", [40, 60, 80])
def test_it_fits_a_narrow_terminal(result: DemoResult, width: int) -> None:
    assert max(len(line) for line in printed(result, width).splitlines()) <= width


def test_brackets_in_names_are_no_markup(tell: Any, result: DemoResult) -> None:
    decision = result.decisions[0].with_(what="[bold]x[/bold] [/nope]", why="[red]y")
    text = printed(tell(decisions=(decision,), store="file:///srv/[blue]/store"), width=200)
    assert "[bold]x[/bold] [/nope]" in text
    assert "[red]y" in text
    assert "file:///srv/[blue]/store" in text


def test_a_refused_challenger_is_said(tell: Any, result: DemoResult) -> None:
    refused = result.decisions[-1].with_(accepted=False)
    text = printed(tell(after=result.before, decisions=(refused,)), width=200)
    assert "refused: promote solar-9f8e7d" in text
    assert "no second model was promoted" in text


def test_moments_fall_into_the_stage_that_had_begun(result: DemoResult) -> None:
    told = {chapter.stage.name: [moment.text for moment in chapter.moments] for chapter in chapters(result)}
    assert told["promote"] == ["decided: promote solar-1a2b3c"]
    assert len(told["production"]) == 4
    assert told["production"][-1].startswith("poly window: alarm")
    assert told["import"] == []


def test_what_happened_before_the_story_is_no_part_of_it(tell: Any, result: DemoResult) -> None:
    old = result.decisions[0].with_(created_at=result.started_at - timedelta(days=1))
    told = tell(decisions=(old,), drift=())
    assert all(not chapter.moments for chapter in chapters(told))
    assert "earlier" in printed(told)
