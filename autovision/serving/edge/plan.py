"""What an edge is told, and what it learns of replicas."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from autovision.serving.limits import Limits

DEPLOYMENT_HEADER = "x-autovision-deployment"
"""from HAProxy to the room: whose replica is missing"""
EDGE_HEADER = "x-autovision-edge"
"""from an edge to replicas that listen on the network: the server's secret"""
RESERVED = frozenset({"v1", "v2", "metrics"})
"""first parts of paths; deployments of these names cannot be served beside others"""


@dataclass(frozen=True)
class Target:
    """A deployment, or a pinned model, that an edge leads to."""

    name: str
    app: str
    """its application on Ray Serve"""
    sleeps: bool = False
    """whether it may have no replica until somebody calls"""


@dataclass(frozen=True)
class Address:
    """Where one replica answers HTTP."""

    replica: str
    node: str
    """Ray's id of the node"""
    socket: str
    """of the Unix domain, on that node"""
    tcp: str | None = None
    """host:port for edges on other nodes; None: there is but one node"""

    def seen_from(self, node: str) -> str | None:
        """In HAProxy's form; None: it cannot be reached from there."""
        return f"unix@{self.socket}" if node == self.node else self.tcp


@dataclass(frozen=True)
class EdgePlan:
    """All that an edge needs to know.

    Attributes:
        server: names the server's folder and sockets.
        secret: what replicas that listen on the network want to be told.
        wait_s: so long a request waits for a replica; one that sleeps is to be loaded within.
        room: requests that wait at once; more are refused with 503. As many as come while a replica starts anew.
    """

    server: str
    store_uri: str
    host: str
    port: int
    targets: tuple[Target, ...]
    cert: Path | None = None
    key: Path | None = None
    secret: str | None = None
    require_token: bool = False
    limits: Limits = field(default_factory=Limits)
    wait_s: float = 60.0
    room: int = 2000
    room_bytes: int = 256 * 2**20

    @property
    def single(self) -> Target | None:
        """The one target, which answers without its name in the path, too."""
        return self.targets[0] if len(self.targets) == 1 else None
