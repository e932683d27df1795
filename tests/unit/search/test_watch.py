"""Looking at a search while it runs."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from autovision.records.searches import SearchRequest
from autovision.records.trials import CurvePoint, TrialResult
from autovision.search.warm import Start
from autovision.search.watch import Watch
from autovision.space import Choice, Float, Space
from autovision.space.config import TrialConfig

Line = Callable[..., TrialResult]


class Two(Space):
    backbone = Choice("test_resnet", "test_efficientnet")
    weights = "random"
    lr = Float(1e-3, 1e-1)


def request(**changes: Any) -> SearchRequest:
    fields = {"dataset": "d", "dataset_version": 1, "dataset_digest": "0" * 64, "space": Two.to_json()}
    return SearchRequest.model_validate({**fields, "budget_s": 600.0, **changes})


class Running:
    """As much of a driver as a watch looks at."""

    def __init__(self, asked: SearchRequest, now: float = 300.0) -> None:
        self.request, self.space, self.now = asked, Two(), now
        self.search_started, self.deadline = 0.0, asked.budget_s
        self.ledger: list[TrialResult] = []
        self.running: dict[str, Any] = {}
        self.paused: dict[str, Any] = {}
        self.suspended = False
        self.starts: list[Start] = []
        self.left_out: frozenset[str] = frozenset()
        self.cost = SimpleNamespace(predicted_s=lambda config: 10.0)

    def clock(self) -> float:
        return self.now

    def suspend(self) -> None:
        self.suspended = True

    def add_starts(self, starts: list[Start]) -> None:
        self.starts += starts

    def tried(self, line: Line, *values: float, backbone: str = "test_resnet", every_s: float = 5.0) -> None:
        for value in values:
            number = len(self.ledger)
            metrics = {"accuracy": value, "neg_log_loss": -0.5}
            curve = (point(metrics, every_s * (number + 1)),)
            config = TrialConfig(backbone=backbone, weights="random")
            self.ledger.append(line(number, value, curve=curve, metrics=metrics, config=config))


def point(metrics: dict[str, float], search_s: float) -> CurvePoint:
    return CurvePoint(rung=0, epoch=1, seconds=1.0, search_s=search_s, train_loss=0.5, metrics=metrics)


def watch(driver: Running, **changes: Any) -> Watch:
    return Watch(driver, lambda: False, 400, **changes)  # type: ignore[arg-type]


def test_whoever_asks_for_nothing_uses_the_whole_budget(line: Line) -> None:
    driver = Running(request())
    driver.tried(line, *[0.8] * 40)
    looking = watch(driver)
    assert not looking() and looking.ended_early is None


def test_a_person_who_stops_it_is_heard_at_once(line: Line) -> None:
    driver = Running(request())
    looking = Watch(driver, lambda: True, 400)  # type: ignore[arg-type]
    assert looking() and looking.ended_early is None
    assert driver.suspended, "what runs is not over: somebody may go on with it"


def test_patience_ends_a_search_that_no_longer_rises(line: Line) -> None:
    driver = Running(request(patience_s=100.0), now=0.0)
    looking = watch(driver)
    driver.tried(line, 0.8, 0.85, 0.84, 0.85)
    driver.now = 300.0
    assert looking() and looking.ended_early is not None and "patience 100 s" in looking.ended_early
    assert looking(), "and it stays ended"


def test_what_running_trials_have_reported_counts(line: Line) -> None:
    driver = Running(request(patience_s=100.0))
    driver.tried(line, 0.8)
    better = point({"accuracy": 0.9, "neg_log_loss": -0.3}, 250.0)
    driver.running["t"] = SimpleNamespace(members=[SimpleNamespace(curve=[better])])
    driver.now = 0.0
    looking = watch(driver)
    driver.now = 300.0
    assert not looking()


def test_a_search_that_ended_by_patience_has_it_anew_when_it_is_extended(line: Line) -> None:
    driver = Running(request(patience_s=100.0), now=300.0)
    driver.tried(line, 0.8, 0.85, 0.84, 0.85)
    looking = watch(driver)
    for driver.now, ends in ((300.0, False), (399.0, False), (400.0, True)):
        looking._looked = -100.0
        assert looking() == ends
    assert looking.ended_early is not None and "for 100 s (patience 100 s)" in looking.ended_early


@pytest.mark.parametrize(
    ("backbones", "left_out", "predicted_s", "ends"),
    [
        (("test_resnet",), (), 10.0, True),
        (("test_resnet", "test_efficientnet"), (), 10.0, False),
        (("test_resnet", "test_efficientnet"), ("test_efficientnet",), 10.0, True),
        (("test_resnet", "test_efficientnet"), (), 1e6, True),
    ],
)
def test_a_search_has_not_converged_before_every_backbone_that_fits_was_tried(
    line: Line, backbones: tuple[str, ...], left_out: tuple[str, ...], predicted_s: float, ends: bool
) -> None:
    driver = Running(request(converged=True))
    driver.tried(line, *([0.8, 0.79, 0.801, 0.795, 0.8] * 8))
    driver.left_out = frozenset(left_out)
    driver.cost = SimpleNamespace(predicted_s=lambda config: predicted_s)
    looking = watch(driver, backbones=backbones)
    assert looking() == ends
    assert (looking.ended_early is not None) == ends


def test_starting_points_that_come_late_are_taken_once(line: Line) -> None:
    driver, asked = Running(request()), []
    found = [Start({"lr": 0.01}, "similar")]

    def late() -> list[Start] | None:
        asked.append(len(driver.ledger))
        return found if driver.ledger else None

    looking = watch(driver, late_starts=late)
    looking()
    assert driver.starts == []
    driver.tried(line, 0.8)
    for _ in range(3):
        looking._looked = -100.0
        looking()
    assert driver.starts == found and asked == [0, 1]
