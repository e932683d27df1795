"""The folder of a server's sockets: short enough for the address of a socket, and this user's alone."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from autovision.errors import AutoVisionError

MAX_SOCKET_PATH = 100
"""the kernel takes 107 bytes"""
OLD_S = 3600.0
"""a server that starts has nothing that listens yet"""


class UnsafeFolder(AutoVisionError):
    """A folder for sockets belongs to somebody else, or others may write to it; remove it, or set TMPDIR."""

    exit_code = 7


def server_folder(server: str) -> Path:
    """The folder of this server on this node, made if need be.

    Raises `UnsafeFolder` where somebody else made it first, or where its path is too long for a socket's address.
    """
    user = _own(Path(tempfile.gettempdir()) / f"autovision-{os.getuid()}")
    folder = _own(user / server)
    if len(os.fsencode(folder)) > MAX_SOCKET_PATH - 20:
        raise UnsafeFolder(
            f"{folder} is too long for the address of a socket; set TMPDIR to a shorter folder"
        )
    return folder


def remove_folder(server: str) -> None:
    """Forget a server's folder, with whatever is left in it."""
    shutil.rmtree(server_folder(server), ignore_errors=True)


def sweep(now: float) -> None:
    """Remove what servers left behind that were killed: folders that are old, and in which nothing listens.

    Args:
        now: seconds since the epoch.
    """
    for folder in server_folder(".").iterdir():
        with suppress(OSError):
            if now - folder.stat().st_mtime > OLD_S and not any(map(_listens, folder.glob("*.sock"))):
                shutil.rmtree(folder)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def _own(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    # Not followed: a link that somebody else put there would lead elsewhere.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UnsafeFolder(
            f"{folder} is not a folder that only user {os.getuid()} may use; remove it, or set TMPDIR"
        )
    return folder
