"""The replica that Ray Serve runs: an engine behind the HTTP app, with an HTTP server of its own."""

from __future__ import annotations

import functools
import logging
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from starlette.types import ASGIApp

from autovision.records.runtimes import AUTO, check_choice
from autovision.serving.app import build_app
from autovision.serving.auth import TokenBook
from autovision.serving.edge.plan import EDGE_HEADER, Address
from autovision.serving.engine import Engine, EngineConfig
from autovision.serving.limits import Limits
from autovision.serving.listener import Listener, OnlyFrom
from autovision.serving.predicting import LoadPredictor, Predictor
from autovision.serving.scaling import Load
from autovision.store import open_store
from autovision.store.protocol import Store

logger = logging.getLogger(__name__)

SETTLE_S = 120.0
"""so long a replica does not listen because its first model is being loaded"""


class CompiledLoader:
    """Loads real models: those that are ready on this node at once, others after they were made ready elsewhere.

    Speeds of runtimes are measured for the first model only.

    Args:
        threads: CPU threads of each; None: as many as the process may use.
        runtime: as in `autovision.registry.runtimes.load`.

    Raises:
        InvalidInput: no such runtime.
    """

    def __init__(self, threads: int | None, runtime: str = AUTO) -> None:
        check_choice(runtime)
        self._threads, self._runtime = threads, runtime
        self._answers = False

    def __call__(self, store: Store, model: str) -> Predictor:
        loaded = self._load(store, model)
        self._answers = True
        return loaded

    def _load(self, store: Store, model: str) -> Predictor:
        # OpenVINO takes a while to import; a replica answers /v1/health before that.
        from autovision.model.compiled import default_threads
        from autovision.registry import ready
        from autovision.registry.prepare import one_at_a_time, prepare

        threads, measure = self._threads or default_threads(), not self._answers
        look = functools.partial(ready.load, store, model, threads, self._runtime)
        if (found := look(measure=measure)) is not None:
            return found
        if not ready.has_gpu():
            with one_at_a_time():  # another replica may be at it
                if (found := look(measure=measure)) is not None:
                    return found
                prepare(store.uri, model, threads, self._runtime, measure=measure)
                if (found := look()) is not None:
                    return found
            logger.warning("model %s is not ready for this node's runtime; PyTorch is loaded", model)
        from autovision.registry import runtimes

        return runtimes.load(store, model, threads=threads, runtime=self._runtime, measure=measure)


@dataclass(frozen=True)
class Identity:
    """Which replica this is, and where it is to answer."""

    replica: str
    node: str = ""
    socket: Path | None = None
    """None: a folder of its own"""
    host: str | None = None
    """to listen on for edges of other nodes; None: there are none"""
    secret: str | None = None
    """what these have to say"""


class ModelServer:
    """One replica: an engine behind the HTTP app, listening by itself. Serve starts, watches, scales and replaces it.

    Args:
        identify: asked in the process of the replica.
        require_token: whether a token is needed where the store has none, too.
    """

    def __init__(
        self,
        store_uri: str,
        config: EngineConfig,
        load: LoadPredictor,
        identify: Callable[[], Identity],
        limits: Limits | None = None,
        require_token: bool = False,
    ) -> None:
        store, limits = open_store(store_uri), limits or Limits()
        # Of a canary that hangs, the champion has to have the time to take over.
        config = replace(config, patience_s=min(config.patience_s, limits.deadline_s / 2))
        self._identity = me = identify()
        self._engine = Engine(config, store, load, replica=me.replica)
        book = TokenBook(store, required=require_token)
        app: ASGIApp = build_app(self._engine, book=book, limits=limits, settle_s=SETTLE_S)
        if me.secret is not None:
            app = OnlyFrom(app, EDGE_HEADER, me.secret)
        tcp = (me.host, 0) if me.host is not None else None
        self._socket = me.socket or Path(tempfile.mkdtemp(prefix="autovision-")) / "http.sock"
        self._listener = Listener(app, self._socket, tcp)
        self._load_of = Load(self._engine.work)
        self._listener.start()

    def address(self) -> Address | None:
        """Where it answers; None: it does not yet."""
        if not self._listener.listening:
            return None
        tcp = self._listener.tcp
        joined = None if tcp is None else f"[{tcp[0]}]:{tcp[1]}" if ":" in tcp[0] else f"{tcp[0]}:{tcp[1]}"
        return Address(self._identity.replica, self._identity.node, str(self._socket), joined)

    def check_health(self) -> None:
        """Asked by Serve. A raise replaces the replica, so a missing model or a store outage must not."""
        if not self._listener.alive:
            raise RuntimeError("the HTTP server ended")
        if self._listener.listening:
            self._engine.check()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked by Serve for `autovision.serving.scaling`."""
        # While its first model is loaded it would seem to be idle, and go before anybody could call.
        return self._load_of.since_last(monotonic()) if self._listener.listening else {}

    def wake(self) -> None:
        """Being called is all: Serve starts a replica for a call that waits."""

    def flush(self, timeout_s: float) -> bool:
        """Store what is captured now; called on all replicas by `ServerHandle.flush`."""
        return self._engine.flush(timeout_s)

    def __del__(self) -> None:
        """Called by Serve when it stops the replica: what is under way is answered, what is captured stored."""
        if hasattr(self, "_listener"):
            self._listener.close()
            with suppress(OSError):  # others are still there
                self._socket.parent.rmdir()
