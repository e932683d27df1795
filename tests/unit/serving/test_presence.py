"""Whether a server is still there, on a clock of the test's own."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from autovision.serving import presence
from autovision.serving.presence import PATIENCE_S, Presence


@dataclass
class Clock:
    at: float = 0.0

    def __call__(self) -> float:
        return self.at


def test_a_server_is_lost_when_nothing_has_taken_a_connection_for_long() -> None:
    clock = Clock()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        seen = Presence(f"http://127.0.0.1:{port}", clock)
        for clock.at in (1.0, 100.0):
            assert not seen.lost()
    for clock.at in (101.0, 100.0 + PATIENCE_S):
        assert not seen.lost(), "it may be about to be replaced"
    clock.at += presence._LOOK_S
    assert seen.lost()
    with socket.create_server(("127.0.0.1", port)):
        clock.at += presence._LOOK_S
        assert not seen.lost(), "it is there again"


def test_a_process_that_stood_still_itself_has_seen_nothing_missing() -> None:
    clock = Clock()
    with socket.create_server(("127.0.0.1", 0)) as server:
        seen = Presence(f"http://127.0.0.1:{server.getsockname()[1]}", clock)
        clock.at = 1000.0
        assert not seen.lost()
