"""Convert a model for this node's runtime in a process of its own, at the lowest priority.

Converting takes seconds of both processor and interpreter. A server that answers while it loads the next model would
hold its callers up for as long; what was converted here it finds ready (see `converted`).
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys

from autovision.store import open_store

logger = logging.getLogger(__name__)

_PATIENCE_S = 600.0


def prepare(store_uri: str, model: str) -> bool:
    """Whether it worked. If not, whoever loads the model meets the same fault, and tells of it."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, store_uri, model],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
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
    from autovision.model.predictor import Predictor

    store_uri, model = sys.argv[1:]
    Predictor.load(open_store(store_uri), model, threads=1)


if __name__ == "__main__":
    main()
