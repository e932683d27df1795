"""Ctrl-C once: stop in good order; twice: at once. SIGTERM counts as Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopFlag:
    """Whether a person asked to stop; a context manager for the time in which asking means that.

    The first signal sets the flag, the second raises `KeyboardInterrupt`. `tell` is called once, when the
    flag is first seen to be set: not by the signal's handler, which may interrupt a write to the terminal.
    """

    def __init__(self, tell: Callable[[], None] = lambda: None) -> None:
        self._tell = tell
        self._set = False
        self._told = False
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        if self._set and not self._told:
            self._told = True
            self._tell()
        return self._set

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        return self

    def install(self) -> None:
        """Listen to the signals; to be called again after `ray.init`, which takes SIGTERM for itself."""
        for number in _SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._set:
            raise KeyboardInterrupt
        self._set = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
