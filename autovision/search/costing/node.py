"""What kind of node this is: speeds are the same on nodes of one kind."""

from __future__ import annotations

import torch

from autovision.model.inference import native_precision
from autovision.provenance import processor
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
