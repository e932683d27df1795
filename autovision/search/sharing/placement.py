"""How the trials of one search share the nodes of a cluster. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autovision.errors import InvalidInput

TRIALS_PER_GPU = "trials_per_gpu"
"""a resource that nodes declare (`ray start --resources`): so many trials share each GPU of theirs; without it one"""


@dataclass(frozen=True)
class Placement:
    """How trials share a cluster.

    Attributes:
        concurrent: so many trials at once.
        cpus: of each worker.
        gpu: whether each worker has a GPU, or its share of one.
        trials_per_gpu: that share each GPU.
    """

    concurrent: int
    cpus: int
    gpu: bool
    trials_per_gpu: int = 1

    @property
    def gpu_share(self) -> float:
        """Of a GPU, for each worker that has one."""
        return 1.0 / self.trials_per_gpu

    def of_worker(self) -> dict[str, float]:
        """What a worker takes, as Tune wants to be told."""
        return {"cpu": float(self.cpus)} | ({"gpu": self.gpu_share} if self.gpu else {})


def placement(nodes: Sequence[Mapping[str, float]], workers: int = 1) -> Placement:
    """How trials of so many workers share the nodes: one GPU for each worker, or one CPU where there are no GPUs.

    Where nodes declare that trials share their GPUs, the least of what they say holds for all: every search on the
    cluster comes to the same places from that.

    No more trials run at once than have all their workers placed, so that none waits with half of them.

    Raises:
        InvalidInput: not even one trial of several workers fits, or these would share a GPU, which NCCL refuses.
    """
    gpu = sum(node.get("GPU", 0.0) for node in nodes) >= 1
    sharing = 1
    if gpu:
        fit = [node for node in nodes if node.get("GPU", 0.0) >= 1]
        sharing = max(1, min(int(node.get(TRIALS_PER_GPU, 1.0)) for node in fit))
        cpus = max(1, min(int(node.get("CPU", 0.0)) // (int(node["GPU"]) * sharing) for node in fit))
    else:
        cpus = 1
    if workers > 1 and sharing > 1:
        raise InvalidInput(
            f"{workers} workers per trial need a GPU each, and on this cluster {sharing} trials share one, as its "
            f"nodes declare ({TRIALS_PER_GPU}); ask for one worker, or use nodes that do not declare that"
        )
    places = _places(nodes, cpus, gpu=gpu, sharing=sharing)
    if workers > max(1, places):
        raise InvalidInput(
            f"{workers} workers per trial need {workers} {'GPUs' if gpu else 'CPUs'} at once, one each, and this "
            f"cluster has {places}; ask for at most {places}, or join a larger cluster"
        )
    return Placement(max(1, places // workers), cpus, gpu, sharing)


def room(nodes: Sequence[Mapping[str, float]], place: Placement, workers: int = 1) -> int:
    """How many trials like those of a placement the nodes have room for, which may be others since; at least one."""
    places = _places(nodes, place.cpus, gpu=place.gpu, sharing=place.trials_per_gpu)
    return max(1, places // workers)


def _places(nodes: Sequence[Mapping[str, float]], cpus: int, *, gpu: bool, sharing: int) -> int:
    """Workers of so many CPUs, and of one GPU each, or a share of one, if they have any."""
    fitting = (int(node.get("CPU", 0.0)) // cpus for node in nodes)
    if not gpu:
        return sum(fitting)
    return sum(
        min(sharing * int(node.get("GPU", 0.0)), each) for node, each in zip(nodes, fitting, strict=True)
    )
