"""The desk between a trial and its workers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from autovision.trial.assignment import Reported
from autovision.trial.desk import Desk


def rung(epoch: int, objective: float, weights: str = "w") -> dict[str, Any]:
    point = json.dumps({"epoch": epoch})
    return {
        "outcome": "running",
        "objective": objective,
        "point": point,
        "weights_key": weights,
        "done": False,
    }


FAILURE = {"outcome": "failed", "error": "no", "objective": float("nan"), "done": True}


def test_workers_wait_for_the_word() -> None:
    async def story() -> None:
        desk = Desk()
        waiting = asyncio.create_task(desk.report(rung(1, 0.5)))
        assert await desk.news(1.0) == rung(1, 0.5)
        assert await desk.news(0.01) is None
        assert not waiting.done()
        await desk.go_on()
        assert await waiting
        waiting = asyncio.create_task(desk.report(rung(3, 0.6)))
        await desk.news(1.0)
        assert not waiting.done(), "each report has a word of its own"
        await desk.stop()
        assert not await waiting
        assert await desk.stopped()

    asyncio.run(story())


def test_the_end_needs_no_word() -> None:
    async def story() -> None:
        desk = Desk()
        assert not await desk.report(FAILURE)
        assert await desk.news(1.0) == FAILURE
        await desk.ended("the cause")
        assert await desk.news(1.0) == {"error": "the cause"}
        await desk.go_on()

    asyncio.run(story())


def test_whoever_is_told_to_stop_is_told_so_at_the_next_rung_too() -> None:
    async def story() -> None:
        desk = Desk()
        await desk.stop()
        assert not await desk.report(rung(1, 0.5))

    asyncio.run(story())


def test_workers_after_a_loss_build_on_what_was_reported_before() -> None:
    async def story() -> None:
        desk = Desk()
        assert not await desk.started()
        assert await desk.begin() == Reported()
        assert await desk.started()
        for epoch, objective, weights in ((1, -0.2, "first"), (3, 0.0, "second"), (5, -0.1, "second")):
            waiting = asyncio.create_task(desk.report(rung(epoch, objective, weights)))
            await desk.news(1.0)
            await desk.go_on()
            await waiting
        assert await desk.begin() == Reported(losses=1, objective=0.0, weights_key="second")
        assert await desk.report(rung(3, 0.0)), "it was reported before, and is not news"
        assert await desk.news(0.01) is None
        waiting = asyncio.create_task(desk.report(rung(9, 0.1)))
        assert await desk.news(1.0) == rung(9, 0.1)
        await desk.stop()
        await waiting
        assert (await desk.begin()).losses == 2

    asyncio.run(story())
