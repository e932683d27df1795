"""The replica that Ray Serve runs: an engine behind the HTTP app."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette

from autovision.records.runtimes import AUTO, check_choice
from autovision.serving.app import build_app
from autovision.serving.auth import TokenBook
from autovision.serving.engine import Engine, EngineConfig
from autovision.serving.limits import Limits
from autovision.serving.predicting import LoadPredictor, Predictor
from autovision.store import open_store
from autovision.store.protocol import Store


class CompiledLoader:
    """Loads real models. Those that come while another one answers are converted elsewhere first, at low priority.

    Speeds of runtimes are measured for the first model only: while one answers, measuring would disturb the answers,
    and these the measuring.

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
        # torch and OpenVINO take seconds to import; a replica answers /v1/health before that.
        from autovision.model.runtimes import default_threads
        from autovision.registry import runtimes
        from autovision.registry.prepare import prepare

        threads = self._threads or default_threads()
        if self._answers:
            prepare(store.uri, model, threads, self._runtime)
        loaded = runtimes.load(
            store, model, threads=threads, runtime=self._runtime, measure=not self._answers
        )
        self._answers = True
        return loaded


class ModelServer:
    """One replica. `deploy` wraps it with `serve.ingress`, which calls `__serve_build_asgi_app__`.

    Args:
        require_token: whether a token is needed where the store has none, too.
    """

    def __init__(
        self,
        store_uri: str,
        config: EngineConfig,
        load: LoadPredictor,
        replica: Callable[[], str] = lambda: "local",
        limits: Limits | None = None,
        require_token: bool = False,
    ) -> None:
        store = open_store(store_uri)
        self._engine = Engine(config, store, load, replica=replica())
        self._book = TokenBook(store, required=require_token)
        self._limits = limits

    def __serve_build_asgi_app__(self) -> Starlette:
        return build_app(self._engine, book=self._book, limits=self._limits)

    def check_health(self) -> None:
        """Asked by Serve. A raise replaces the replica, so a missing model or a store outage must not."""
        self._engine.check()

    def flush(self, timeout_s: float) -> bool:
        """Store what is captured now; called on all replicas by `ServerHandle.flush`."""
        return self._engine.flush(timeout_s)
