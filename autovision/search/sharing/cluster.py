"""What the cluster has on which this process runs, and what others saw of theirs."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import ray
from ray.exceptions import RayError

from autovision.errors import AutoVisionError
from autovision.records.base import now
from autovision.records.searches import ClusterView
from autovision.store import keys, records
from autovision.store.protocol import Store


class ClusterAway(AutoVisionError):
    """Ray's head does not answer; it is asked again, and what runs goes on meanwhile."""

    exit_code = 7


_HEAD = "node:__internal_head__"
_FRESH = timedelta(minutes=5)


def here() -> ClusterView:
    """The cluster that this process is connected to; without a connection, this machine.

    It is named by the host of its head: two embedded Rays on one machine share its processors, and so one name.

    Raises `ClusterAway`.
    """
    if not ray.is_initialized():
        own = {"CPU": float(len(os.sched_getaffinity(0)))}
        return ClusterView(name=_safe(socket.gethostname()), nodes=(own,), seen_at=now())
    try:
        alive = [node for node in ray.nodes() if node["Alive"]]
    except RayError as error:
        raise ClusterAway(
            f"Ray's head does not answer ({type(error).__name__}); it is asked again"
        ) from error
    heads = [node["NodeManagerHostname"] for node in alive if _HEAD in node["Resources"]]
    name = _safe(heads[0] if heads else socket.gethostname())
    return ClusterView(name=name, nodes=tuple(node["Resources"] for node in alive), seen_at=now())


def note(store: Store, view: ClusterView) -> None:
    """Let others know what was seen."""
    key = keys.cluster_view(view.name)
    stored, is_this = records.create_or_read(store, key, view)
    # A view that says the same is written again only now and then.
    if not is_this and (stored.nodes != view.nodes or view.seen_at - stored.seen_at > _FRESH / 5):
        records.update(
            store, key, ClusterView, lambda current: view if view.seen_at > current.seen_at else None
        )


def known(store: Store, name: str | None = None) -> ClusterView | None:
    """What was seen of a cluster within the last minutes; without a name, of the one that was seen last."""
    fresh = [view for view in all_known(store) if name in (None, view.name)]
    return max(fresh, key=lambda view: view.seen_at, default=None)


def all_known(store: Store) -> list[ClusterView]:
    """What was seen of each cluster within the last minutes."""
    seen = records.read_all(store, keys.CLUSTERS, ClusterView)
    return [view for view in seen if now() - view.seen_at < _FRESH]


def _safe(host: str) -> str:
    return "".join(char if char.isalnum() or char in "-." else "-" for char in host) or "here"
