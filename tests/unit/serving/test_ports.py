"""Ports are checked before anything starts."""

from __future__ import annotations

import socket

import pytest

from autovision.errors import InvalidInput
from autovision.serving.ports import claim_port


def test_zero_gives_a_free_port_and_a_free_port_is_kept() -> None:
    port = claim_port("127.0.0.1", 0)
    assert 1024 <= port <= 65535
    assert claim_port("127.0.0.1", port) == port


@pytest.mark.parametrize("reuse_port", [False, True])
def test_a_port_in_use_is_named_with_the_remedy(reuse_port: bool) -> None:
    with socket.socket() as taken:
        if reuse_port:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=rf"port {port} on 127.0.0.1 is in use.*--port"):
            claim_port("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "port", "fault"),
    [
        ("127.0.0.1", 65536, "port 65536"),
        ("127.0.0.1", -1, "port -1"),
        ("no such host", 0, "'no such host'"),
        ("192.0.2.1", 0, "192.0.2.1:0"),
    ],
)
def test_addresses_that_cannot_be_listened_on_are_refused(host: str, port: int, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        claim_port(host, port)
