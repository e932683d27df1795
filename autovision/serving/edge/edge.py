"""The edge on Ray Serve: it keeps HAProxy and the room equal to the replicas that Serve says there are."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from threading import Event, Thread
from typing import Any

import ray
from ray import serve
from ray.serve.exceptions import DeploymentUnavailableError

from autovision.serving.auth import TokenBook
from autovision.serving.edge.haproxy import HAProxy, ProxyFailed, binary, room_socket
from autovision.serving.edge.places import remove_folder, server_folder, sweep
from autovision.serving.edge.plan import Address, EdgePlan, Target
from autovision.serving.edge.room import Room
from autovision.serving.listener import Listener
from autovision.serving.problems import escaped_trace
from autovision.store import open_store

logger = logging.getLogger(__name__)

REPLICA = "ModelServer"
"""the name of a target's deployment on Serve"""
LOOK_S = 0.25
"""how often replicas are asked where they answer, for `LIVELY_S` after a change and while one is waited for"""
CALM_LOOK_S = 1.0
"""and how often otherwise"""
LIVELY_S = 30.0
ANSWER_S = 2.0
"""that they get for it"""
FORGET_S = 10.0
"""so long a replica that does not answer, busy as it may be, keeps its place"""
ROOM_S = 30.0
"""for the room to listen"""


class Edge:
    """One node's edge; a deployment of its own on Serve, with one replica a node."""

    def __init__(self, plan: EdgePlan) -> None:
        self._plan = plan
        self._node = ray.get_runtime_context().get_node_id()
        self._folder = server_folder(plan.server)
        sweep(time.time())
        self._seen: dict[str, dict[str, tuple[Address, float]]] = {}
        """target -> replica -> where, and when it last said so"""
        self._wakes: dict[str, Any] = {}
        """target -> a call that waits for its first replica"""
        self._answered: dict[str, frozenset[str]] = {}
        """target -> replicas that answered when they were asked last"""
        self._answered_before: dict[str, frozenset[str]] = {}
        self._changed_at = time.monotonic()
        book = TokenBook(open_store(plan.store_uri), required=plan.require_token)
        self._room = Room(plan, book, self._wake)
        self._proxy: HAProxy | None = None
        program = binary()
        if program is None:
            self._listener = Listener(
                self._room.app, tcp=(plan.host, plan.port), cert=plan.cert, key=plan.key
            )
        else:
            room_socket(self._folder).unlink(missing_ok=True)
            self._listener = Listener(self._room.app, room_socket(self._folder))
        self._listener.start()
        self._wait_listening()
        if program is not None:
            self._proxy = HAProxy(plan, self._folder, program, self._room.note_error)
            self._proxy.start()
        self._stop = Event()
        self._fault: str | None = None
        self._thread = Thread(target=self._run, name="edge", daemon=True)
        self._thread.start()

    def check_health(self) -> None:
        """Asked by Serve, which replaces an edge that raises."""
        if not self._listener.alive or not self._thread.is_alive():
            raise RuntimeError("a thread of the edge died")
        if self._proxy is not None and not self._proxy.alive:
            raise RuntimeError("HAProxy ended")
        if self._fault is not None:
            raise RuntimeError(self._fault)

    def __del__(self) -> None:
        """Called by Serve when it stops the edge: what is under way is answered first."""
        if not hasattr(self, "_thread"):
            return  # it did not come so far
        self._stop.set()
        self._thread.join(5)
        if self._proxy is not None:
            self._proxy.stop()
        self._listener.close()
        remove_folder(self._plan.server)

    def _wait_listening(self) -> None:
        deadline = time.monotonic() + ROOM_S
        while not self._listener.listening:
            if not self._listener.alive or time.monotonic() > deadline:
                raise ProxyFailed("the edge's own HTTP server did not start; look at Ray's logs")
            time.sleep(0.01)

    def _run(self) -> None:
        handles = {
            target.name: serve.get_deployment_handle(REPLICA, target.app) for target in self._plan.targets
        }
        while not self._stop.is_set():
            for target in self._plan.targets:
                self._look(target, handles[target.name])
                self._answer_wake(target, handles[target.name])
            places = {name: self._reachable(replicas) for name, replicas in self._seen.items()}
            self._room.update(places)
            if self._proxy is not None:
                try:
                    self._proxy.sync(places)
                    self._fault = None
                except (ProxyFailed, OSError) as error:
                    self._fault = f"HAProxy cannot be told of replicas: {error}"
                    logger.error("%s", escaped_trace(error))
            self._stop.wait(self._pause_s())

    def _pause_s(self) -> float:
        """Until the next look."""
        now = time.monotonic()
        if self._answered != self._answered_before or self._wakes:
            self._answered_before, self._changed_at = dict(self._answered), now
        return LOOK_S if now - self._changed_at < LIVELY_S else CALM_LOOK_S

    def _look(self, target: Target, handle: Any) -> None:
        """Ask all replicas of a target where they answer. One that is busy keeps its place for a while."""
        now, seen = time.monotonic(), self._seen.setdefault(target.name, {})
        try:
            said = handle.broadcast("address").results(timeout_s=ANSWER_S, return_exceptions=True)
        except DeploymentUnavailableError:
            seen.clear()
            self._answered[target.name] = frozenset()
            return
        except Exception as error:  # noqa: BLE001 - Serve's controller may be away; those that were seen stay for a while
            logger.warning("replicas of %s cannot be asked: %s", target.name, escaped_trace(error))
            said = []
        answered = [address for address in said if isinstance(address, Address)]
        self._answered[target.name] = frozenset(address.replica for address in answered)
        seen.update((address.replica, (address, now)) for address in answered)
        for replica in [name for name, (_, at) in seen.items() if now - at > FORGET_S]:
            del seen[replica]

    def _reachable(self, replicas: Mapping[str, tuple[Address, float]]) -> dict[str, str]:
        found = {name: address.seen_from(self._node) for name, (address, _) in replicas.items()}
        return {name: at for name, at in found.items() if at is not None}

    def _wake(self, name: str) -> None:
        """Noted by the room, on its own thread; called by ours."""
        self._wakes.setdefault(name, None)

    def _answer_wake(self, target: Target, handle: Any) -> None:
        """A call that waits for a replica is what makes Serve start the first one."""
        if target.name not in self._wakes:
            return
        call = self._wakes[target.name]
        if call is None:
            self._wakes[target.name] = handle.wake.remote()
            return
        with contextlib.suppress(TimeoutError):
            try:
                call.result(timeout_s=0)
            except TimeoutError:
                raise
            except Exception as error:  # noqa: BLE001 - another call is made if somebody still waits
                logger.warning("a replica of %s did not wake: %s", target.name, escaped_trace(error))
            del self._wakes[target.name]
