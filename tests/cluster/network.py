"""Nodes in network namespaces of their own, joined by a bridge: a cluster on one machine whose parts can be cut off."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Self

import psutil
import pytest

ROOT = Path(__file__).parents[2]
GCS_PORT = 6379
_QUICK = {
    # A node that is cut off is given up within half a minute.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    # Where others have the machine, too, workers of the low priority that Ray gives them would not come to their turn.
    "RAY_worker_niceness": "0",
}


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=check)


def refused() -> str | None:
    """Why there can be no namespaces here; None: there can."""
    if shutil.which("ip") is None:
        return "there is no `ip` on PATH: Debian's `iproute2` has it"
    name = f"av{os.getpid()}probe"
    tried = _ip("netns", "add", name, check=False)
    if tried.returncode != 0:
        return f"network namespaces are not permitted here: {tried.stderr.strip()}"
    _ip("netns", "del", name)
    return None


_INIT = 'mount --bind "$1" "$2" && echo there && while :; do sleep 3600 & wait; done'
"""the first process of a node: it has the node's files in the place where Ray looks, and buries orphans"""


class Node:
    """Namespaces with an address, and files and processes that no other node sees: as good as a machine.

    Ray tells by the processes that it sees, and by their files, on which node a driver is.
    """

    def __init__(self, network: Network, name: str, address: str) -> None:
        self._network = network
        self.address = address
        self.namespace, self._cable = f"{network.name}{name}", f"{network.name}{name}v"
        self.log = network.folder / f"{name}.log"
        # The addresses of Ray's sockets have to be short.
        self._files = Path(tempfile.mkdtemp(prefix="avn", dir="/tmp"))
        network.folders.append(self._files)
        _ip("netns", "add", self.namespace)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        _ip("link", "set", self._cable, "up")
        _ip("-n", self.namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", self.namespace, "link", "set", "lo", "up")
        _ip("-n", self.namespace, "link", "set", "eth0", "up")
        _ip("-n", self.namespace, "route", "add", "default", "via", network.address)
        self.connect()
        self.processes: list[psutil.Popen] = []
        own = ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "sh", "-c", _INIT, "sh"]
        self._init = psutil.Popen(
            ["ip", "netns", "exec", self.namespace, *own, str(self._files), str(network.files)],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._init.stdout is not None and self._init.stdout.readline() == b"there\n"
        self._init.stdout.close()
        (first,) = self._init.children()
        self._enter = ["nsenter", "--target", str(first.pid), "--net", "--mount", "--pid", "--"]

    def cut(self) -> None:
        """Nothing goes in or out any more, and nobody is told; what is inside goes on."""
        _ip("link", "set", self._cable, "nomaster")

    def connect(self) -> None:
        _ip("link", "set", self._cable, "master", self._network.name)

    def run(
        self,
        words: Sequence[str | Path],
        environment: Mapping[str, str] = {},
        output: IO[bytes] | None = None,
    ) -> psutil.Popen:
        """Start a program here. What it says goes to the node's log, unless there is another place for it."""
        with self.log.open("ab") as log:
            process = psutil.Popen(
                [*self._enter, *map(str, words)],
                stdout=output or log,
                stderr=subprocess.STDOUT,
                env={**self._network.environment, **environment},
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def autovision(self, *words: str, output: IO[bytes] | None = None) -> psutil.Popen:
        return self.run([sys.executable, "-m", "autovision", *words], output=output)

    def start_ray(
        self, cpus: int, *, environment: Mapping[str, str] = {}, head: bool = False
    ) -> psutil.Popen:
        """Join the cluster, or be its head. The process lives for as long as the node does."""
        where = (
            ["--head", f"--port={GCS_PORT}", "--include-dashboard=false"]
            if head
            else [f"--address={self._network.gcs}"]
        )
        for left in self._files.glob("session_*"):  # of a node that was here before
            shutil.rmtree(left, ignore_errors=True)
        words = [
            Path(sys.executable).with_name("ray"),
            "start",
            "--block",
            *where,
            f"--node-ip-address={self.address}",
            f"--num-cpus={cpus}",
            "--object-store-memory=100000000",
            f"--temp-dir={self._network.files}",
            "--disable-usage-stats",
        ]
        return self.run(words, {**_QUICK, **environment, "RAY_ADDRESS": ""})

    def close(self) -> None:
        for process in [*self.processes, self._init]:
            kill(process)
        _ip("netns", "del", self.namespace, check=False)
        _ip("link", "del", self._cable, check=False)


class Network:
    """A context manager: the bridge, and the nodes on it. Whoever made it is on it, too."""

    def __init__(self, folder: Path) -> None:
        # Names of links have at most 15 characters.
        self.name = f"av{secrets.token_hex(2)}"
        self._net = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
        self.address = f"{self._net}.1"
        self.folder = folder
        self.files = Path(tempfile.mkdtemp(prefix="avn", dir="/tmp"))
        """where each node has its own"""
        self.folders: list[Path] = [self.files]
        self.nodes: list[Node] = []
        token = secrets.token_hex(32)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = kept | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.files),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    @property
    def gcs(self) -> str:
        """Where the first node's GCS is."""
        return f"{self._net}.2:{GCS_PORT}"

    def node(self, name: str) -> Node:
        node = Node(self, name, f"{self._net}.{2 + len(self.nodes)}")
        self.nodes.append(node)
        self.environment["RAY_ADDRESS"] = self.gcs
        return node

    def __enter__(self) -> Self:
        _ip("link", "add", self.name, "type", "bridge")
        _ip("addr", "add", f"{self.address}/24", "dev", self.name)
        _ip("link", "set", self.name, "up")
        return self

    def __exit__(self, *exc: object) -> None:
        for node in reversed(self.nodes):
            node.close()
        _ip("link", "del", self.name, check=False)
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)

    def alive(self) -> list[str]:
        """Addresses of the nodes that the head believes to live; asked from the head's own node."""
        code = (
            "import ray; ray.init(logging_level='error', log_to_driver=False); "
            "print('ALIVE', *[n['NodeManagerAddress'] for n in ray.nodes() if n['Alive']])"
        )
        with tempfile.TemporaryFile() as said:
            process = self.nodes[0].run([sys.executable, "-c", code], output=said)
            with suppress(psutil.TimeoutExpired):
                process.wait(60)
            kill(process)
            said.seek(0)
            found = [line for line in said.read().decode().splitlines() if line.startswith("ALIVE")]
        return found[0].split()[1:] if found else []


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    if (why := refused()) is not None:
        pytest.skip(why)
    with Network(tmp_path) as made:
        yield made


def tree(process: psutil.Process) -> list[psutil.Process]:
    """A process and all below it."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(process: psutil.Process) -> None:
    """With SIGKILL, and all that it started."""
    killed = tree(process)
    for each in killed:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)
    psutil.wait_procs(killed, timeout=30)


def until(true: Callable[[], object], pause_s: float = 0.2) -> None:
    """However slow the machine is: the test's own time limit is the end."""
    while not true():
        time.sleep(pause_s)


@contextmanager
def kept(start: Callable[[], psutil.Popen]) -> Iterator[list[psutil.Popen]]:
    """What a node manager does: starts a program again whenever it ends. All that were started, the last one last."""
    import threading

    over, started = threading.Event(), [start()]

    def keep() -> None:
        while not over.wait(0.5):
            if started[-1].poll() is not None:
                for each in tree(started[-1])[1:]:
                    kill(each)
                started.append(start())

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield started
    finally:
        over.set()
        thread.join()
