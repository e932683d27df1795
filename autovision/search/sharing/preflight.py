"""What can never work is refused before it takes a place, with the fault, the value and the remedy.

places, faults    from a cluster's resources alone: quick enough for every look at the queue
check             raises the first of these faults
check_models      from the networks of the space: whether one of them fits the limits, and the nodes' memory
remarks           what will work, but otherwise than one may expect
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from autovision.errors import InvalidInput
from autovision.records.searches import ClusterView, SearchRequest
from autovision.search.sharing.placement import placement
from autovision.space import Space
from autovision.space.config import TrialConfig

_PROCESS_MB = 300.0
"""10⁶ bytes that a worker holds at least before it has a network: Python, torch and Ray"""
_START_S = 8.0
"""what a worker takes to start and to import what trains, on a machine without other work: 3 to 8 s"""


def places(view: ClusterView) -> int:
    """How many workers run at once: one per GPU or share of one, or one per CPU where there are none; at least one."""
    return placement(view.nodes).concurrent


def faults(request: SearchRequest, view: ClusterView) -> list[str]:
    """Why a request can never run on a cluster as it is; empty: nothing speaks against it."""
    try:
        placement(view.nodes, request.workers_per_trial)
    except InvalidInput as error:
        return [str(error)]
    return []


def check(request: SearchRequest, view: ClusterView) -> None:
    """Raises `InvalidInput` for a request that can never run on the cluster."""
    for fault in faults(request, view):
        raise InvalidInput(fault)


def check_models(request: SearchRequest, classes: int, view: ClusterView | None = None) -> None:
    """Raises `InvalidInput` if no network of the space is small enough: for `max_size_mb`, or for any node.

    Latency and memory when served are measured where the search runs, before its first trial.

    Args:
        view: None: the cluster is not known.
    """
    space = Space.from_json(request.space)
    if request.max_size_mb is not None:
        from autovision.search.constraints.limits import Limits

        Limits(request.with_(max_latency_ms=None, max_memory_mb=None), classes, _not_measured).explore(space)
    most = max((node.get("memory", 0.0) for node in view.nodes), default=0.0) / 1e6 if view else 0.0
    if most:
        _check_memory(space, classes, most)


def _check_memory(space: Space, classes: int, most: float) -> None:
    """A worker holds at least its process and the network's weights; what a batch takes is made to fit later."""
    from autovision.model.footprint import size_mb

    needs: list[tuple[float, str]] = []
    for config in _smallest(space):
        need = _PROCESS_MB + size_mb(config, classes)
        if need <= most:
            return
        needs.append((need, config.backbone))
    least, backbone = min(needs)
    raise InvalidInput(
        f"no node has the memory for a trial of the space {space.to_json()['name']!r}: its smallest network, "
        f"{backbone}, needs {least:.0f} MB at least, and the largest node has {most:.0f} MB; "
        "choose a space with smaller backbones, or join a node with more memory"
    )


def _smallest(space: Space) -> Iterator[TrialConfig]:
    """Of each backbone the network with as few stages as the space allows, and the smallest head."""
    from autovision.search.constraints.limits import heaviest

    fewest: dict[str, TrialConfig] = {}
    for config in heaviest(space):
        known = fewest.get(config.backbone)
        if known is None or config.drop_stages > known.drop_stages:
            fewest[config.backbone] = config
    for config in fewest.values():
        yield config.with_(taps=1, head="linear", adapters=0)


def _not_measured(config: TrialConfig) -> NoReturn:
    raise AssertionError(f"the size of {config.backbone} follows from its configuration")


def remarks(request: SearchRequest, view: ClusterView) -> list[str]:
    """What is worth knowing before a request runs on a cluster."""
    found = []
    if request.budget_s < _START_S:
        found.append(
            f"a budget of {request.budget_s:g} s ends before the first worker has started, which takes up to "
            f"{_START_S:g} s; the first trial will overrun it (try --budget-s 60)"
        )
    if request.workers_per_trial > 1 and not placement(view.nodes).gpu:
        found.append(
            f"{request.workers_per_trial} workers per trial train on a CPU each: on small data sets as many "
            "trials of one worker each learn more"
        )
    return found
