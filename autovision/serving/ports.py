"""Finding out whether an address can be listened on, before anything is started."""

from __future__ import annotations

import errno
import socket

from autovision.errors import InvalidInput


def claim_port(host: str, port: int) -> int:
    """`port` if it is free on `host`; a free one for 0.

    Ray Serve binds with SO_REUSEPORT, with which two servers of one user would silently share a port and
    each get half of the requests; the check binds without it. Between the check and the start someone else
    may take the port; the start fails then.

    Raises `InvalidInput` for a port in use or out of range, a foreign host, and missing rights.
    """
    if not 0 <= port <= 65535:
        raise InvalidInput(f"port {port} does not exist; choose one from 1 to 65535, or 0 for any free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise InvalidInput(
            f"host {host!r} cannot be resolved ({error}); use an address of this machine"
        ) from None
    with socket.socket(family, kind, protocol) as probe:
        # As every server does: connections of an earlier server that are not quite closed do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            # Two sockets may bind with SO_REUSEADDR as long as neither listens.
            probe.listen(1)
        except OSError as error:
            raise InvalidInput(_fault(host, port, error)) from None
        return int(probe.getsockname()[1])


def _fault(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another with --port, or 0 for any free one"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} may not be opened by this user; choose one above 1023 with --port"
    return f"{host}:{port} cannot be listened on ({error.strerror}); use an address of this machine"
