"""What happened when: stages in order, each with the windows and decisions that fell into it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from autovision.demo.result import DemoResult, Stage
from autovision.report.svg import minus


@dataclass(frozen=True)
class Moment:
    """Something that happened at one moment of the story."""

    at_s: float
    """since the story began"""
    text: str
    alarming: bool = False


@dataclass(frozen=True)
class Chapter:
    """A stage with what happened in it."""

    stage: Stage
    moments: tuple[Moment, ...]


def chapters(result: DemoResult) -> tuple[Chapter, ...]:
    """The stages in order of time. A moment belongs to the last stage that had begun by then.

    What happened before the story began (the store may be older) belongs to no stage.
    """
    stages = sorted(result.stages, key=lambda stage: stage.began_s)
    held: list[list[Moment]] = [[] for _ in stages]
    for moment in sorted(_moments(result), key=lambda moment: moment.at_s):
        begun = [index for index, stage in enumerate(stages) if stage.began_s <= moment.at_s]
        if begun:
            held[begun[-1]].append(moment)
    return tuple(Chapter(stage, tuple(moments)) for stage, moments in zip(stages, held, strict=True))


def _moments(result: DemoResult) -> Iterator[Moment]:
    def since(at: datetime) -> float:
        return (at - result.started_at).total_seconds()

    for window in result.drift:
        report = window.report
        said = "alarm" if report.alarm else "silent"
        score = f"drift score {minus(f'{report.score:.4f}')}, threshold {report.threshold:.4f}"
        yield Moment(since(report.created_at), f"{window.cell_type} window: {said}, {score}", report.alarm)
    for decision in result.decisions:
        verdict = "decided" if decision.accepted else "refused"
        yield Moment(since(decision.created_at), f"{verdict}: {decision.what}")
