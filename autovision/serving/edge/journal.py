"""What HAProxy answered by itself, as its log tells: no replica and no room has seen those requests.

Its log is a socket of the Unix domain that this process reads; nothing is written to a disk.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread

LINE_BYTES = 256
FORMAT = "%ST %ts"
"""of a line: the status of the answer, and how the session ended (HAProxy 2.8's manual, 8.5)"""
_CALLER = "C"
"""first letter of a session that the caller ended, who has had no answer"""


def kind_of(line: str, kinds: Mapping[int, str]) -> str | None:
    """Of the problem that HAProxy answered with; None: the answer was a replica's, or there was nobody to answer.

    Args:
        line: as `FORMAT` makes it.
        kinds: status -> kind of problem, of all answers that HAProxy gives by itself.
    """
    status, _, ended = line.strip().partition(" ")
    if ended.startswith(("-", _CALLER)) or not (ended and status.isdecimal()):
        return None
    return kinds.get(int(status))


class Journal:
    """Reads the log until it is closed.

    Args:
        path: of the socket, which is made here; before HAProxy starts, or it would log nowhere.
        told: called with the kind of each problem, on a thread of the journal's own.
    """

    def __init__(self, path: Path, kinds: Mapping[int, str], told: Callable[[str], None]) -> None:
        self._kinds = kinds
        self._told = told
        self._path = path
        self._closed = False
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o600)
        self._thread = Thread(target=self._read, name="journal", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        self._closed = True
        # Nothing else ends a thread that waits for a line.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
        self._thread.join(5)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _read(self) -> None:
        while True:
            line = self._socket.recv(LINE_BYTES)
            if self._closed:
                return
            kind = kind_of(line.decode("ascii", "replace"), self._kinds)
            if kind is not None:
                self._told(kind)
