"""A full disk in the middle of a search: it is told, nothing is lost, and the search goes on once there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from autovision.errors import StoreUnavailable
from autovision.records.searches import SearchStatus
from tests.slow.searches import Both, Killed, Plan, colours, wait_until

PLAN = Plan(Both(), ("--max-trials", "12", "--seed", "3", "--no-confirm"), cpus=1, after=0)
SIZE_MB = 96


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all the room there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 * 1024))
        except OSError:
            pass
        try:
            while True:
                file.write(b"x")
        except OSError:
            pass
    return ballast


@pytest.mark.timeout(900)
def test_a_search_whose_disk_is_full_says_so_and_goes_on_later(disk: Path, tmp_path: Path) -> None:
    search = Killed(PLAN, colours(tmp_path / "images"), disk)
    with search.submitted() as process:
        wait_until(lambda: len(search.lines()) >= 3, process)
        ballast = fill(disk)
        assert process.wait(300) == StoreUnavailable.exit_code
    kept = search.lines()
    assert search.state.status is not SearchStatus.FINISHED
    ballast.unlink()
    state = search.resumed()
    assert state.status is SearchStatus.FINISHED, state.error
    after = search.lines()
    assert {key: after[key] for key in kept} == kept, "what had ended is as it was"
    assert sorted(trial.number for trial in search.trials) == list(range(12))
