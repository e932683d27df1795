"""One search in a process of its own: what a `Fleet` starts. A crash here takes nobody else along.

    python -m autovision.search.job STORE SEARCH

Ray's address comes from `RAY_ADDRESS`. Progress goes to stdout, one JSON object a line; how it ended is in the store,
and the exit code is that of the error. The first SIGTERM stops the search in good order, the second one at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TextIO

from autovision import runtime
from autovision.errors import AutoVisionError, Interrupted
from autovision.search.progress import ProgressEvent
from autovision.search.run import run_search
from autovision.store import open_store

NOT_CONNECTED = 75
"""the exit code when Ray could not be reached, which says nothing about the search"""

_LEAST_S = 0.5
"""between two lines without a message"""


class Told:
    """Writes progress, as often as a person can read it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = 0.0

    def __call__(self, event: ProgressEvent) -> None:
        if event.message is None and time.monotonic() - self._last < _LEAST_S:
            return
        self._last = time.monotonic()
        try:
            self._stream.write(json.dumps(asdict(event), default=str) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            # Whoever started this one is gone; the search goes on.
            self._stream = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives


def main(uri: str, search: str) -> int:
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    told = Told(sys.stdout)
    sys.stdout = sys.stderr  # what libraries print is no progress
    signal.signal(signal.SIGTERM, stop)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a Ctrl-C is for who started this one, who says what it means
    try:
        runtime.connect()
    except Exception as error:  # noqa: BLE001 - whatever kept Ray from being reached
        print(f"Ray cannot be reached: {error}", file=sys.stderr)
        return NOT_CONNECTED
    signal.signal(signal.SIGTERM, stop)  # `ray.init` may have taken it
    try:
        # Whoever stopped it since it was started means this process.
        run_search(
            open_store(uri),
            search,
            on_progress=told,
            should_stop=stopping.is_set,
            resumes=False,
            from_queue=True,
        )
    except KeyboardInterrupt:
        return Interrupted.exit_code
    except AutoVisionError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        runtime.disconnect()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
