"""How the tests are divided between processes, where there are several (`pytest -n 2 --dist loadfile`)."""

from __future__ import annotations

from typing import Any

import pytest

RAY = (
    "tests/cluster/",
    "tests/integration/",
    *(
        f"tests/slow/test_{name}.py"
        for name in (
            "as_node",
            "full_disk",
            "queue_kill",
            "search_kill",
            "service_jobs",
            "serving_declared",
            "serving_whole",
        )
    ),
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each file's tests in one process; all that start a Ray in one, for two Rays would fight for the processors.

    Files are begun in the order of their collection. Ray's come first: while they wait, which they mostly do, the
    other processes have the processors.
    """
    from xdist.scheduler import LoadFileScheduling

    if config.option.dist != "loadfile":
        return None
    config.option.loadscopereorder = False

    class RayInOne(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "ray" if nodeid.startswith(RAY) else super()._split_scope(nodeid)

    return RayInOne(config, log)
