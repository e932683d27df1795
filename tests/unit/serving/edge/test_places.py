"""The folder of a server's sockets."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path

import pytest

from autovision.serving.edge.places import UnsafeFolder, remove_folder, server_folder, sweep


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tempfile.TemporaryDirectory(prefix="av") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        yield Path(short)  # type: ignore[misc]


def test_it_is_this_users_alone_and_the_same_for_all_who_ask(here: Path) -> None:
    folder = server_folder("s1")
    assert folder == server_folder("s1")
    assert [each.stat().st_mode & 0o777 for each in (folder, folder.parent)] == [0o700, 0o700]
    (folder / "a.sock").write_text("")
    remove_folder("s1")
    assert not folder.exists()


def test_one_that_others_may_write_to_or_that_leads_elsewhere_is_refused(here: Path) -> None:
    folder = server_folder("s1")
    folder.chmod(0o770)
    with pytest.raises(UnsafeFolder, match="only user"):
        server_folder("s1")
    folder.rmdir()
    folder.symlink_to(here)
    with pytest.raises(UnsafeFolder, match="only user"):
        server_folder("s1")


def test_what_killed_servers_left_behind_is_removed(here: Path) -> None:
    names = ("old", "new", "alive")
    folders = {name: server_folder(name) for name in names}
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folders["old"] / "room.sock"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folders["alive"] / "room.sock"))
        listener.listen()
        for name in ("old", "alive"):
            os.utime(folders[name], (0, 0))
        sweep(time.time())
    assert {name for name in names if folders[name].exists()} == {"new", "alive"}


def test_a_path_that_is_too_long_for_a_socket_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = here / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(UnsafeFolder, match="set TMPDIR"):
        server_folder("s1")
