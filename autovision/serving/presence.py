"""Whether a server that was started is still there, without asking Ray: its edge takes connections on this node."""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic
from urllib.parse import urlsplit

PATIENCE_S = 15.0
"""an edge that Serve replaces is away for less"""
_LOOK_S = 1.0
_CONNECT_S = 2.0


class Presence:
    """Looks at one server again and again.

    Args:
        url: the server's own.
    """

    def __init__(self, url: str, clock: Callable[[], float] = monotonic) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._place = parts.hostname, parts.port
        self._clock = clock
        self._looked_at = self._seen_at = clock()

    def lost(self) -> bool:
        """Whether nothing has taken a connection for `PATIENCE_S`; to be asked as often as one likes."""
        at = self._clock()
        if at - self._looked_at >= _LOOK_S:
            self._looked_at = at
            if self._takes_connections():
                self._seen_at = at
        return self._looked_at - self._seen_at > PATIENCE_S

    def _takes_connections(self) -> bool:
        try:
            with socket.create_connection(self._place, _CONNECT_S):
                return True
        except OSError:
            return False
