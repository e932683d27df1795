"""Where the workers of one trial report, and hear whether they go on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from autovision.trial.assignment import Reported


class Desk:
    """An actor between a trial and its workers.

    It keeps what was reported, so that workers who are started after a loss build on it.

    Args:
        before: what workers of an earlier assignment of the same trial had reported.
    """

    def __init__(self, before: Reported | None = None) -> None:
        before = before or Reported()
        self._news: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._word: asyncio.Future[bool] | None = None
        self._starts = 0
        self._epoch = 0
        self._reported, self._losses = before, before.losses
        self._stopped = False

    async def begin(self) -> Reported:
        """Workers have started; what those before them had reported."""
        self._starts += 1
        self._reported = self._reported.with_(losses=self._losses + self._starts - 1)
        return self._reported

    async def report(self, result: dict[str, Any]) -> bool:
        """Bring the result of a rung, or of a failure; whether to go on."""
        if self._stopped or result["done"]:
            await self._news.put(result)
            return False
        epoch = json.loads(result["point"])["epoch"]
        if epoch <= self._epoch:  # it was trained again, after a loss
            return True
        self._epoch = epoch
        best = self._reported.objective
        if best is None or result["objective"] > best:
            self._reported = self._reported.with_(
                objective=result["objective"], weights_key=result["weights_key"]
            )
        self._word = asyncio.get_running_loop().create_future()
        await self._news.put(result)
        return await self._word

    async def ended(self, error: str | None) -> None:
        """There are no workers any more."""
        await self._news.put({"error": error})

    async def news(self, timeout_s: float) -> dict[str, Any] | None:
        """The next report; None: there was none in this time."""
        try:
            return await asyncio.wait_for(self._news.get(), timeout_s)
        except TimeoutError:
            return None

    async def go_on(self) -> None:
        if self._word is not None and not self._word.done():
            self._word.set_result(True)

    async def stop(self) -> None:
        self._stopped = True
        if self._word is not None and not self._word.done():
            self._word.set_result(False)

    async def stopped(self) -> bool:
        return self._stopped

    async def started(self) -> bool:
        """Whether there ever were workers."""
        return self._starts > 0
