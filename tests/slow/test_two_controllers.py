"""Two controllers as processes of their own; the one that leads is stopped for longer than its lease, and wakes up."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autovision.records.base import now
from autovision.records.deployments import DecisionKind
from autovision.registry import deployments
from autovision.registry.searches import all_searches
from autovision.retraining import evaluation
from autovision.store import LocalStore, keys
from tests.unit.conftest import cache, one_thread, tiny  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from tests.unit.conftest import History

LEASE_S = 15.0
"""longer than any process that is not stopped waits for its turn, also on a busy machine"""
PROGRAM = f"""
import sys, time
from autovision import controller
from autovision.errors import Conflict
from autovision.records.searches import SearchStatus
from autovision.search import requests
from autovision.store import open_store

controller._LEASE_S = {LEASE_S}
controller.run_search = lambda store, search, **options: requests.set_state(
    store, search, status=SearchStatus.FINISHED, trials=1, spent_s=1.0, best_value=0.5
)
store = open_store(sys.argv[1])
while True:
    try:
        for event in controller.Controller(store).run(interval_s=0.05):
            print(event.stage, event.text, flush=True)
    except Conflict as conflict:
        print("conflict", conflict, flush=True)
        if "another controller leads" not in str(conflict):
            break
        time.sleep(0.1)
"""


def waits_for(condition: Callable[[], bool], *processes: subprocess.Popen[bytes]) -> None:
    """However slow the machine is: the test's own time limit is the end, or that of a process that is needed."""
    while not condition():
        assert all(each.poll() is None for each in processes), "it ended meanwhile"
        time.sleep(0.05)


@pytest.mark.timeout(1800)
def test_the_leader_that_wakes_up_does_nothing(tiny: History, tmp_path: Path) -> None:  # noqa: F811
    store = LocalStore(tmp_path / "store")
    for key in tiny.store.list():
        store.put_new(key, tiny.store.get(key).data)
    deployments.create(store, "door", "colours", tiny.space.to_json())
    deployments.set_champion(store, "door", tiny.models[1].id, expected=None)

    def holder() -> str:
        return (
            store.get(keys.lease("controller")).data.decode()
            if store.exists(keys.lease("controller"))
            else ""
        )

    def re_searches() -> int:
        return sum(request.nonce != "" for request, _ in all_searches(store))

    processes = []
    try:
        for name in ("first", "second"):
            command = [sys.executable, "-c", PROGRAM, store.uri]
            with (tmp_path / name).open("w") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
            if name == "first":
                waits_for(lambda: f":{processes[0].pid}" in holder(), processes[0])
                waits_for(lambda: evaluation.read(store, "door").etag is not None, processes[0])
        first, second = processes
        first.send_signal(signal.SIGSTOP)
        waits_for(lambda: f":{second.pid}" in holder(), second)
        evaluation.ask(store, "door", person="ann", reason="new lamps", at=now())
        waits_for(lambda: re_searches() == 1, second)
        first.send_signal(signal.SIGCONT)
        assert first.wait() == 0
        assert "lease ended while it worked" in (tmp_path / "first").read_text()
        time.sleep(1.0)  # passes of the second one
        assert re_searches() == 1
        accepted = [
            d for d in deployments.decisions(store, "door") if d.kind is DecisionKind.RETRAIN and d.accepted
        ]
        assert len(accepted) == 1
        assert "retraining" not in (tmp_path / "first").read_text()
        assert (tmp_path / "second").read_text().count("retraining search again") == 1
    finally:
        for process in processes:
            process.kill()
            process.wait()
