"""Several searches at once, each in a process of its own: started in their turn, listened to, stopped.

A fleet holds nothing that is not in the store, but for the processes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import ray

from autovision.errors import InvalidInput
from autovision.records.searches import SearchState, SearchStatus
from autovision.search import job, requests
from autovision.search.progress import ProgressEvent
from autovision.search.sharing import cluster, queue
from autovision.search.sharing.cluster import ClusterAway
from autovision.store.protocol import Store

_TAIL = 2000
"""bytes of a lost process's last words"""
_PAUSE_S = 5.0
"""before a search that lost its process gets another one"""
_MOST_LOSSES = 3
_CHILD_PATIENCE_S = 60.0
"""a search that was told to stop ends its rung's bookkeeping; then it is killed, and loses that rung"""


@dataclass(frozen=True)
class Ended:
    """How a search's process ended.

    Attributes:
        code: its exit code; negative: the signal that killed it.
        words: the last line that it wrote to stderr.
    """

    search: str
    code: int
    words: str


@dataclass(frozen=True)
class News:
    """Something that happened, for people to read."""

    text: str
    state: SearchState | None = None
    fault: bool = False


@dataclass
class _Process:
    popen: subprocess.Popen[str]
    stderr: IO[bytes]
    reader: threading.Thread


class Fleet:
    """The processes of searches on one Ray cluster.

    Args:
        most: searches at once; None: as many as the cluster has places for.
        on_progress: called from threads with a search's id and what it told.
    """

    def __init__(
        self,
        store: Store,
        most: int | None = None,
        on_progress: Callable[[str, ProgressEvent], None] = lambda search, event: None,
    ) -> None:
        if store.uri.startswith("memory:"):
            raise InvalidInput(
                f"the store {store.uri} lives in this process, where no other one can read it; run one search "
                "at a time, or use a folder as the store"
            )
        if most is not None and most < 1:
            raise InvalidInput(f"{most} searches at once: give at least 1")
        self._store, self._on_progress = store, on_progress
        self.most = most
        self._processes: dict[str, _Process] = {}
        self._not_before: dict[str, float] = {}
        self._losses: dict[str, tuple[int, int]] = {}
        """search -> how many trials it had when it lost its process, and how often since then"""
        self._away = False
        """whether the cluster did not answer when it was asked last"""

    @property
    def searches(self) -> tuple[str, ...]:
        """Those that have a process, in the order in which they were started."""
        return tuple(self._processes)

    @property
    def full(self) -> bool:
        return self.most is not None and len(self._processes) >= self.most

    def turn(self, connect: Callable[[], None]) -> Iterator[News]:
        """Take note of those that have ended, and start those whose turn it is.

        Args:
            connect: connects to Ray; called only when a search waits.
        """
        for ended in self.ended():
            yield from self._after(ended)
        if self.full or not queue.waiting(self._store):
            return
        connect()
        try:
            view = cluster.here()
        except ClusterAway as away:
            if not self._away:
                yield News(str(away), fault=True)
            self._away = True
            return
        self._away = False
        cluster.note(self._store, view)
        for request in queue.ready(self._store, view, self.searches):
            if self.full:
                return
            if time.monotonic() >= self._not_before.get(request.id, 0.0):
                self.start(request.id, ray.get_runtime_context().gcs_address)
                among = f", beside {', '.join(self.searches[:-1])}" if len(self._processes) > 1 else ""
                yield News(f"search {request.id} begins on {view.name}{among}")

    def recall(self) -> None:
        """Stop all in good order, and put them into the queue: who goes on with the queue goes on with them.

        Those that a person has stopped stay so.
        """
        meant = [each for each in self.searches if requests.stop_asked(requests.get(self._store, each)[1])]
        for ended in self.stop():
            if ended.search not in meant and requests.get(self._store, ended.search)[1].status in (
                SearchStatus.STOPPED,
                SearchStatus.RUNNING,
            ):
                requests.set_state(self._store, ended.search, status=SearchStatus.QUEUED)

    def _after(self, ended: Ended) -> Iterator[News]:
        request, state = requests.get(self._store, ended.search)
        match state.status:
            case SearchStatus.FINISHED:
                yield News(requests.told(request, state), state)
            case SearchStatus.FAILED:
                yield News(f"{request.id}: {state.error}", state, fault=True)
            case SearchStatus.STOPPED:
                yield News(f"search {request.id} was stopped after {state.trials} trials", state)
            case _:
                yield self._lost(ended)

    def _lost(self, ended: Ended) -> News:
        """A process that ended without saying how its search did: another one goes on, but not for ever."""
        self._not_before[ended.search] = time.monotonic() + _PAUSE_S
        if ended.code == job.NOT_CONNECTED:
            return News(f"{ended.search}: {ended.words}; it is tried again", fault=True)
        how = f"signal {-ended.code}" if ended.code < 0 else f"exit code {ended.code}"
        fault = f"its process ended with {how}" + (f" ({ended.words})" if ended.words else "")
        trials = len(requests.trials(self._store, ended.search))
        before, times = self._losses.get(ended.search, (trials, 0))
        times = times + 1 if before == trials else 1
        self._losses[ended.search] = trials, times
        if times < _MOST_LOSSES:
            return News(f"{ended.search}: {fault}; another one goes on from what is stored", fault=True)
        fault = f"{fault}, {times} times in a row without a further trial"
        state = requests.set_state(self._store, ended.search, status=SearchStatus.FAILED, error=fault)
        return News(
            f"{ended.search}: {fault}; `autovision search resume {ended.search}` tries again", state, True
        )

    def start(self, search: str, address: str) -> None:
        """Run a search on the Ray cluster at `address`, or go on with it."""
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - `_last_words` closes it
        popen = subprocess.Popen(
            [sys.executable, "-m", job.__name__, self._store.uri, search],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | {"RAY_ADDRESS": address},
            start_new_session=True,  # Ctrl-C in a terminal reaches a whole group of processes
        )
        reader = threading.Thread(target=self._read, args=(search, popen), name=f"job-{search}", daemon=True)
        reader.start()
        self._processes[search] = _Process(popen, stderr, reader)

    def ended(self) -> list[Ended]:
        """Those that have ended since the last look."""
        found = []
        for search, process in list(self._processes.items()):
            if (code := process.popen.poll()) is not None:
                del self._processes[search]
                found.append(Ended(search, code, _last_words(process)))
        return found

    def stop(self) -> list[Ended]:
        """Stop all in good order; what was done is stored."""
        for process in self._processes.values():
            process.popen.send_signal(signal.SIGTERM)
        until = time.monotonic() + _CHILD_PATIENCE_S
        for process in self._processes.values():
            try:
                process.popen.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait()
        return self.ended()

    def _read(self, search: str, popen: subprocess.Popen[str]) -> None:
        assert popen.stdout is not None
        with popen.stdout as lines:
            for line in lines:
                try:
                    event = ProgressEvent(**json.loads(line))
                except (ValueError, TypeError):
                    continue  # cut off in the middle: its process was killed
                self._on_progress(search, event)


def _last_words(process: _Process) -> str:
    process.reader.join(1.0)
    with process.stderr as stderr:
        end = stderr.seek(0, os.SEEK_END)
        stderr.seek(max(0, end - _TAIL))
        lines = stderr.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
