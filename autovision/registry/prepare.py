"""Convert a model and compare it with PyTorch, in a process of its own at the lowest priority.

Both take seconds of processor and interpreter. A server that answers while it loads the next model would hold its callers
up for as long; what was done here it finds ready (see `converted` and `runtimes`).
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys

from autovision.store import open_store

logger = logging.getLogger(__name__)

_PATIENCE_S = 600.0


def prepare(store_uri: str, model: str, threads: int | None, runtime: str = "auto") -> bool:
    """Do all that `runtimes.load` with the same arguments would; whether it worked. If not, whoever loads the model meets the same fault, and tells of it."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, store_uri, model, str(threads or 0), runtime],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    if done.returncode:
        logger.warning("model %r could not be prepared: %s", model, done.stderr[-2000:])
    return done.returncode == 0


def main() -> None:
    os.nice(19)
    from autovision.registry import runtimes

    store_uri, model, threads, runtime = sys.argv[1:]
    runtimes.load(open_store(store_uri), model, threads=int(threads) or None, runtime=runtime, measure=False)


if __name__ == "__main__":
    main()
