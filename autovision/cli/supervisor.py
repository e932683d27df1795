"""Keeps a command alive that works on somebody else's Ray cluster: `serve` and `controller run`.

Ray ends every process that is connected to it when their node, or the cluster's head, is lost. So the command runs in a
process of its own, below one that knows nothing of Ray and starts the next one: what it has to do is in the store.
Faults that a person has to mend are not tried again: until the command has once come to its work, its end is the end.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from types import FrameType

from autovision.errors import Interrupted

LIFELINE = "AUTOVISION_LIFELINE"
"""in the environment of the process below: a socket to the one above; with `+` behind it others were there before"""
LOST = 75
"""exit code of a command that has found what it looks after to be lost: `EX_TEMPFAIL` of sysexits.h"""
_COMMANDS = (["serve"], ["controller", "run"])
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 15.0


# ------------------------------------------------------------------------------------------------ above


def is_due(arguments: Sequence[str]) -> bool:
    """Whether a command line is to run below a supervisor: on a cluster that is not the command's own."""
    if os.environ.get("RAY_ADDRESS", "local") in ("", "local") or LIFELINE in os.environ:
        return False
    words = [word for word in arguments if not word.startswith("-")]
    # One that answers at whatever port is free would be somewhere else the next time.
    anywhere = "--port=0" in arguments or ("--port", "0") in pairwise(arguments)
    return (
        not anywhere and "--help" not in arguments and any(words[: len(each)] == each for each in _COMMANDS)
    )


def supervise(
    arguments: Sequence[str],
    program: Sequence[str] = (sys.executable, "-m", "autovision"),
    tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> int:
    """Run a command line until it ends by itself, or is told to; its exit code.

    Signals are passed on: the first one stops it in good order, the second one at once.
    """
    stopped = threading.Event()
    child: subprocess.Popen[bytes] | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()
        if child is not None and child.poll() is None:
            child.send_signal(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    came_to_work, pause_s = False, _PAUSE_S
    try:
        while True:
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    child = _start([*program, *arguments], theirs, again=came_to_work)
                if stopped.is_set():  # it was not there yet to be told
                    child.send_signal(signal.SIGTERM)
                code = child.wait()
                worked = _has_begun(ours)
            if stopped.is_set() or code in (0, Interrupted.exit_code) or not (came_to_work or worked):
                return code if code >= 0 else 128 - code
            came_to_work, pause_s = True, _PAUSE_S if worked else min(2 * pause_s, _LONGEST_PAUSE_S)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            tell(
                f"the process of this command ended with {how}; another one takes its place in {pause_s:g} s"
            )
            if stopped.wait(pause_s):
                return Interrupted.exit_code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(command: list[str], lifeline: socket.socket, *, again: bool) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=os.environ | {LIFELINE: f"{lifeline.fileno()}{'+' if again else ''}"},
        pass_fds=[lifeline.fileno()],
        start_new_session=True,  # Ctrl-C in a terminal reaches a whole group of processes; here it is passed on
    )


def _has_begun(lifeline: socket.socket) -> bool:
    lifeline.setblocking(False)
    try:
        return bool(lifeline.recv(1))
    except BlockingIOError:
        return False


# ------------------------------------------------------------------------------------------------ below


class Lifeline:
    """What the process below knows of the one above: that it lives, and whether there were others before.

    It ends with the one above.
    Without a supervisor it says that there were none, and does nothing.
    """

    def __init__(self) -> None:
        said = os.environ.pop(LIFELINE, "")
        self.again = said.endswith("+")
        """whether this process takes the place of one that had come to its work and was lost"""
        self._socket = socket.socket(fileno=int(said.rstrip("+"))) if said else None
        self._told = False
        if self._socket is not None:
            self._socket.set_inheritable(False)
            threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    @property
    def held(self) -> bool:
        """Whether there is somebody to start another process."""
        return self._socket is not None

    def begun(self) -> None:
        """The command has come to its work; to be called once or more often."""
        if self._socket is not None and not self._told:
            self._told = True
            self._socket.send(b".")

    def _watch(self) -> None:
        assert self._socket is not None
        with suppress(OSError):  # the one above was killed with what it had not read yet
            while self._socket.recv(1):
                pass
        # It was killed, and so is this one: what it had started goes on as if there had been one process.
        os._exit(LOST)
