"""What kind of node this is: speeds are the same on nodes of one kind."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import torch

from autovision.model.inference import native_precision
from autovision.search.costing.speeds import NodeKind


def this_node(threads: int = 1, workers: int = 1) -> NodeKind:
    """The kind of this node, for trials of so many CPU threads; on a GPU the threads do not tell kinds apart."""
    gpu = torch.cuda.is_available()
    return NodeKind(
        processor=torch.cuda.get_device_name() if gpu else processor(),
        threads=1 if gpu else threads,
        precision=native_precision(),
        gpu=gpu,
        workers=workers,
    )


@functools.cache
def processor() -> str:
    """The CPU's model, as it calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
