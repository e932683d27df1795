"""Kill -9 at any moment: nothing torn, nothing acknowledged lost, nothing locked."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

from autovision.store import LocalStore, durable

KILLS = 20

_WRITER = """
import hashlib, sys
from pathlib import Path
from autovision.store.local import LocalStore

store, run = LocalStore(Path(sys.argv[1])), int(sys.argv[2])
# In odd runs all of the time is spent in writing, so that the kill comes in the middle of a write.
large = b"%16d" % run * 500_000 if run % 2 else None
put_large = store.put_new if run % 4 == 1 else store.put_immutable
number = 0
while True:
    number += 1
    if large:
        put_large(f"large/{run}/{number}", large)
    else:
        data = f"{run}-{number}:".encode() * 20_000
        store.put_new(f"new/{run}/{number}", data)
        store.put_immutable(f"immutable/{hashlib.sha256(data).hexdigest()}", data)
        blob = store.get("counter")
        store.put_if("counter", str(int(blob.data) + 1).encode(), blob.etag)
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_whole_objects_and_all_that_it_acknowledged(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = LocalStore(root)
    store.put_new("counter", b"0")
    random_ = random.Random(0)
    acknowledged = {}
    for run in range(KILLS):
        acknowledged[run] = _write_and_kill(root, run, random_.uniform(0, 0.05))

    for key in store.list("immutable/"):
        assert hashlib.sha256(store.get(key).data).hexdigest() == key.removeprefix("immutable/")
    for key in store.list("new/"):
        _, run_, number = key.split("/")
        assert store.get(key).data == f"{run_}-{number}:".encode() * 20_000
    for key in store.list("large/"):
        assert store.get(key).data == b"%16d" % int(key.split("/")[1]) * 500_000, f"{key} is torn"
    for run, last in acknowledged.items():
        for number in range(1, last + 1):
            assert store.exists(f"{'large' if run % 2 else 'new'}/{run}/{number}")
    # Each writer added at most one step that it did not live to acknowledge.
    counted = sum(last for run, last in acknowledged.items() if run % 2 == 0)
    assert counted <= int(store.get("counter").data) <= counted + KILLS


def test_a_killed_writer_blocks_nobody(tmp_path: Path) -> None:
    root = tmp_path / "store"
    LocalStore(root).put_new("counter", b"0")
    for run in range(3):
        _write_and_kill(root, 2 * run, 0.01)
        store = LocalStore(root)
        begin = time.monotonic()
        store.put_if("counter", b"0", store.get("counter").etag)
        assert time.monotonic() - begin < durable.LOCK_TIMEOUT_S / 2


def _write_and_kill(root: Path, run: int, after_s: float) -> int:
    """The last step that the writer acknowledged before it was killed, some time after its first."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(root), str(run)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        time.sleep(after_s)
        writer.kill()
        lines += writer.stdout.readlines()
        # A last line without its end was cut: not an acknowledgement.
        return max(int(line) for line in lines if line.endswith("\n"))
