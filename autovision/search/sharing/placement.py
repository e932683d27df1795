"""How the trials of one search share the nodes of a cluster. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autovision.errors import InvalidInput


@dataclass(frozen=True)
class Placement:
    """How trials share a cluster.

    Attributes:
        concurrent: so many trials at once.
        cpus: of each worker.
        gpu: whether each worker has a GPU.
    """

    concurrent: int
    cpus: int
    gpu: bool

    def of_worker(self) -> dict[str, float]:
        """What a worker takes, as Tune wants to be told."""
        return {"cpu": float(self.cpus)} | ({"gpu": 1.0} if self.gpu else {})


def placement(nodes: Sequence[Mapping[str, float]], workers: int = 1) -> Placement:
    """How trials of so many workers share the nodes: one GPU for each worker, or one CPU where there are no GPUs.

    No more trials run at once than have all their workers placed, so that none waits with half of them.

    Raises:
        InvalidInput: not even one trial of several workers fits.
    """
    gpu = sum(node.get("GPU", 0.0) for node in nodes) >= 1
    if gpu:
        fit = [node for node in nodes if node.get("GPU", 0.0) >= 1]
        cpus = max(1, min(int(node.get("CPU", 0.0)) // int(node["GPU"]) for node in fit))
    else:
        cpus = 1
    places = _places(nodes, cpus, gpu=gpu)
    if workers > max(1, places):
        raise InvalidInput(
            f"{workers} workers per trial need {workers} {'GPUs' if gpu else 'CPUs'} at once, one each, and this "
            f"cluster has {places}; ask for at most {places}, or join a larger cluster"
        )
    return Placement(max(1, places // workers), cpus, gpu)


def room(nodes: Sequence[Mapping[str, float]], place: Placement, workers: int = 1) -> int:
    """How many trials like those of a placement the nodes have room for, which may be others since; at least one."""
    return max(1, _places(nodes, place.cpus, gpu=place.gpu) // workers)


def _places(nodes: Sequence[Mapping[str, float]], cpus: int, *, gpu: bool) -> int:
    """Workers of so many CPUs, and of one GPU each if they have any."""
    fitting = (int(node.get("CPU", 0.0)) // cpus for node in nodes)
    if not gpu:
        return sum(fitting)
    return sum(min(int(node.get("GPU", 0.0)), each) for node, each in zip(nodes, fitting, strict=True))
