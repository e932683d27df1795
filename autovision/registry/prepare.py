"""Convert a model for this node's runtime and compare it with PyTorch, in a process of its own.

Both take seconds of both processor and interpreter, and PyTorch some hundred megabytes. A server that answers while it
loads the next model would hold its callers up for as long; it finds the model ready (`registry.ready`), without
PyTorch where OpenVINO or ONNX Runtime serves it. While models answer, it is done at the lowest priority, and runtimes
are not measured: that would disturb the answers, and these the measuring.
"""

from __future__ import annotations

import fcntl
import functools
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from autovision.model import converted
from autovision.store import open_store

logger = logging.getLogger(__name__)

_PATIENCE_S = 600.0
_IDLE_S = 60.0
"""that it gets to be done with what processors have to spare"""
MEASURE, IDLE, LAST = "measure", "idle", "last"
"""whose turn it is: its own, nobody else's, or after all others"""


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Alone among the processes of this node: what one of them makes ready, those that waited find ready."""
    root = converted.root("ready")
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("w")
    except OSError:  # without a cache nobody finds anything
        yield
        return
    with lock:
        with suppress(OSError):  # some network file systems know no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare(store_uri: str, model: str, threads: int, runtime: str, *, measure: bool) -> bool:
    """Whether it worked. If not, whoever loads the model meets the same fault, and tells of it.

    The arguments are those with which the model will be loaded.
    """
    run = functools.partial(_run, [store_uri, model, str(threads), runtime, str(int(measure))])
    if measure:
        done = run(MEASURE, _PATIENCE_S)
    else:
        try:
            done = run(IDLE, _IDLE_S)
        except subprocess.TimeoutExpired:
            # Callers leave it nothing, and would never get the model that somebody wants them to have.
            done = run(LAST, _PATIENCE_S)
    if done.returncode:
        logger.warning("model %r could not be prepared: %s", model, done.stderr[-2000:])
    return done.returncode == 0


def _run(arguments: Sequence[str], turn: str, patience_s: float) -> subprocess.CompletedProcess[str]:
    """Raises `subprocess.TimeoutExpired`; the process has ended then."""
    return subprocess.run(
        [sys.executable, "-m", __name__, *arguments, turn],
        env=os.environ if turn == MEASURE else os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patience_s,
        check=False,
    )


def _stand_back(turn: str) -> None:
    """Let others go first: as the last of them, or with what nobody else wants to compute."""
    os.nice(19)
    if turn == IDLE:
        with suppress(AttributeError, OSError):  # Linux has it, and lets everybody choose it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main() -> None:
    store_uri, model, threads, runtime, measures, turn = sys.argv[1:]
    measure = measures == "1"
    if not measure:
        _stand_back(turn)
    store = open_store(store_uri)
    from autovision.registry import runtimes

    runtimes.load(store, model, threads=int(threads), runtime=runtime, measure=measure)


if __name__ == "__main__":
    main()
