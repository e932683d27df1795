"""Commands that are kept alive: small programs stand for them, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from autovision.cli import supervisor
from autovision.cli.supervisor import LIFELINE, Lifeline, is_due, supervise

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from autovision.cli.supervisor import Lifeline

lifeline, seen = Lifeline(), Path(sys.argv[1])
with seen.open("a") as lines:
    print(os.getpid(), lifeline.again, file=lines)
turn = len(seen.read_text().splitlines())
"""
"""notes each process that runs it, and which one it is"""


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_PAUSE_S", 0.01)
    monkeypatch.setattr(supervisor, "_LONGEST_PAUSE_S", 0.01)


def program(what: str) -> tuple[str, ...]:
    return sys.executable, "-c", PROGRAM + what


def lines(seen: Path) -> list[str]:
    return [line.split()[1] for line in seen.read_text().splitlines()]


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("words", "due"),
    [
        (["serve", "pets"], True),
        (["--traceback", "serve", "pets", "--port", "8000"], True),
        (["controller", "run", "--once"], True),
        (["controller", "why", "pets"], False),
        (["serve", "--help"], False),
        (["serve", "pets", "--port", "0"], False),
        (["serve", "pets", "--port=0"], False),
        (["search", "submit", "serve"], False),
        ([], False),
    ],
)
def test_what_works_on_a_cluster_for_good_is_kept_alive(
    words: list[str], due: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert is_due(words) is due
    monkeypatch.setenv(LIFELINE, "5")
    assert not is_due(words), "it is the one below"
    monkeypatch.delenv(LIFELINE)
    monkeypatch.delenv("RAY_ADDRESS")
    assert not is_due(words), "a Ray of its own ends with it"


def test_who_never_came_to_his_work_is_not_started_again(tmp_path: Path) -> None:
    told: list[str] = []
    assert supervise([str(tmp_path / "seen")], program("sys.exit(3)"), told.append) == 3
    assert (lines(tmp_path / "seen"), told) == (["False"], [])
    assert supervise([str(tmp_path / "seen")], program("os.abort()"), told.append) == 128 + signal.SIGABRT


def test_who_is_lost_is_followed_by_another_one_until_one_ends_well(tmp_path: Path) -> None:
    told: list[str] = []
    rest = """
if turn == 1:
    lifeline.begun()
    lifeline.begun()
    os.kill(os.getpid(), signal.SIGKILL)
if turn == 2:
    sys.exit(7)  # it does not come to its work, as the cluster is still away
lifeline.begun()
"""
    assert supervise([str(tmp_path / "seen")], program(rest), told.append) == 0
    assert lines(tmp_path / "seen") == ["False", "True", "True"]
    assert len(told) == 2 and "signal 9" in told[0] and "exit code 7" in told[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_ends_both(number: int, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    rest = """
def stop(number, frame):
    sys.exit(5)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
lifeline.begun()
seen.with_suffix(".ready").touch()
time.sleep(600)
"""
    seen = tmp_path / "seen"

    def tell() -> None:
        until(seen.with_suffix(".ready").exists)
        os.kill(os.getpid(), number)

    telling = threading.Thread(target=tell)
    telling.start()
    assert supervise([str(seen)], program(rest)) == 5
    telling.join()
    assert lines(seen) == ["False"]
    assert signal.getsignal(number) is before


def test_who_loses_the_one_above_ends_with_it(tmp_path: Path) -> None:
    rest = """
def stop(number, frame):
    seen.with_suffix(".stopped").touch()
signal.signal(signal.SIGTERM, stop)
lifeline.begun()
seen.with_suffix(".ready").touch()
time.sleep(600)
"""
    seen = tmp_path / "seen"
    above = f"from autovision.cli.supervisor import supervise; supervise({[str(seen)]}, {program(rest)})"
    with subprocess.Popen([sys.executable, "-c", above]) as process:
        until(seen.with_suffix(".ready").exists)
        below = psutil.Process(int(seen.read_text().split()[0]))
        process.kill()
    below.wait(60)
    assert not seen.with_suffix(".stopped").exists(), "what it has started is not stopped"


def test_without_one_above_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIFELINE, raising=False)
    lifeline = Lifeline()
    lifeline.begun()
    assert (lifeline.held, lifeline.again) == (False, False)
